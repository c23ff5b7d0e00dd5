"""What processes hand to each other when a checkpoint is saved or read: bytes of any length.

Every process calls these at the same places.
"""

import json

from disttrain.replication.object_collectives import gather_bytes


def gather(replication, data):
    """The bytes of each process, a list in their order.

    Args:
        replication: A `disttrain.replication.Replication`.
        data: This process's bytes.
    """
    with replication.pulse.waiting("an exchange about files"):
        return gather_bytes(replication, data)


def from_chief(replication, data):
    """The chief's bytes, on every process; what the others hand in is passed over."""
    return gather(replication, data if replication.is_chief else b"")[0]


def told_by_chief(replication, function):
    """Calls `function` on the chief; every process gets its result, or raises.

    Args:
        replication: A `Replication`.
        function: Returns JSON values.

    Raises:
        Exception: On the chief what `function` has raised, elsewhere a `RuntimeError` with its
            text.
    """
    answer, error = {}, None
    if replication.is_chief:
        try:
            answer = {"result": function()}
        except Exception as raised:
            answer, error = {"error": str(raised)}, raised
    answer = json.loads(from_chief(replication, json.dumps(answer).encode()))
    if error is not None:
        raise error
    if "error" in answer:
        raise RuntimeError(f"the chief says: {answer['error']}")
    return answer["result"]

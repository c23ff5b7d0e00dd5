"""What processes hand to each other when a checkpoint is saved or read: bytes of any length.

Every process calls these at the same places.
"""

import json

import numpy as np


def gather(replication, data):
    """The bytes of each process, a list in their order.

    Args:
        replication: A `disttrain.replication.Replication`.
        data: This process's bytes.
    """
    if replication.topology.processes == 1:
        return [data]
    with replication.pulse.waiting("an exchange about files"):
        return _gathered(replication, data)


def _gathered(replication, data):
    sizes = replication.all_gather(np.asarray([len(data)], np.int64))[:, 0]
    # Whole 32-bit numbers travel everywhere; lengths are made equal, as gathers need.
    padded = np.zeros(-(-max(int(sizes.max()), 1) // 4) * 4, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    gathered = replication.all_gather(padded.view(np.int32))
    return [row.tobytes()[:size] for row, size in zip(gathered, sizes, strict=True)]


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

"""Objects and bytes of any length that processes hand to each other, outside of a step.

Every process calls these functions at the same places in the program.
"""

import pickle
from typing import Any

import numpy as np

from disttrain import replication as replication_module


def broadcast_object(obj: Any, root_rank: int = 0, replication: Any = "auto") -> Any:
    """Returns one process's object on every process.

    ```python
    config = disttrain.broadcast_object(config)
    ```

    Args:
        obj: An object that can be pickled. Only that of `root_rank` counts.
        root_rank: Number of the process whose object is returned, from 0.
        replication: As for `disttrain.Trainer`.

    Returns:
        On `root_rank` the object itself, on the other processes a copy.

    Raises:
        TypeError: The object cannot be pickled; raised on every process.
        ValueError: There is no process `root_rank`.
    """
    replication = replication_module.resolve(replication)
    topology = replication.topology
    if isinstance(root_rank, bool) or not isinstance(root_rank, int):
        raise ValueError(f"root_rank must be the number of a process, not {root_rank!r}")
    if not 0 <= root_rank < topology.processes:
        raise ValueError(
            f"there is no process {root_rank}; root_rank must be from 0 to {topology.processes - 1}"
        )
    if topology.processes == 1:
        return obj
    is_root = topology.process == root_rank
    received = _exchanged(replication, obj if is_root else None)
    return obj if is_root else pickle.loads(received[root_rank])


def allgather_object(obj: Any, replication: Any = "auto") -> list:
    """Returns the objects of all processes, on every process.

    Args:
        obj: This process's object, which can be pickled.
        replication: As for `disttrain.Trainer`.

    Returns:
        A list with the object of each process, in their order.

    Raises:
        TypeError: An object cannot be pickled; raised on every process.
    """
    replication = replication_module.resolve(replication)
    if replication.topology.processes == 1:
        return [obj]
    received = [pickle.loads(data) for data in _exchanged(replication, obj)]
    received[replication.topology.process] = obj
    return received


def _exchanged(replication, obj):
    """The pickled object of each process; if one fails, all raise and none waits for it."""
    try:
        data, error = b"\1" + pickle.dumps(obj), None
    except Exception as raised:  # pickle raises what the object's own methods raise
        data, error = b"\0" + str(raised).encode(), raised
    received = gather_bytes(replication, data)
    for process, one in enumerate(received):
        if one[:1] == b"\0":
            raise TypeError(
                f"the object of process {process} cannot be pickled ({one[1:].decode()}); hand "
                "over plain values, arrays, or objects of classes in modules"
            ) from error
    return [one[1:] for one in received]


def gather_bytes(replication, data):
    """The bytes of each process, a list in their order.

    Args:
        replication: A `disttrain.replication.Replication`.
        data: This process's bytes.
    """
    if replication.topology.processes == 1:
        return [data]
    sizes = replication.all_gather(np.asarray([len(data)], np.int64))[:, 0]
    # Whole 32-bit numbers travel everywhere; lengths are made equal, as gathers need.
    padded = np.zeros(-(-max(int(sizes.max()), 1) // 4) * 4, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    gathered = replication.all_gather(padded.view(np.int32))
    return [row.tobytes()[:size] for row, size in zip(gathered, sizes, strict=True)]

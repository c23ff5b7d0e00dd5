"""What each replica has for itself, on its way to the chief's file and back."""

import numpy as np

from disttrain.checkpoints import exchange
from disttrain.checkpoints.state import Role, share_out

#: In a checkpoint, what replica 3 has for itself is named `replica/3/...`.
_OWN = "replica/{}/{}"


def named(own):
    """Names in a checkpoint for what the replicas have for themselves.

    Args:
        own: Key to array for each replica, as `gathered` returns it.
    """
    return {
        _OWN.format(replica, key): array
        for replica, one in enumerate(own)
        for key, array in one.items()
    }


def gathered(replication, state, own):
    """What the replicas of all processes have for themselves; called by every process.

    Args:
        replication: A `Replication`.
        state: The `disttrain.checkpoints.state.State`, equal in structure on all processes.
        own: Key to array for each replica of this process.

    Returns:
        A list with key to array for each replica of all processes.
    """
    if replication.topology.processes == 1:
        return own
    data = b"".join(array.tobytes() for one in own for array in one.values())
    own_entries = [entry for entry in state.describe() if entry["role"] != Role.EQUAL.value]
    found = []
    for process in exchange.gather(replication, data):
        found += _unpacked(process, own_entries, len(own))
    return found


def received(replication, manifest, tensors):
    """What each replica of now gets of what each replica had; called by every process.

    Args:
        replication: A `Replication`.
        manifest: The checkpoint's.
        tensors: On the chief, name to array.

    Returns:
        A list with key to array for each replica of all processes.
    """
    entries = [e for e in manifest["variables"] if e["role"] != Role.EQUAL.value]
    count = manifest["replicas"]
    data = b""
    if replication.is_chief:
        arrays = [tensors[_OWN.format(i, e["key"])] for i in range(count) for e in entries]
        data = b"".join(array.tobytes() for array in arrays)
    data = exchange.from_chief(replication, data)
    own = _unpacked(data, entries, count)
    return share_out(manifest["variables"], own, replication.replicas)


def spread(replication, variables):
    """Gives `tf.Variable`s the chief's values, on all processes."""
    replication.broadcast([_AsKeras(variable) for variable in variables])


class _AsKeras:
    """What `Replication.broadcast` asks of a variable."""

    def __init__(self, variable):
        self.value = variable

    def numpy(self):
        return self.value.numpy()

    def assign(self, value):
        self.value.assign(value)


def _unpacked(data, entries, replicas):
    found, start = [], 0
    for _ in range(replicas):
        one = {}
        for entry in entries:
            dtype = _dtype(entry["dtype"])
            count = int(np.prod(entry["shape"], dtype=np.int64))
            array = np.frombuffer(data, dtype, count, start).reshape(entry["shape"])
            start += count * dtype.itemsize
            one[entry["key"]] = array
        found.append(one)
    return found


def _dtype(name):
    import tensorflow as tf

    return np.dtype(tf.as_dtype(name).as_numpy_dtype)

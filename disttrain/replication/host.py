"""Memory that ranks of one host share, through which an operation of `kernels` sums.

Horovod's own sums wait for its thread, which asks all ranks what they have in common, and go by
TCP: several times as long as it takes to add.
"""

import fcntl
import os
import secrets

import numpy as np
import tensorflow as tf

from disttrain import kernels

#: Files of memory: a process that closes one gives up its byte, by which others know that it lives.
_open = []

#: Seconds after which a rank says that it waits in a sum.
TELL_SECONDS = 60.0

#: dtypes that are summed as they are; those of 16 bits are summed as float32, as elsewhere.
_AS_THEY_ARE = (tf.float32, tf.float64, tf.int32, tf.int64)
_HALVES = (tf.float16, tf.bfloat16)

#: Bytes of an integer.
_WORD = 8


class Host:
    """Ranks that share a host, and the memory through which they sum.

    Args:
        handle: The memory, a resource tensor.
        rank: This process's among them.
        ranks: How many they are.
    """

    def __init__(self, handle, rank, ranks):
        self._handle = handle
        self._rank = rank
        self._ranks = ranks

    def knows(self, dtype):
        """Whether tensors of this dtype can be summed here and now: not under XLA."""
        return dtype in (*_AS_THEY_ARE, *_HALVES) and kernels.available() is not None

    def sum(self, tensors, what):
        """The sums of tensors of one dtype over the ranks, a list; the same bits on all of them.

        Args:
            tensors: A list.
            what: What they are, the same on all ranks; errors name it.

        Raises:
            tf.errors.InternalError: A rank has ended, or sums something else.
        """
        dtype = tensors[0].dtype
        if dtype in _HALVES:
            tensors = [tf.cast(tensor, tf.float32) for tensor in tensors]
        sums = kernels.available().disttrain_sum(host=self._handle, values=tensors, what=what)
        return [tf.cast(value, dtype) for value in sums] if dtype in _HALVES else sums

    def gather(self, array):
        """The arrays of all ranks, `[ranks, *array.shape]`; outside of graphs.

        Args:
            array: An array of one shape and dtype on all ranks.

        Raises:
            tf.errors.InternalError: A rank has ended, or does something else.
        """
        if array.size == 0:
            return np.zeros([self._ranks, *array.shape], array.dtype)
        content = np.ascontiguousarray(array).tobytes()
        words = -(-len(content) // _WORD)
        # Each rank adds its bits to zeros.
        rows = np.zeros([self._ranks, words], np.int64)
        rows[self._rank] = np.frombuffer(content.ljust(words * _WORD, b"\0"), np.int64)
        with tf.device("CPU:0"):
            (total,) = self.sum([tf.constant(rows)], f"{array.dtype}{list(array.shape)}")
        kept = total.numpy().view(np.uint8)[:, : len(content)]
        return np.ascontiguousarray(kept).view(array.dtype).reshape(self._ranks, *array.shape)


def meet(all_gather, rank, ranks):
    """Finds the other ranks, if all are on this host and can sum by `kernels`; called by all.

    Args:
        all_gather: `Replication.all_gather` of these ranks.
        rank: This process's among them.
        ranks: How many they are.

    Returns:
        A `Host`; `None`, on all ranks, where one of them cannot take part, or where one has
        `DISTTRAIN_SHARED_MEMORY=0`.
    """
    operations = kernels.available()
    # The operation is Linux's alone.
    takes_part = hasattr(operations, "disttrain_sum")
    takes_part = takes_part and os.environ.get("DISTTRAIN_SHARED_MEMORY") != "0"
    word = secrets.randbits(62)
    file = _make(word) if takes_part and rank == 0 else -1
    own = np.array([takes_part, os.getpid(), file, word], np.int64)
    everyone = all_gather(own)
    if not everyone[:, 0].all():
        _close(file)
        return None
    if rank > 0:
        file = _find(*everyone[0, 1:].tolist())
    handle = None
    if file >= 0:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank)
            with tf.device("CPU:0"):
                handle = operations.disttrain_host(
                    file=file, rank=rank, ranks=ranks, tell_seconds=TELL_SECONDS
                )
        except (OSError, tf.errors.OpError):
            pass  # the others are told below
    if not all_gather(np.array([handle is not None])).all():
        _close(file)
        return None
    _open.append(file)
    return Host(handle, rank, ranks)


def _name(word):
    return f"disttrain-{word}"


def _make(word):
    """Makes the memory; -1 where there may be none."""
    try:
        return os.memfd_create(_name(word))
    except OSError:
        return -1


def _find(pid, file, word):
    """Opens the first rank's memory; -1 where it is not to be seen from here."""
    path = f"/proc/{pid}/fd/{file}"
    try:
        # Another host may have a process of that number, too.
        if not os.readlink(path).startswith(f"/memfd:{_name(word)}"):
            return -1
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1


def _close(file):
    if file >= 0:
        os.close(file)

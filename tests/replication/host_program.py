"""Three of Horovod's ranks that sum through the memory of their host.

In the end one becomes another program; each of the others prints, as JSON, what it found.

`python -m tests.replication.host_program FOLDER`
"""

import contextlib
import json
import os
import pathlib
import sys
import time

import numpy as np
import tensorflow as tf

from disttrain.replication import host
from disttrain.replication.horovod import Horovod
from tests._support.timeouts import TIMEOUT

RANKS, TURNS, SUMS = 3, 60, 40

#: Numbers of a tensor: up to and above what is summed at once, in whole pieces or not.
SIZES = (1, 4_095, 4_097, 262_144, 600_001)

DTYPES = ("float32", "float64", "int32", "int64", "float16", "bfloat16")

#: Seconds after which a rank says that it waits for another.
TOLD = 1.0

#: The other program, which lasts until the ranks that are left have found that one is gone.
OTHER = f"""
import pathlib, sys, time
end = time.monotonic() + {TIMEOUT}
while len(list(pathlib.Path(sys.argv[1]).glob("found *"))) < {RANKS - 1}:
    if time.monotonic() > end:
        sys.exit("the other ranks wait for this program")
    time.sleep(0.05)
"""

_NAMES = iter(range(10**6))


def own(rank, size, dtype):
    """The numbers of a rank: others on each, and sums of them are rounded."""
    values = np.random.default_rng(size).uniform(-9, 9, [RANKS, size])[rank]
    return values.astype(tf.as_dtype(dtype).as_numpy_dtype)


def summed(replication, *tensors):
    """What a function in a graph sums."""
    name = f"sum.{next(_NAMES)}"
    return tf.function(lambda *given: replication.reduce_sum(list(given), name))(*tensors)


def is_sum(found, ranks, dtype):
    """Whether these are the sums over ranks, to the bit; those of 16 bits are rounded once."""
    size = len(found)
    kind = np.float32 if tf.as_dtype(dtype).size == 2 else found.dtype
    total = own(ranks[0], size, dtype).astype(kind)
    for rank in ranks[1:]:
        total = total + own(rank, size, dtype).astype(kind)
    return found.tobytes() == total.astype(found.dtype).tobytes()


def of_all_kinds(replication, ranks):
    """Dtypes and sizes whose sums are wrong."""
    wrong = []
    for dtype in DTYPES:
        rank = replication.topology.process
        tensors = [tf.constant(own(rank, size, dtype)) for size in SIZES]
        by_itself = [summed(replication, tensor)[0] for tensor in tensors]
        together = summed(replication, *tensors)
        for size, *found in zip(SIZES, by_itself, together, strict=True):
            if not all(is_sum(one.numpy(), ranks, dtype) for one in found):
                wrong.append([dtype, size])
    return wrong


def of_many_turns(replication, rank):
    """The sum of `rank + turn` in each turn; in some turns one rank is late."""

    @tf.function
    def add(value, large):
        return replication.reduce_sum([value, tf.zeros([0]), large], "turns")

    found = []
    for turn in range(TURNS):
        if turn % 20 == rank:
            time.sleep(0.05)
        value, empty, large = add(tf.constant(float(rank + turn)), tf.fill([70_000], turn + 1.0))
        assert empty.shape == [0]
        assert np.unique(large.numpy()).tolist() == [RANKS * (turn + 1)]
        found.append(float(value))
    return found


def in_a_loop(replication, rank):
    """Ten turns of a loop in a graph, in half of which a value is replaced by its sum, halved."""

    @tf.function
    def loop(value):
        for turn in tf.range(10):
            if turn % 2 == 0:
                value = replication.reduce_sum([value], "loop")[0] / 2
        return value

    return loop(tf.fill([3], float(rank + 1))).numpy().tolist()


def in_order(replication, rank):
    """Sums of which none needs another's result."""

    @tf.function
    def several(value):
        return [replication.reduce_sum([value * i], f"order.{i}")[0] for i in range(SUMS)]

    return [float(value) for value in several(tf.constant(rank + 1.0))]


def not_gathered(replication):
    """The arrays that ranks did not get of each other as they are."""
    arrays = [
        np.array([[np.nan], [-0.0], [np.inf]]),
        np.array([[True], [False], [True]]),
        np.array([1 << 62, -1, 0]),
        np.zeros([RANKS, 0]),
        np.arange(RANKS * 35, dtype=np.int8).reshape([RANKS, 5, 7]),
        np.random.default_rng(0).normal(size=[RANKS, 5, 3]).astype(np.float32).swapaxes(1, 2),
    ]
    wrong = []
    for number, array in enumerate(arrays):
        found = replication.all_gather(array[replication.topology.process])
        if found.shape != array.shape or found.tobytes() != array.tobytes():
            wrong.append(number)
    return wrong


def without_one(replication, rank):
    """Whether there is memory to share where one rank wants none."""
    if rank == 1:
        os.environ["DISTTRAIN_SHARED_MEMORY"] = "0"
    found = host.meet(replication.all_gather, rank, RANKS)
    os.environ.pop("DISTTRAIN_SHARED_MEMORY", None)
    return found is not None


def said(call):
    """What an error says."""
    try:
        call()
    except tf.errors.InternalError as error:
        return str(error)
    return ""


@contextlib.contextmanager
def standard_error(path):
    """Has what this process says written to a file."""
    before = os.dup(2)
    with open(path, "wb", buffering=0) as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def sum_when_told(replication, rank, folder):
    """A sum with a rank that is late until the first has said that it waits.

    Returns:
        The sum, a list, and what the first rank has said.
    """
    path = folder / "said"
    if rank == 0:
        path.touch()
    replication.any(False)
    if rank == 2:
        end = time.monotonic() + TIMEOUT
        while b"waits for rank 2" not in path.read_bytes() and time.monotonic() < end:
            time.sleep(0.05)
    with standard_error(path) if rank == 0 else contextlib.nullcontext():
        found = replication.reduce_sum([tf.ones([2])], "late")[0].numpy().tolist()
    return found, path.read_text()


def main():
    folder = pathlib.Path(sys.argv[1])
    host.TELL_SECONDS = TOLD
    everyone = Horovod()
    rank = everyone.topology.process
    result = {
        "rank": rank,
        "wrong": of_all_kinds(everyone, range(RANKS)),
        "turns": of_many_turns(everyone, rank),
        "loop": in_a_loop(everyone, rank),
        "order": in_order(everyone, rank),
        "not gathered": not_gathered(everyone),
        "without one": without_one(everyone, rank),
    }
    pair = Horovod([0, 1] if rank < 2 else [2], all_groups=[[0, 1], [2]])
    if rank < 2:
        result["wrong in a pair"] = of_all_kinds(pair, range(2))
        other = tf.ones([3 + rank])
        result["other shapes"] = said(lambda: pair.reduce_sum([other], "shapes"))
        result["afterwards"] = said(lambda: pair.reduce_sum([tf.ones([3])], "shapes"))
    result["late"], result["told"] = sum_when_told(everyone, rank, folder)
    result["shares memory"] = everyone.shares_memory
    if rank == 2:
        os.execv(sys.executable, [sys.executable, "-c", OTHER, str(folder)])
    result["gone"] = said(lambda: everyone.reduce_sum([tf.ones([2])], "gone"))
    (folder / f"found {rank}").touch()
    print("RESULT", json.dumps(result), flush=True)
    os._exit(0)  # Horovod would wait for the other one


if __name__ == "__main__":
    main()

"""Three of Horovod's ranks that sum, with a cycle so long that whoever waited for it would be late.

Its argument is whether they may share memory, 1 or 0. Each prints, as JSON, its rank, what it
found, how long the sums took, how much processor time Horovod's threads took in a second without
any, and whether it has shared memory.
"""

import json
import os
import pathlib
import sys
import time

import numpy as np
import tensorflow as tf

from disttrain.replication.horovod import Horovod

SUMS = 100

#: Numbers of a tensor: up to and above what shared memory takes at once, in whole pieces or not.
SIZES = (1, 4_095, 4_097, 262_144, 600_001)


@tf.function(autograph=False)
def _sum(replication, name, *tensors):
    return replication.reduce_sum(list(tensors), name)


def several(replication, name, late=0.0):
    """Sums of tensors that differ by rank and by turn, a list; `late` seconds before some."""
    rank = replication.topology.process
    found = []
    for turn in range(SUMS):
        if late and turn % 25 == rank:
            time.sleep(late)
        tensors = tf.fill([3], (rank + 1.0) * turn), tf.fill([70_000], rank + 1.0)
        small, large = _sum(replication, name, *tensors)
        found.append([*small.numpy().tolist(), np.unique(large.numpy()).item()])
    return found


def of_sizes(replication):
    """For each dtype and size, what is left of sums over ranks of 1, 2, ... 1000, 1, ... times the
    rank's number from 1 when they are divided by the first rank's: the sum of the numbers."""
    factor = replication.topology.process + 1
    found = {}
    for dtype in (tf.float32, tf.float64):
        for size in SIZES:
            own = np.arange(size) % 1000 + 1
            (whole,) = _sum(replication, f"of.{size}", tf.constant(own * factor, dtype))
            found[f"{dtype.name} {size}"] = np.unique(whole.numpy() / own).tolist()
    return found


def main():
    os.environ["HOROVOD_CYCLE_TIME"] = "300"  # milliseconds
    os.environ["DISTTRAIN_SHARED_MEMORY"] = sys.argv[1]
    everyone = Horovod()
    rank = everyone.topology.process
    everyone.any(False)
    start = time.process_time()
    time.sleep(1.0)
    idle = time.process_time() - start
    several(everyone, "together")  # the ranks get to know the tensors
    start = time.monotonic()
    together = several(everyone, "together")
    seconds = time.monotonic() - start
    late = several(everyone, "late", late=0.05)
    group = Horovod([0, 1] if rank < 2 else [2], all_groups=[[0, 1], [2]])
    apart = several(group, "apart", late=0.02)
    sizes, of_group = of_sizes(everyone), of_sizes(group)
    everyone.any(False)  # Horovod ends on all ranks as soon as one ends
    shared = "memfd:disttrain-" in pathlib.Path("/proc/self/maps").read_text()
    result = {"rank": rank, "seconds": seconds, "idle": idle}
    result |= {"together": together, "late": late, "apart": apart}
    result |= {"sizes": sizes, "of_group": of_group, "shared": shared}
    print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

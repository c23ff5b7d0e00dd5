"""Three of Horovod's ranks that sum, with a cycle so long that whoever waited for it would be late.

Each prints, as JSON, its rank, what it found, how long the sums took, and how much processor time
Horovod's threads took in a second without any.
"""

import json
import os
import time

import numpy as np
import tensorflow as tf

from disttrain.replication.horovod import Horovod

SUMS = 100


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


def main():
    os.environ["HOROVOD_CYCLE_TIME"] = "300"  # milliseconds
    os.environ["DISTTRAIN_SHARED_MEMORY"] = "0"  # which sums without Horovod
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
    everyone.any(False)  # Horovod ends on all ranks as soon as one ends
    result = {"rank": rank, "seconds": seconds, "idle": idle}
    result |= {"together": together, "late": late, "apart": apart}
    print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

"""Three of Horovod's ranks that sum: `python -m tests.launch.mended_program together|apart`.

Each prints, as JSON, its rank and what it found: either the sums of all ranks, with a cycle so long
that none of them can wait for it, or the sums of two groups, and how much processor time Horovod's
threads took in a second without any.
"""

import json
import os
import sys
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


def sums_together(everyone):
    several(everyone, "together")  # the ranks get to know the tensors
    return {
        "together": several(everyone, "together"),
        "late": several(everyone, "late", late=0.05),
    }


def sums_apart(everyone):
    start = time.process_time()
    time.sleep(1.0)
    idle = time.process_time() - start
    rank = everyone.topology.process
    group = Horovod([0, 1] if rank < 2 else [2], all_groups=[[0, 1], [2]])
    return {"idle": idle, "apart": several(group, "apart", late=0.02)}


def main(what):
    # Milliseconds. A group is known after some cycles.
    os.environ["HOROVOD_CYCLE_TIME"] = {"together": "5000000", "apart": "300"}[what]
    os.environ["DISTTRAIN_SHARED_MEMORY"] = "0"  # which sums without Horovod
    everyone = Horovod()
    everyone.any(False)
    found = {"together": sums_together, "apart": sums_apart}[what](everyone)
    everyone.any(False)  # Horovod ends on all ranks as soon as one ends
    print("RESULT", json.dumps({"rank": everyone.topology.process, **found}), flush=True)
    if what == "together":
        os._exit(0)  # or Horovod would end with its cycle


if __name__ == "__main__":
    main(sys.argv[1])

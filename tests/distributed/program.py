"""Runs the checks in one process of a job: `python -m tests.distributed.program KIND FOLDER`.

Results go to `FOLDER/process-N.npz`, keyed `check/value`; what a check raised to `check/raised`.
"""

import os
import sys
import traceback

import numpy as np

import disttrain
from tests.distributed import all_checks


def main(kind, folder, *names):
    replication = disttrain.replication.resolve(kind)
    process = replication.topology.process
    results = {"topology": np.asarray([replication.replicas, process])}
    for name in names or all_checks():
        own = os.path.join(folder, name)
        os.makedirs(own, exist_ok=True)
        try:
            values = all_checks()[name](replication, own)
        except Exception:
            values = {"raised": traceback.format_exc()}
        results |= {f"{name}/{key}": np.asarray(value) for key, value in values.items()}
        print(name, "raised" if "raised" in values else "done", flush=True)
        np.savez(os.path.join(folder, f"process-{process}.npz"), **results)


if __name__ == "__main__":
    main(*sys.argv[1:])

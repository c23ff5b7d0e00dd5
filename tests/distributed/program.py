"""Runs the checks in one process of a job: `python -m tests.distributed.program KIND FOLDER`.

Results go to `FOLDER/process-N.npz`, keyed `check/value`; what a check raised to `check/raised`.
"""

import faulthandler
import gc
import os
import sys
import time
import traceback

import numpy as np

import disttrain
from tests.distributed import all_checks

#: Seconds of one check, which takes a few, and many more beside other work.
LIMIT = 600


def replication_of(kind):
    """The replication of this process; a mirrored one has its replicas on logical devices."""
    name, _, count = kind.partition("-")
    if name == "mirrored":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * int(count)
        tf.config.set_logical_device_configuration(cpu, devices)
    return disttrain.replication.resolve(name)


def main(kind, folder, *names):
    replication = replication_of(kind)
    process = replication.topology.process
    results = {"topology": np.asarray([replication.replicas, process])}
    for name in names or all_checks():
        own = os.path.join(folder, name)
        began = time.process_time()
        os.makedirs(own, exist_ok=True)
        # One that hangs ends the job, and says where.
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        try:
            values = all_checks()[name](replication, own)
        except Exception:
            values = {"raised": traceback.format_exc()}
        results |= {f"{name}/{key}": np.asarray(value) for key, value in values.items()}
        ended = "raised" if "raised" in values else "done"
        print(f"{name} {ended}, {time.process_time() - began:.1f} s of processor time", flush=True)
        np.savez(os.path.join(folder, f"process-{process}.npz"), **results)
        # What is left of a check stays: to look through a million objects again and again is slow.
        gc.collect()
        gc.freeze()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Trains a few steps and prints the peak memory of its process, as a line of JSON.

`telemetry.py` starts one process for each measurement: a peak never goes down again.
"""

import argparse
import json
import re
import resource
import tempfile

import numpy as np
import tensorflow as tf

import disttrain
from tests.benchmarks import models, telemetry


def peak_bytes():
    """The most memory that this process has used so far: the GPU's where there is one.

    Linux hands `ru_maxrss` on from the process that started this one, which may have been larger;
    `VmHWM` begins anew with the program.
    """
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    try:
        with open("/proc/self/status") as file:
            return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1])
    except (OSError, TypeError):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=0, help="0 is without telemetry")
    parser.add_argument("--width", type=int, default=2048, help="units of a layer")
    parser.add_argument("--layers", type=int, default=8, help="number of layers")
    # Operations come in another order at each step, and the peak is that of the dearest one.
    parser.add_argument("--steps", type=int, default=40, help="steps to train")
    options = parser.parse_args(arguments)

    def inputs(rng, batches):
        return rng.normal(size=(batches, 8, options.width)).astype(np.float32)

    def labels(rng, batches):
        return rng.integers(0, 10, (batches, 8), dtype=np.int32)

    build = models.dense(options.width, options.layers)
    case = models.Case("memory", build, inputs, labels)
    chosen = disttrain.Telemetry(every=options.every) if options.every else None
    with tempfile.TemporaryDirectory() as logdir:
        telemetry.fit(telemetry.trainer(case, chosen, logdir), case, options.steps)
        print(json.dumps({"peak_bytes": peak_bytes()}), flush=True)


if __name__ == "__main__":
    main()

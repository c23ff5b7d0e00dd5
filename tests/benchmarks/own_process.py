"""Measures in a process of its own what needs logical devices, two of them.

They have to be there before TensorFlow's first operation. `python -m MODULE SETTINGS` prints what
the module has measured as JSON.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import tensorflow as tf

from tests.benchmarks import harness, models

#: Logical devices.
DEVICES = 2

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def measured(module, case, settings):
    """The `harness.Timings` that a module, run as a program, tells of a case."""
    own = dataclasses.asdict(dataclasses.replace(settings, cases=(case.name,)))
    command = [sys.executable, "-m", module, json.dumps(own)]
    done = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    seconds = {name: np.asarray(values) for name, values in found["seconds"].items()}
    return harness.Timings(seconds, found["steps"], found["slices"], np.asarray(found["build"]))


def tell(timings):
    """Prints a `harness.Timings` for `measured`."""
    found = dataclasses.asdict(timings)
    found["seconds"] = {name: values.tolist() for name, values in timings.seconds.items()}
    found["build"] = timings.build.tolist()
    print(json.dumps(found), flush=True)


def asked(arguments):
    """What `measured` asks a program for, once its devices are there.

    Returns:
        `(case, settings, strategy)`, the last a `MirroredStrategy` of `DEVICES` devices.
    """
    (content,) = arguments
    settings = harness.Settings(**{**json.loads(content), "cases": ()})
    cases = {case.name: case for case in (*models.ALL, models.TINY)}
    (case,) = (cases[name] for name in json.loads(content)["cases"])
    kind = "GPU" if len(tf.config.list_physical_devices("GPU")) >= DEVICES else "CPU"
    devices = [f"{kind}:{i}" for i in range(DEVICES)]
    if kind == "CPU":
        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * DEVICES
        tf.config.set_logical_device_configuration(cpu, parts)

    # All have one, for those of two would collide.
    return case, settings, tf.distribute.MirroredStrategy(devices)

"""`disttrain.Trainer` beside Keras's `Model.fit`, both under `MirroredStrategy`.

Logical devices have to be there before TensorFlow's first operation, so all of it runs in a process
of its own: `python -m tests.benchmarks.mirrored SETTINGS` prints what it has measured as JSON.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import tensorflow as tf

from tests.benchmarks import harness, loops, models, report, speed

#: The throughput to reach, of Keras's.
GOAL = 1.1

#: Logical devices.
DEVICES = 2

_KERAS, _OURS = "Model.fit", "disttrain"
_ROOT = pathlib.Path(__file__).resolve().parents[2]


def mirrored(settings):
    """Time of a step under MirroredStrategy with 2 logical devices, relative to `Model.fit`."""
    for case in models.chosen(settings):
        timings = in_process("tests.benchmarks.mirrored", case, settings)
        for name, other, goal in (
            (_OURS, _KERAS, GOAL),
            # Keras cannot make several steps at once here.
            (_several(), _KERAS, GOAL),
        ):
            yield report.versus("mirrored", case.name, timings, name, other, goal)


def _several():
    return f"{_OURS}, {speed.SEVERAL} a call"


def in_process(module, case, settings):
    """The `harness.Timings` that a module, run as a program, tells of a case."""
    own = dataclasses.asdict(dataclasses.replace(settings, cases=(case.name,)))
    command = [sys.executable, "-m", module, json.dumps(own)]
    done = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    seconds = {name: np.asarray(values) for name, values in found["seconds"].items()}
    return harness.Timings(seconds, found["steps"], found["slices"], np.asarray(found["build"]))


def tell(timings):
    """Prints a `harness.Timings` for `in_process`."""
    found = dataclasses.asdict(timings)
    found["seconds"] = {name: values.tolist() for name, values in timings.seconds.items()}
    found["build"] = timings.build.tolist()
    print(json.dumps(found), flush=True)


def as_told(arguments):
    """What `in_process` tells a program.

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


def main(arguments):
    tf.get_logger().setLevel("ERROR")
    case, settings, strategy = as_told(arguments)
    makers = {
        _KERAS: lambda _: loops.by_keras(case, scope=strategy.scope),
        _OURS: lambda _: loops.by_trainer(case, replication=strategy),
        _several(): lambda _: loops.by_trainer(case, speed.SEVERAL, replication=strategy),
    }
    tell(speed.measured(makers, settings, speed.SEVERAL))


if __name__ == "__main__":
    main(sys.argv[1:])

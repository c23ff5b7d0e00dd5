"""`disttrain.Trainer` beside Keras's `Model.fit`, both under `MirroredStrategy`.

It runs in `own_process`.
"""

import sys

import tensorflow as tf

from tests.benchmarks import loops, models, own_process, report, speed

#: The throughput to reach, of Keras's.
GOAL = 1.1

_KERAS, _OURS = "Model.fit", "disttrain"


def mirrored(settings):
    """Time of a step under MirroredStrategy with 2 logical devices, relative to `Model.fit`."""
    for case in models.chosen(settings):
        timings = own_process.measured("tests.benchmarks.mirrored", case, settings)
        for name, other, goal in (
            (_OURS, _KERAS, GOAL),
            # Keras cannot make several steps at once here.
            (_several(), _KERAS, GOAL),
        ):
            yield report.versus("mirrored", case.name, timings, name, other, goal)


def _several():
    return f"{_OURS}, {speed.SEVERAL} a call"


def main(arguments):
    tf.get_logger().setLevel("ERROR")
    case, settings, strategy = own_process.asked(arguments)
    makers = {
        _KERAS: lambda _: loops.by_keras(case, scope=strategy.scope),
        _OURS: lambda _: loops.by_trainer(case, replication=strategy),
        _several(): lambda _: loops.by_trainer(case, speed.SEVERAL, replication=strategy),
    }
    own_process.tell(speed.measured(makers, settings, speed.SEVERAL))


if __name__ == "__main__":
    main(sys.argv[1:])

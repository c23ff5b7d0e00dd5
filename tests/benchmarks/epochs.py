"""What an epoch costs beside its steps: four shuffled batches of arrays, and as many to validate.

It runs in `own_process`.
"""

import contextlib
import dataclasses
import sys

import keras
import numpy as np
import tensorflow as tf

import disttrain
from tests.benchmarks import models, own_process, report, speed

#: Batches of an epoch, and epochs of a call of `fit`.
BATCHES, EPOCHS = 4, 5

#: The throughput to reach, of Keras's.
GOAL = 1.0

_KERAS, _OURS = "Model.fit", "disttrain"
_MIRRORED = ", mirrored"


def epochs(settings):
    """Time of an epoch of four batches and its validation, relative to `Model.fit`."""
    case = models.TINY if settings.quick else models.MLP
    if settings.quick:
        # An epoch of Keras's under the strategy takes seconds.
        settings = dataclasses.replace(settings, rounds=1, builds=1)
    timings = own_process.measured("tests.benchmarks.epochs", case, settings)
    for suffix in ("", _MIRRORED):
        name, other = _OURS + suffix, _KERAS + suffix
        yield report.versus("epochs", case.name, timings, name, other, GOAL)


def _arrays(case):
    rng = np.random.default_rng(0)
    both = case.inputs(rng, BATCHES), case.labels(rng, BATCHES)
    return [array.reshape(-1, *array.shape[2:]) for array in both]


def _fits(fit, case):
    """What trains n epochs, each with a validation."""
    x, y = _arrays(case)
    options = {"batch_size": len(x) // BATCHES, "validation_data": (x, y), "verbose": 0}
    return lambda count: fit(x, y, epochs=count, **options)


def _by_keras(case, scope=contextlib.nullcontext):
    with scope():
        model = case.build_model()
        model.compile(case.optimizer(), case.loss())
    return _fits(model.fit, case)


def _by_trainer(case, replication):
    made = disttrain.Trainer(
        case.build_model,
        optimizer=case.optimizer(),
        loss=case.loss(),
        replication=replication,
        telemetry=None,
    )
    return _fits(made.fit, case)


def main(arguments):
    tf.get_logger().setLevel("ERROR")
    case, settings, strategy = own_process.asked(arguments)
    keras.utils.set_random_seed(0)
    makers = {
        _KERAS: lambda _: _by_keras(case),
        _OURS: lambda _: _by_trainer(case, "single"),
        _KERAS + _MIRRORED: lambda _: _by_keras(case, strategy.scope),
        _OURS + _MIRRORED: lambda _: _by_trainer(case, strategy),
    }
    own_process.tell(speed.measured(makers, settings, 1 if settings.quick else EPOCHS))


if __name__ == "__main__":
    main(sys.argv[1:])

"""How fast a step of `disttrain.Trainer` is on one device, beside a loop by hand and `Model.fit`.

A goal is a ratio of times, where the issue speaks of throughputs: 0.98 of the throughput is 1.02 of
the time.
"""

import contextlib
import dataclasses
import os
import tempfile

import numpy as np

import disttrain
from tests.benchmarks import harness, models, report
from tests.benchmarks.harness import Variant
from tests.benchmarks.loops import ByHand, by_keras, by_trainer

#: Goals: of the throughput of the loop by hand, of `Model.fit`, and of that on a model.
OF_HAND, OF_KERAS = 0.98, {"mlp": 1.2}

#: Steps of an execution, where there are several.
SEVERAL = 10

_HAND = "by hand"
_KERAS = "Model.fit"
_OURS = "disttrain"
_TELEMETRY = f"{_OURS}, telemetry"
_COMPILED = f"{_OURS}, XLA"


def speed(settings):
    """Time of a step on one device, relative to the same step in another way."""
    for case in models.chosen(settings):
        yield from _speed(case, settings)


def _speed(case, settings):
    makers = {
        _HAND: lambda logdir: ByHand(case),
        # The same loop twice: how far from 1 a figure lies here that should be 1.
        f"{_HAND} again": lambda logdir: ByHand(case),
        _several(_HAND): lambda logdir: ByHand(case, SEVERAL),
        _KERAS: lambda logdir: by_keras(case),
        _several(_KERAS): lambda logdir: by_keras(case, SEVERAL),
        _OURS: lambda logdir: by_trainer(case),
        _several(_OURS): lambda logdir: by_trainer(case, SEVERAL),
        _COMPILED: lambda logdir: by_trainer(case, jit_compile=True),
        _several(_TELEMETRY): lambda logdir: by_trainer(
            case, SEVERAL, telemetry=disttrain.Telemetry(), logdir=logdir
        ),
    }
    timings = measured(makers, settings, SEVERAL)
    beside_keras = OF_KERAS.get(case.name, 1.0)
    for name, other, goal in (
        (f"{_HAND} again", _HAND, None),
        (_several(_HAND), _HAND, None),
        (_OURS, _HAND, OF_HAND),
        (_several(_OURS), _several(_HAND), OF_HAND),
        (_OURS, _KERAS, 1.0),
        (_several(_OURS), _several(_KERAS), 1.0),
        # What a user may choose against what a user has.
        (_several(_OURS), _KERAS, beside_keras),
        (_several(_TELEMETRY), _several(_OURS), None),
        (_several(_TELEMETRY), _KERAS, None),
        # What decides whether `jit_compile="auto"` compiles on such a device.
        (_COMPILED, _OURS, None),
    ):
        yield report.versus("speed", case.name, timings, name, other, goal)


def _several(name):
    return f"{name}, {SEVERAL} a call"


def measured(makers, settings, unit=1):
    """Builds ways of training anew, and lets them take turns.

    Args:
        makers: Name to a function of a log directory that returns what makes n steps; if that is a
            context manager, it is left at the end.
        settings: A `harness.Settings`.
        unit: Steps of which slices are multiples, for what makes so many at once.

    Returns:
        `harness.Timings`.
    """

    @contextlib.contextmanager
    def build(number):
        with tempfile.TemporaryDirectory() as logdir, contextlib.ExitStack() as stack:
            made = {}
            # Who comes first gets other memory than who comes last.
            for name in np.random.default_rng(number).permutation(list(makers)):
                run = makers[name](os.path.join(logdir, str(len(made))))
                if hasattr(run, "__exit__"):
                    stack.enter_context(run)
                run(unit)
                made[name] = run
            yield [Variant(name, in_units(made[name], unit)) for name in makers]

    timings = harness.measure_anew(build, settings)
    return dataclasses.replace(timings, steps=unit * timings.steps)


def in_units(run, unit):
    """What makes n times so many steps."""
    return lambda count: run(unit * count)

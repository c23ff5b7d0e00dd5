"""What telemetry costs: time, bytes in the event file, and memory.

Each benchmark here is a function of `harness.Settings` that yields `report.Figure`s; the command
calls it. Besides, `HandWritten` shows what the plainest statistics cost.
"""

import contextlib
import dataclasses
import glob
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.compat.proto import event_pb2
from tensorboard.util import tensor_util

import disttrain
from tensorboard_plugin import metadata
from tests.benchmarks import harness, models
from tests.benchmarks.harness import Variant
from tests.benchmarks.report import Figure, ratio
from tests.benchmarks.slices import Slices

#: Goals: each step recorded, by model; the defaults; bytes a number; largest variables.
EVERY_STEP = {"mlp": 1.10, "transformer": 1.03, "convnet": 1.03}
DEFAULTS = 1.01
BYTES = 4.5
VARIABLES = 1.0

_DEFAULTS = disttrain.Telemetry()
_CLIP = 1.0
_ENDLESS = 10**9
_NEVER = 10**9
_ROOT = pathlib.Path(__file__).resolve().parents[2]

#: A record of an event file has its length, and two checksums, beside the event.
_FRAME_BYTES = 16


def speed(settings):
    """Time of a step, relative to the same step without telemetry."""
    for case in _cases(settings):
        yield from _speed_of_trainer(case, settings)
        yield from _speed_of_hand_written_loop(case, settings)


def _speed_of_trainer(case, settings):
    # Histograms are so rare by default that no sample would hold its share of them. They are
    # measured where each recorded step has them, and added in proportion.
    telemetries = {
        "off": None,
        # The same training twice: how far from 1 a figure lies here that should be 1.
        "off again": None,
        "every=1": _with_histograms(1, _NEVER),
        "defaults": _with_histograms(_DEFAULTS.every, _NEVER),
        "histograms": _with_histograms(_DEFAULTS.every, _DEFAULTS.every),
    }
    goals = {"every=1": EVERY_STEP.get(case.name), "defaults": DEFAULTS}

    @contextlib.contextmanager
    def build(number):
        with tempfile.TemporaryDirectory() as logdir:
            trainings = {
                name: Slices(_training(case, chosen, os.path.join(logdir, name)))
                for name, chosen in telemetries.items()
            }
            with contextlib.ExitStack() as stack:
                for training in trainings.values():
                    stack.enter_context(training)
                # Who comes first gets other memory than who comes last.
                for name in np.random.default_rng(number).permutation(list(trainings)):
                    trainings[name](2)
                yield [
                    dataclasses.replace(variant, run=trainings[variant.name])
                    for variant in variants
                ]
            for name, chosen in telemetries.items():
                if chosen:
                    check_recorded(os.path.join(logdir, name), chosen.every, trainings[name].steps)

    variants = [
        Variant(
            name,
            None,
            None if name == "off" else "off",
            goals.get(name),
            chosen.every if chosen else 1,
        )
        for name, chosen in telemetries.items()
    ]
    timings = harness.measure_anew(build, settings)
    variants = {variant.name: variant for variant in variants}
    with_them, without = (
        harness.ratios(timings, variants[name]) for name in ("histograms", "defaults")
    )
    share = (with_them - without) * _DEFAULTS.every / (_DEFAULTS.histograms_every or math.inf)
    for name in list(variants)[1:]:
        plus = share if name in goals else 0.0
        yield ratio("telemetry-speed", case.name, variants[name], timings, plus)


def _with_histograms(every, histograms_every):
    return dataclasses.replace(_DEFAULTS, every=every, histograms_every=histograms_every)


def _training(case, chosen, logdir):
    return lambda callback: fit(trainer(case, chosen, logdir), case, _ENDLESS, callback)


def _speed_of_hand_written_loop(case, settings):
    baseline = Variant("by hand", None)
    plain = Variant("plain", None, baseline.name)

    @contextlib.contextmanager
    def build(_):
        yield [
            dataclasses.replace(baseline, run=HandWritten(case)),
            dataclasses.replace(plain, run=HandWritten(case, statistics=True)),
        ]

    timings = harness.measure_anew(build, settings)
    yield ratio("telemetry-speed", case.name, plain, timings)


def file_bytes(settings):
    """Bytes of the event file for each recorded number."""
    steps = 3 if settings.quick else 50
    for case in _cases(settings):
        for name, histograms_every in (("every=1", None), ("histograms", 1)):
            with tempfile.TemporaryDirectory() as logdir:
                chosen = _with_histograms(1, histograms_every)
                fit(trainer(case, chosen, logdir), case, steps)
                size, numbers, found = recorded(logdir)
            details = {"bytes_per_step": size / found, "numbers_per_step": numbers / found}
            summary = harness.summarize([size / numbers])
            yield Figure("telemetry-bytes", case.name, name, summary, BYTES, details)


def peak_memory(settings):
    """Memory that telemetry adds to the peak, in sizes of the largest variable."""
    width, layers, repeats = (64, 2, 1) if settings.quick else (2048, 8, 5)
    largest = 4 * width * width
    case = f"{layers} x Dense {width}"
    # What the same graph adds where its variables are next to nothing.
    for name, units, goal in (("every=1", width, VARIABLES), ("fixed part", 8, None)):
        off, every = [], []
        for _ in range(repeats):
            off.append(_peak(0, units, layers))
            every.append(_peak(1, units, layers))
        samples = [(b - a) / largest for a, b in zip(off, every, strict=True)]
        details = {"largest_bytes": largest, "off_bytes": off, "every_bytes": every}
        summary = harness.summarize(samples)
        yield Figure("telemetry-memory", case, name, summary, goal, details)


def recorded(logdir):
    """What a run's event files hold of the plugin's data.

    The first record of a tag is left out: it carries the description, once in 32 MB.

    Args:
        logdir: The run's directory.

    Returns:
        `(bytes, numbers, steps)`: size of the records, float32 numbers in them, and their steps.

    Raises:
        ValueError: There are none.
    """
    size = numbers = 0
    steps, described = set(), set()
    for path in glob.glob(os.path.join(logdir, "*.tfevents.*")):
        for record in event_file_loader.RawEventFileLoader(path).Load():
            event = event_pb2.Event.FromString(record)
            values = [v for v in event.summary.value if metadata.parse_tag(v.tag)]
            tags = {value.tag for value in values}
            if not values or not tags <= described:
                described |= tags
                continue
            size += len(record) + _FRAME_BYTES
            numbers += sum(tensor_util.make_ndarray(value.tensor).size for value in values)
            steps.add(event.step)
    if not numbers:
        raise ValueError(f"no records of the plugin in {logdir!r}")
    return size, numbers, len(steps)


def check_recorded(logdir, every, steps):
    """Checks that a run was recorded as often as it was asked to be.

    Args:
        logdir: The run's directory.
        every: Steps between two records.
        steps: Steps of the run.

    Raises:
        RuntimeError: Records are missing, so that the run has cost less than it should.
    """
    found, expected = recorded(logdir)[2], steps // every
    # The first record is not counted, and a run that is cut off may lose its last.
    if found < 0.95 * expected - 2:
        raise RuntimeError(
            f"telemetry recorded {found} steps of {steps}, where every={every} asks for "
            f"{expected}; what was measured is not what it should cost"
        )


class HandWritten:
    """The same training as a loop written by hand, with a Keras optimizer; a call makes n steps.

    With statistics it does what one would write first: a copy of all weights before the update,
    then the norms of gradient, update, weight and both moments of every variable at every step.

    Args:
        case: A `models.Case`.
        statistics: Whether there are statistics.

    Attributes:
        model: The `keras.Model`.
        table: The statistics of the last step, float32 `[variables, 5]`.
    """

    def __init__(self, case, statistics=False):
        keras.utils.set_random_seed(0)
        self.model = case.build_model()
        self._optimizer = case.optimizer()
        self._loss = case.loss()
        self._statistics = statistics
        variables = self.model.trainable_variables
        self._optimizer.build(variables)
        self.table = tf.Variable(tf.zeros([len(variables), 5]), trainable=False)
        self._iterator = iter(case.dataset().prefetch(2))
        self._step = tf.function(self._train, autograph=False)

    def __call__(self, steps):
        for _ in range(steps):
            # `Trainer` waits for each step, too: it learns how many batches there were.
            float(self._step(self._iterator))

    def _train(self, iterator):
        x, y = next(iterator)
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            loss = self._loss(y, self.model(x, training=True))
        gradients = tape.gradient(loss, variables)
        clipped, _ = tf.clip_by_global_norm(gradients, _CLIP)
        if not self._statistics:
            self._optimizer.apply(clipped, variables)
            return loss
        before = [tf.identity(variable.value) for variable in variables]
        self._optimizer.apply(clipped, variables)
        rows = []
        for i, variable in enumerate(variables):
            # Keras has no public way to the moments.
            moments = self._optimizer._momentums[i], self._optimizer._velocities[i]
            update = variable.value - before[i]
            measured = (gradients[i], update, variable.value, *moments)
            rows.append(tf.stack([tf.norm(tensor) for tensor in measured]))
        self.table.assign(tf.stack(rows))
        return loss


def _cases(settings):
    if settings.quick:
        return (models.TINY,)
    return [case for case in models.ALL if not settings.cases or case.name in settings.cases]


def trainer(case, chosen, logdir):
    """The `disttrain.Trainer` that is measured: Adam, a clip by the global norm, one replica.

    Args:
        case: A `models.Case`.
        chosen: A `disttrain.Telemetry`, or `None`.
        logdir: The run's directory.
    """
    return disttrain.Trainer(
        case.build_model,
        optimizer=case.optimizer(),
        loss=case.loss(),
        replication="single",
        clip=disttrain.ClipByGlobalNorm(_CLIP),
        telemetry=chosen,
        logdir=logdir,
    )


def fit(made, case, steps, *callbacks):
    """Trains one silent epoch.

    Args:
        made: What `trainer` returned.
        case: Its `models.Case`.
        steps: Steps of the epoch.
        *callbacks: Keras callbacks.
    """
    made.fit(case.dataset(), steps_per_epoch=steps, verbose=0, callbacks=list(callbacks))


def _peak(every, width, layers):
    """Peak memory of a process of its own, in bytes; see `memory.py`."""
    command = [sys.executable, "-m", "tests.benchmarks.memory"]
    command += ["--every", str(every), "--width", str(width), "--layers", str(layers)]
    done = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])["peak_bytes"]

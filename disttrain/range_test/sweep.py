"""Runs a range test on a task, and puts every variable back to the last bit."""

import contextlib
import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from disttrain.batches import let_go
from disttrain.checkpoints.state import State
from disttrain.custom_run import train_step_of
from disttrain.data import pipeline_errors
from disttrain.optimizers.wrapper import innermost
from disttrain.range_test import judging, objections
from disttrain.telemetry import Telemetry
from disttrain.telemetry.observer import Observer
from disttrain.telemetry.recording import Recording


@dataclasses.dataclass(frozen=True)
class RateRange:
    """A range test.

    Attributes:
        rates: Learning rates, float64 `[n]`, ascending.
        losses: The loss of the next batch after the step at each rate, float64 `[n]`.
        smoothed: Their bias-corrected exponential average, float64 `[n]`.
        suggestion: A learning rate, or `None` where none can be read off.
        reason: Why it, or why none; a sentence.
        candidates: Name of a criterion to its learning rate.
        exploded_at: The rate after which the loss exploded, or `None`.
        objections: What the health rules say of the first rate that they object to, sentences.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None
    reason: str
    candidates: dict
    exploded_at: float | None
    objections: list

    def __str__(self):
        if self.suggestion is None:
            return f"no learning rate to suggest: {self.reason}"
        return f"learning rate {self.suggestion:.3g}, {self.reason}"

    def plot(self, path=None):
        """Draws it; see `picture.plot`."""
        from disttrain.range_test import picture

        return picture.plot(self, path)


class Swept(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that is set from outside, where the optimizer has a schedule.

    Attributes:
        value: A float32 scalar `tf.Variable`.
    """

    def __init__(self):
        self.value = tf.Variable(0.0, trainable=False, name="swept_rate")

    def __call__(self, step):
        return tf.convert_to_tensor(self.value)

    def get_config(self):
        return {}


def run(
    task, feed, *, low=1e-7, high=10.0, steps=100, smoothing=0.9, explosion=4.0, jit_compile=False
):
    """Raises the learning rate from `low` to `high` by the same factor in each step.

    Called by every process. All variables are what they were before, whatever happens.

    Args:
        task: A built `disttrain.task.Task`, its optimizer too.
        feed: A `disttrain.data.Feed`.
        low: The first learning rate.
        high: The last one.
        steps: How many are tried.
        smoothing: As for `judging.smoothed`.
        explosion: As `factor` of `judging.exploded`, which ends the test.
        jit_compile: As for `TrainStep`.

    Returns:
        A `RateRange`, the same on all processes.

    Raises:
        ValueError: An argument is outside of its range, or the optimizer has no learning rate.
    """
    check(low, high, steps, smoothing, explosion)
    replication, optimizer = task.replication, task.optimizer
    options = Telemetry(every=1, histograms_every=None, per_replica=False, divergence_every=None)
    observer = Observer(options, optimizer.inner, task.trained_variables, replication)
    step = train_step_of(task)(task, feed, 1, jit_compile, observer)
    state = State(task, step)
    rates = np.geomspace(low, high, steps)
    equal, own = state.copy()
    rows, records = [], []

    def done(count):
        optimizer.check_skipped()
        # The observer keeps no more.
        if count % observer.capacity == 0:
            rows.append(observer.read())

    try:
        with _swept(optimizer, replication) as set_rate:
            losses = _losses(replication, step, feed, rates, set_rate, smoothing, explosion, done)
        rows.append(observer.read())
        if replication.is_chief:
            part = Recording(observer, options, optimizer, replication.replicas, 2**30, 1).layers
            layers, quantities = ([getattr(r, n) for r in rows] for n in ("layers", "quantities"))
            records = [part, np.concatenate(layers), np.concatenate(quantities)]
    finally:
        state.assign(equal, own)
    return _result(replication, rates, losses, smoothing, explosion, records)


def check(low, high, steps, smoothing, explosion):
    """Checks the arguments of a range test.

    Raises:
        ValueError: One is outside of its range.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(
            f"a range test goes from low to high with 0 < low < high, not from {low!r} to {high!r}"
        )
    if isinstance(steps, bool) or int(steps) != steps or steps < 10:
        raise ValueError(f"steps must be a whole number from 10, not {steps!r}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be from 0 and below 1, not {smoothing!r}")
    if not explosion > 1:
        raise ValueError(f"explosion must be a factor above 1, not {explosion!r}")


def rate_of(optimizer):
    """The learning rate of an optimizer, a variable or a schedule, and the one that holds it.

    Args:
        optimizer: A `DistributedOptimizer`.

    Returns:
        `(holder, rate)`.

    Raises:
        ValueError: It has none that could be set.
    """
    holder = innermost(optimizer.inner)
    rate = getattr(holder, "_learning_rate", None)
    if rate is None or getattr(holder, "_has_rate", True) is False:
        raise ValueError(
            f"{holder.name!r} has no learning rate of its own to try others for; give it one, or "
            "set it by hand"
        )
    return holder, rate


@contextlib.contextmanager
def _swept(optimizer, replication):
    """Gives a function that sets the learning rate; a schedule is put aside for as long."""
    holder, rate = rate_of(optimizer)
    if isinstance(rate, keras.Variable):
        yield rate.assign
        return
    with replication.scope():
        swept = Swept()
    holder._learning_rate = swept
    try:
        yield swept.value.assign
    finally:
        holder._learning_rate = rate


def _losses(replication, step, feed, rates, set_rate, smoothing, explosion, done):
    """The loss before each step, and one more; fewer where it explodes."""
    first = judging.settled(len(rates))
    batches = step.batches_per_execution
    iterator, unread = _iterator(feed, batches * (len(rates) + 1))
    losses, taken = [], 0
    for rate in [*rates, rates[-1]]:
        set_rate(rate)
        step.reset()
        with pipeline_errors(), replication.pulse.waiting("a step of the range test"):
            made = int(step.execute(iterator, tf.constant(batches)))
        if made == 0:
            raise ValueError("the dataset gave no batch; is it empty?")
        taken += made
        loss = np.asarray([step.read()[1]["loss"]], np.float64)
        # Of the chief, so that all processes stop at the same step.
        losses.append(float(replication.all_gather(loss)[0][0]))
        done(len(losses))
        behind = losses[1:]
        if not math.isfinite(losses[-1]):
            break
        if behind and judging.exploded(judging.smoothed(behind, smoothing), explosion, first):
            break
    for _ in range(unread - taken):
        next(iterator)
    held = [iterator]
    del iterator
    let_go(held)
    return losses


def _iterator(feed, wanted):
    """An iterator of so many batches that passes over the dataset once.

    So a test moves the order of later epochs on by one pass, whatever its length.

    Returns:
        `(iterator, batches)`: how many must be read for TensorFlow's cache not to complain.
    """
    dataset = feed.dataset(0)
    if feed.length is not None and feed.length >= wanted:
        return iter(dataset), 0
    cached = dataset.take(wanted).cache().repeat()
    return iter(cached), min(feed.length or 0, wanted)


def _result(replication, rates, losses, smoothing, explosion, records):
    behind = np.asarray(losses[1:], np.float64)
    first = judging.settled(len(rates))
    rates = rates[: len(behind)]
    curve = judging.smoothed(behind, smoothing)
    exploded = len(curve) > 0 and judging.exploded(curve, explosion, first)
    exploded_at = float(rates[-1]) if exploded else None
    finite = np.isfinite(behind)
    if not finite.all():
        rates, behind, curve = (
            values[: int(np.argmin(finite))] for values in (rates, behind, curve)
        )
    objection = objections.first(*_as_long(records, len(rates))) if records else None
    # The chief alone has records.
    place = np.asarray([-1 if objection is None else objection.place], np.int64)
    place = int(replication.all_gather(place)[0][0])
    healthy = None if place < 0 else float(rates[max(place - 1, 0)])
    if len(curve) < 2:
        verdict = judging.Verdict({}, None, "the loss was not finite from the beginning")
    else:
        verdict = judging.judge(rates, behind, curve, smoothing, first, healthy)
    return RateRange(
        rates,
        behind,
        curve,
        verdict.suggestion,
        verdict.reason,
        verdict.candidates,
        exploded_at,
        [] if objection is None else objection.messages,
    )


def _as_long(records, count):
    part, layers, quantities = records
    return part, layers[:count], quantities[:count]

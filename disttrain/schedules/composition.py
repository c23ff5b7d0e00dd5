"""Schedules made of other schedules or numbers: `Warmup`, `Sequence`, `Scaled`, `ByEpoch`."""

import inspect
import math

import tensorflow as tf

from disttrain.schedules.base import (
    Schedule,
    fraction,
    rate,
    rate_at,
    register,
    schedule_or_rate,
    serialized,
    whole,
)
from disttrain.schedules.scaling import ScaledRate, Scaling, refuse_twice

RULES = ("linear", "sqrt")


@register
class Warmup(Schedule):
    """Ramps linearly up to another schedule, which then begins at its own step 0.

    ```
    rate(step) = start + (schedule(0) - start) * min(1, (step + ahead) / steps)    for step < steps
    rate(step) = schedule(step - steps)                                            from then on
    ```

    The count of the wrapped schedule starts after the warmup, as in Keras's `CosineDecay` with
    `warmup_steps`: `Warmup(CosineDecay(0.1, 900), 100)` ends at step 1000. With `start=0` the first
    update changes nothing but the optimizer's slots; with `ahead=1` it is made at one step's worth
    of the ramp, and the last step of the ramp at the full rate, as Horovod's
    `LearningRateWarmupCallback` does. Gradual warmup is from Goyal et al. 2017,
    "Accurate, large minibatch SGD", section 2.2.

    Args:
        schedule: A `LearningRateSchedule`, or a learning rate to stay at.
        steps: Length of the ramp, in steps.
        start: Learning rate of step 0, or of the step before it with `ahead=1`.
        ahead: By how many steps the ramp is ahead, from 0.

    Raises:
        TypeError: `schedule` is neither a schedule nor a number.
        ValueError: `steps` is below 1, `ahead` below 0, or a rate is negative or not finite.
    """

    def __init__(self, schedule, steps, start=0.0, ahead=0):
        super().__init__()
        self.ahead = whole(ahead, "Warmup", "ahead", least=0)
        self.schedule = schedule_or_rate(schedule, "Warmup", "schedule")
        self.steps = whole(steps, "Warmup", "steps")
        self.start = rate(start, "Warmup", "start", zero=True)
        self._track(self.schedule, "schedule")

    def _rate(self, step):
        # One call of the schedule serves both parts, for before the end it stays at its step 0.
        after = rate_at(self.schedule, tf.maximum(step - self.steps, 0))
        return tf.where(
            step < self.steps,
            self.start + (after - self.start) * fraction(step + self.ahead, self.steps),
            after,
        )

    def get_config(self):
        config = {"schedule": serialized(self.schedule), "steps": self.steps, "start": self.start}
        # Left out where it says nothing, as checkpoints compare configurations.
        return {**config, "ahead": self.ahead} if self.ahead else config


@register
class Sequence(Schedule):
    """Runs schedules one after another, each from its own step 0.

    ```
    rate(step) = schedules[i](step - begin[i])    for begin[i] <= step < begin[i + 1]
    begin = [0, *boundaries]
    ```

    The step of a boundary belongs to the later schedule, where it is step 0. (Keras's
    `PiecewiseConstantDecay` gives it to the earlier one.)

    Args:
        schedules: `LearningRateSchedule` objects or learning rates, at least one.
        boundaries: Steps at which the next one takes over, one fewer than `schedules`, ascending.

    Raises:
        TypeError: An element of `schedules` is neither a schedule nor a number.
        ValueError: The boundaries do not ascend from 1, or there is a wrong number of them.
    """

    def __init__(self, schedules, boundaries):
        super().__init__()
        self.schedules = [schedule_or_rate(s, "Sequence", "schedules") for s in schedules]
        self.boundaries = [whole(b, "Sequence", "boundaries") for b in boundaries]
        if not self.schedules or len(self.boundaries) != len(self.schedules) - 1:
            raise ValueError(
                f"Sequence got {len(self.schedules)} schedules and {len(self.boundaries)} "
                "boundaries; give one boundary between each two schedules, one fewer than schedules"
            )
        if any(b <= a for a, b in zip(self.boundaries, self.boundaries[1:], strict=False)):
            raise ValueError(
                f"Sequence got the boundaries {self.boundaries}; give steps that ascend, each "
                "counted from the beginning of training"
            )
        for i, schedule in enumerate(self.schedules):
            self._track(schedule, f"schedule_{i}")

    def _rate(self, step):
        result = rate_at(self.schedules[0], step)
        for boundary, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            later = rate_at(schedule, tf.maximum(step - boundary, 0))
            result = tf.where(step < boundary, result, later)
        return result

    def get_config(self):
        return {
            "schedules": [serialized(schedule) for schedule in self.schedules],
            "boundaries": list(self.boundaries),
        }


@register
class Scaled(Schedule):
    """A schedule, or a learning rate, times a constant.

    Args:
        schedule: A `LearningRateSchedule` or a learning rate.
        factor: What it is multiplied by, above 0.

    Raises:
        TypeError: `schedule` is neither a schedule nor a number.
        ValueError: `factor` is not a finite number above 0.
    """

    def __init__(self, schedule, factor):
        super().__init__()
        self.schedule = schedule_or_rate(schedule, "Scaled", "schedule")
        self.factor = rate(factor, "Scaled", "factor")
        self._track(self.schedule, "schedule")

    def _rate(self, step):
        return rate_at(self.schedule, step) * self.factor

    def get_config(self):
        return {"schedule": serialized(self.schedule), "factor": self.factor}


def scaled_learning_rate(value, replicas, rule="linear", warmup_steps=0):
    """The learning rate for a global batch that has grown with the number of replicas.

    `"linear"` multiplies it by `replicas`: Goyal et al. 2017, "Accurate, large minibatch SGD",
    section 2.1, for SGD. `"sqrt"` multiplies it by `sqrt(replicas)`, which keeps the variance of
    the update: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks",
    section 5; it is often chosen for Adam. A warmup ramps from the *unscaled* rate to the scaled
    one (section 2.2 of Goyal et al.), so that the first steps are as safe as on one replica.

    Args:
        value: The learning rate, or the schedule, that is right for one replica's batch.
        replicas: How many times that batch the global batch holds, usually
            `trainer.replication.replicas`.
        rule: `"linear"` or `"sqrt"`.
        warmup_steps: Length of the ramp, in steps; 0 for none. A schedule begins after it.

    Returns:
        A float where `value` is a number and there is no warmup, else a `LearningRateSchedule`.

    Raises:
        TypeError: `value` is neither a schedule nor a number.
        ValueError: `value` is a number that is not above 0 or was scaled already, `replicas` is
            below 1, `rule` is unknown, or `warmup_steps` is negative.
    """
    owner = "scaled_learning_rate"
    refuse_twice(value)
    value = schedule_or_rate(value, owner, "value")
    if isinstance(value, float):
        rate(value, owner, "value")
    replicas = whole(replicas, owner, "replicas")
    warmup_steps = whole(warmup_steps, owner, "warmup_steps", least=0)
    if rule not in RULES:
        raise ValueError(
            f"unknown rule {rule!r}; choose one of {', '.join(map(repr, RULES))} to scale the "
            "learning rate"
        )
    factor = float(replicas) if rule == "linear" else math.sqrt(replicas)
    scaling = Scaling(factor, replicas, rule)
    if isinstance(value, float):
        scaled = ScaledRate(value * factor, scaling)
    else:
        scaled = Scaled(value, factor)
        scaled.scaling = scaling
    if not warmup_steps:
        return scaled
    with tf.init_scope():
        unscaled = float(rate_at(value, 0))
    made = Warmup(scaled, warmup_steps, start=unscaled)
    made.scaling = scaling
    return made


@register
class ByEpoch(Schedule):
    """A function of the epoch, as `keras.callbacks.LearningRateScheduler` takes it, as a schedule.

    The function is called once for each epoch when the schedule is made, and its rates are kept in
    a table; the table, not the function, is what gets saved. So the rate changes at the right step
    without a callback, and is the same on all replicas. After the table its last rate stays.

    ```
    rate(step) = function(step // steps_per_epoch)
    ```

    Args:
        function: A function of the epoch, counted from 0, or of the epoch and the learning rate of
            the epoch before; or a list of the rates themselves.
        steps_per_epoch: Optimizer steps in an epoch.
        epochs: For how many epochs the function is called.
        initial: Learning rate that a function of two arguments gets in epoch 0.

    Raises:
        TypeError: `function` is neither a function nor a list of numbers.
        ValueError: A rate is negative or not finite, a count is below 1, or `initial` is missing.
    """

    def __init__(self, function, steps_per_epoch, epochs=1000, initial=None):
        super().__init__()
        self.steps_per_epoch = whole(steps_per_epoch, "ByEpoch", "steps_per_epoch")
        rates = function
        if callable(function):
            rates = _tabulate(function, whole(epochs, "ByEpoch", "epochs"), initial)
        if not isinstance(rates, (list, tuple)) or not rates:
            raise TypeError(
                f"ByEpoch takes a function of the epoch or a list of rates, not {function!r}"
            )
        rates = [rate(r, "ByEpoch", f"rate of epoch {i}", zero=True) for i, r in enumerate(rates)]
        while len(rates) > 1 and rates[-1] == rates[-2]:
            rates.pop()
        self.rates = rates

    def _rate(self, step):
        epoch = tf.minimum(step // self.steps_per_epoch, len(self.rates) - 1)
        return tf.gather(tf.constant(self.rates, tf.float32), epoch)

    def get_config(self):
        return {"function": list(self.rates), "steps_per_epoch": self.steps_per_epoch}


def _tabulate(function, epochs, initial):
    needed = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) < 2:
        return [float(function(epoch)) for epoch in range(epochs)]
    if initial is None:
        raise ValueError(
            f"{function!r} also wants the learning rate of the epoch before; give initial=, the "
            "rate that it gets in epoch 0"
        )
    rates = [rate(initial, "ByEpoch", "initial", zero=True)]
    for epoch in range(epochs):
        rates.append(float(function(epoch, rates[-1])))
    return rates[1:]

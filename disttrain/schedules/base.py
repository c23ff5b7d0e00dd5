"""What all schedules share: how a step is read, how arguments are checked, and the `Schedule` base.

The schedules themselves are in the modules beside this one. None of them knows an optimizer.
"""

import math

import keras
import numpy as np
import tensorflow as tf

KerasSchedule = keras.optimizers.schedules.LearningRateSchedule


def register(cls):
    """Makes a class known to Keras's serialization under the package `disttrain`."""
    return keras.saving.register_keras_serializable("disttrain")(cls)


class Schedule(KerasSchedule, tf.__internal__.tracking.Trackable):
    """A learning rate as a function of the step.

    Subclasses implement `_rate` and `get_config`. A schedule inside of another is tracked, so that
    `tf.train.Checkpoint` of an optimizer finds the variable of a `Plateau` however deep it lies.
    """

    def __call__(self, step):
        """The learning rate of a step.

        Args:
            step: Number of updates made before, counted from 0: an integer scalar, as a Python
                number, a tensor or a `keras.Variable` of any integer dtype.

        Returns:
            A float32 scalar.

        Raises:
            ValueError: `step` is no scalar, no integer, or negative. Inside of a `tf.function` the
                value cannot be seen; there a negative step counts as 0.
        """
        name = type(self).__name__
        with tf.name_scope(name):
            return tf.cast(self._rate(_checked_step(step, name)), tf.float32)

    def _rate(self, step):
        """The learning rate at an int64 scalar from 0."""
        raise NotImplementedError

    def _track(self, schedule, name):
        if isinstance(schedule, tf.__internal__.tracking.Trackable):
            self._track_trackable(schedule, name)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        def revive(value):
            if isinstance(value, dict):
                return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
            if isinstance(value, (list, tuple)):
                return [revive(entry) for entry in value]
            return value

        return cls(**{key: revive(value) for key, value in config.items()})

    def __repr__(self):
        settings = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({settings})"


def _checked_step(step, name):
    step = tf.convert_to_tensor(step)
    if step.shape.rank not in (0, None):
        raise ValueError(
            f"{name} takes one step number, a scalar, and got a tensor of shape {step.shape}; hand "
            "it optimizer.iterations, or call it once for each step"
        )
    if not step.dtype.is_integer:
        raise ValueError(
            f"{name} counts whole steps and got {step!r} of dtype {step.dtype.name}; hand it an "
            "integer such as optimizer.iterations"
        )
    known = tf.get_static_value(step)
    if known is not None and known < 0:
        raise ValueError(
            f"{name} got step {int(known)}; steps count from 0, so hand it optimizer.iterations"
        )
    # Steps stay integers until their differences are small: float32 cannot tell 2**24 from 2**24+1.
    return tf.maximum(tf.cast(step, tf.int64), 0)


def rate_at(schedule_or_value, step):
    """The rate of a schedule, or of a number, at a step; a float32 scalar."""
    if isinstance(schedule_or_value, KerasSchedule):
        return tf.cast(tf.convert_to_tensor(schedule_or_value(step)), tf.float32)
    return tf.constant(schedule_or_value, tf.float32)


def fraction(step, steps):
    """`step / steps` limited to [0, 1], for int64 `step` and a Python `steps`; a float32 scalar."""
    return tf.cast(tf.minimum(step, steps), tf.float32) / float(steps)


def serialized(schedule_or_value):
    """What stands for a schedule or a number in a configuration."""
    if isinstance(schedule_or_value, KerasSchedule):
        return keras.saving.serialize_keras_object(schedule_or_value)
    return schedule_or_value


def schedule_or_rate(value, owner, argument):
    """Checks an argument that is a schedule or a learning rate from 0.

    Raises:
        TypeError: It is neither.
        ValueError: It is a number that is no learning rate.
    """
    if isinstance(value, KerasSchedule):
        return value
    if not _is_number(value):
        raise TypeError(
            f"{owner} takes a learning rate or a keras.optimizers.schedules.LearningRateSchedule "
            f"as {argument}, not {value!r}"
        )
    return rate(value, owner, argument, zero=True)


def rate(value, owner, argument, zero=False):
    """Checks a learning rate, a finite number above 0, or from 0 where `zero`.

    Raises:
        ValueError: It is not.
    """
    allowed = _is_number(value) and math.isfinite(value) and (value >= 0 if zero else value > 0)
    if not allowed:
        least = "from 0" if zero else "above 0"
        raise ValueError(
            f"{owner} needs a finite number {least} as {argument}, not {value!r}; learning rates "
            "are plain numbers such as 0.1"
        )
    return float(value)


def whole(value, owner, argument, least=1):
    """Checks a whole number from `least`.

    Raises:
        ValueError: It is not.
    """
    is_number = _is_number(value) and math.isfinite(value) and int(value) == value
    if not is_number or value < least:
        raise ValueError(
            f"{owner} needs a whole number from {least} as {argument}, not {value!r}; it counts "
            "optimizer steps, of which an epoch has ceil(examples / global batch size)"
        )
    return int(value)


def between(value, low, high, owner, argument):
    """Checks a finite number with `low <= value <= high`.

    Raises:
        ValueError: It is not.
    """
    if not _is_number(value) or not low <= value <= high:
        raise ValueError(
            f"{owner} needs {argument} to lie between {low:g} and {high:g}, not {value!r}"
        )
    return float(value)


def _is_number(value):
    numbers = (int, float, np.integer, np.floating)
    return isinstance(value, numbers) and not isinstance(value, bool)

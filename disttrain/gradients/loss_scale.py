"""Loss scaling: keeps small half-precision gradients from becoming zero.

The loss is multiplied by the scale before the backward pass, and the reduced gradients are divided
by it. After Micikevicius et al. 2018, "Mixed precision training", section 3.2.
"""

import math

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("disttrain")
class FixedLossScale:
    """A loss scale that stays as it is.

    Args:
        scale: A finite number above 0. Powers of 2 scale without rounding.

    Raises:
        ValueError: `scale` is not such a number.
    """

    def __init__(self, scale):
        number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        if not number or not math.isfinite(scale) or scale <= 0:
            raise ValueError(
                f"a loss scale must be a finite number above 0, 'dynamic', a DynamicLossScale or "
                f"None, not {scale!r}"
            )
        self.initial = float(scale)

    def build(self, add_variable):
        """Makes the variables through `add_variable(name, dtype, value)`."""
        self.value = add_variable("loss_scale", "float32", self.initial)

    def after_finite(self):
        """Updates the state after an applied step, in replica context."""

    def after_overflow(self):
        """Updates the state after a skipped step, in replica context."""

    def get_config(self):
        return {"scale": self.initial}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        return f"{type(self).__name__}({self.initial:g})"


@keras.saving.register_keras_serializable("disttrain")
class DynamicLossScale(FixedLossScale):
    """A loss scale that backs off when gradients overflow and grows again after a quiet time.

    Args:
        initial: The scale at the first step.
        growth_interval: After so many applied steps in a row the scale grows.
        growth_factor: What it is then multiplied by; above 1.
        backoff_factor: What it is multiplied by after a skipped step; between 0 and 1.
        minimum: It never falls below this.
        hysteresis: So many skipped steps, without an interval of growth between them, before it
            backs off; 1 backs off at the first.

    Raises:
        ValueError: An argument is outside of its range.
    """

    def __init__(
        self,
        initial=2.0**15,
        growth_interval=2000,
        growth_factor=2.0,
        backoff_factor=0.5,
        minimum=1.0,
        hysteresis=1,
    ):
        super().__init__(initial)
        if int(growth_interval) != growth_interval or growth_interval < 1:
            raise ValueError(
                f"growth_interval must be a whole number from 1, not {growth_interval!r}"
            )
        if not 1 < growth_factor < math.inf:
            raise ValueError(f"growth_factor must be above 1, not {growth_factor!r}")
        if not 0 < backoff_factor < 1:
            raise ValueError(f"backoff_factor must lie between 0 and 1, not {backoff_factor!r}")
        if not 0 < minimum <= initial:
            raise ValueError(
                f"minimum must be above 0 and not above initial ({initial!r}), not {minimum!r}"
            )
        if isinstance(hysteresis, bool) or int(hysteresis) != hysteresis or hysteresis < 1:
            raise ValueError(f"hysteresis must be a whole number from 1, not {hysteresis!r}")
        self.growth_interval = int(growth_interval)
        self.hysteresis = int(hysteresis)
        self.growth_factor = float(growth_factor)
        self.backoff_factor = float(backoff_factor)
        self.minimum = float(minimum)

    def build(self, add_variable):
        super().build(add_variable)
        self.good_steps = add_variable("good_steps", "int64", 0)
        self.tolerated = add_variable("tolerated_overflows", "int64", 0)

    def after_finite(self):
        good = self.good_steps.value + 1
        grow = good >= self.growth_interval
        grown = self.value.value * self.growth_factor
        # A scale that float32 cannot hold would make every later loss infinite.
        grow_to = tf.where(tf.math.is_finite(grown), grown, self.value.value)
        self.value.assign(tf.where(grow, grow_to, self.value.value))
        self.good_steps.assign(tf.where(grow, tf.zeros_like(good), good))
        tolerated = self.tolerated.value
        self.tolerated.assign(tf.where(grow, tf.zeros_like(tolerated), tolerated))

    def after_overflow(self):
        overflows = self.tolerated.value + 1
        back_off = overflows >= self.hysteresis
        smaller = tf.maximum(self.value.value * self.backoff_factor, self.minimum)
        self.value.assign(tf.where(back_off, smaller, self.value.value))
        # Once it has backed off it does so at each further overflow, until it has grown again.
        self.tolerated.assign(tf.minimum(overflows, self.hysteresis))
        self.good_steps.assign(tf.zeros_like(self.good_steps.value))

    def get_config(self):
        return {
            "initial": self.initial,
            "growth_interval": self.growth_interval,
            "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor,
            "minimum": self.minimum,
            "hysteresis": self.hysteresis,
        }


def resolve(loss_scale):
    """Turns what a user asks for into a loss scale.

    Args:
        loss_scale: `None`, a number, `"dynamic"`, or an instance of the classes above.

    Raises:
        ValueError: It is none of these.
    """
    if loss_scale is None or isinstance(loss_scale, FixedLossScale):
        return loss_scale
    if loss_scale == "dynamic":
        return DynamicLossScale()
    return FixedLossScale(loss_scale)

"""Schedules with a shape of their own: `OneCycle`, `InverseSqrt`, `Cyclical`."""

import math

import tensorflow as tf

from disttrain.schedules.base import Schedule, between, fraction, rate, register, whole

MODES = ("triangular", "triangular2", "exp_range")
ANNEALINGS = ("cosine", "linear")


@register
class OneCycle(Schedule):
    """One rise to a high learning rate and one long fall to almost none: the 1cycle policy.

    Smith and Topin 2018, "Super-convergence: very fast training of neural networks using large
    learning rates", in the form with two phases that is in common use: with `top = warmup * steps`,

    ```
    rate(step) = anneal(peak / start_divisor, peak, step / top)                  for step < top
    rate(step) = anneal(peak, peak / end_divisor, (step - top) / (steps - top))  up to steps
    anneal(a, b, x) = b + (a - b) * (1 + cos(pi * x)) / 2    "cosine"
    anneal(a, b, x) = a + (b - a) * x                        "linear"
    ```

    After `steps` the last rate stays.

    Args:
        peak: The highest learning rate, for example from a learning rate range test.
        steps: Length of the whole cycle, in steps.
        warmup: Part of `steps` that rises, above 0 and below 1.
        start_divisor: The cycle begins at `peak / start_divisor`.
        end_divisor: It ends at `peak / end_divisor`.
        anneal: `"cosine"` or `"linear"`.

    Raises:
        ValueError: An argument is outside of its range.
    """

    def __init__(
        self, peak, steps, warmup=0.3, start_divisor=25.0, end_divisor=2.5e5, anneal="cosine"
    ):
        super().__init__()
        self.peak = rate(peak, "OneCycle", "peak")
        self.steps = whole(steps, "OneCycle", "steps", least=2)
        self.warmup = between(warmup, 0, 1, "OneCycle", "warmup")
        self.start_divisor = between(start_divisor, 1, math.inf, "OneCycle", "start_divisor")
        self.end_divisor = between(end_divisor, 1, math.inf, "OneCycle", "end_divisor")
        if anneal not in ANNEALINGS:
            raise ValueError(
                f"unknown anneal {anneal!r}; choose one of {', '.join(map(repr, ANNEALINGS))}"
            )
        self.anneal = anneal
        self._top = round(self.warmup * self.steps)
        if not 0 < self._top < self.steps:
            raise ValueError(
                f"OneCycle(warmup={warmup!r}) leaves {self._top} of {self.steps} steps to rise; "
                "choose a warmup between 0 and 1 that gives both phases at least one step"
            )

    def _rate(self, step):
        top = self._top
        rise = self._between(self.peak / self.start_divisor, self.peak, fraction(step, top))
        fallen = fraction(tf.maximum(step - top, 0), self.steps - top)
        fall = self._between(self.peak, self.peak / self.end_divisor, fallen)
        return tf.where(step < top, rise, fall)

    def _between(self, first, last, x):
        if self.anneal == "linear":
            return first + (last - first) * x
        return last + (first - last) * (1.0 + tf.cos(math.pi * x)) / 2.0

    def get_config(self):
        return {
            "peak": self.peak,
            "steps": self.steps,
            "warmup": self.warmup,
            "start_divisor": self.start_divisor,
            "end_divisor": self.end_divisor,
            "anneal": self.anneal,
        }


@register
class InverseSqrt(Schedule):
    """A linear warmup, and then a fall with the inverse square root of the step.

    Vaswani et al. 2017, "Attention is all you need", equation 3, where `n = step + 1` counts from 1
    and `peak` takes the place of `1 / sqrt(d_model * warmup_steps)`:

    ```
    rate = peak * min(n / warmup_steps, sqrt(warmup_steps / n))
    ```

    Args:
        peak: The learning rate of update `warmup_steps`, the highest.
        warmup_steps: Updates until the peak.

    Raises:
        ValueError: `peak` is not above 0, or `warmup_steps` is below 1.
    """

    def __init__(self, peak, warmup_steps):
        super().__init__()
        self.peak = rate(peak, "InverseSqrt", "peak")
        self.warmup_steps = whole(warmup_steps, "InverseSqrt", "warmup_steps")

    def _rate(self, step):
        progress = tf.cast(step + 1, tf.float32) / self.warmup_steps
        return self.peak * tf.minimum(progress, tf.math.rsqrt(progress))

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps}


@register
class Cyclical(Schedule):
    """Goes up and down between two learning rates for ever.

    Smith 2017, "Cyclical learning rates for training neural networks", section 3.1: with
    `cycle = floor(step / (2 * half_period))` counted from 0 and `height` that rises from 0 to 1 in
    the first half of a cycle and falls back in the second,

    ```
    rate = low + (high - low) * height                  "triangular"
    rate = low + (high - low) * height / 2**cycle       "triangular2"
    rate = low + (high - low) * height * decay**step    "exp_range"
    ```

    Args:
        low: The lowest learning rate.
        high: The highest, above `low`.
        half_period: Steps from the lowest to the highest; the paper advises 2 to 10 epochs.
        mode: `"triangular"`, `"triangular2"` or `"exp_range"`.
        decay: The factor of each step for `"exp_range"`, above 0 and at most 1.

    Raises:
        ValueError: An argument is outside of its range.
    """

    def __init__(self, low, high, half_period, mode="triangular", decay=0.9999):
        super().__init__()
        self.low = rate(low, "Cyclical", "low", zero=True)
        self.high = rate(high, "Cyclical", "high")
        if self.high <= self.low:
            raise ValueError(
                f"Cyclical got low={low!r} and high={high!r}; high must be above low, so swap them "
                "or use a constant rate"
            )
        self.half_period = whole(half_period, "Cyclical", "half_period")
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}; choose one of {', '.join(map(repr, MODES))}")
        self.mode = mode
        self.decay = between(rate(decay, "Cyclical", "decay"), 0, 1, "Cyclical", "decay")

    def _rate(self, step):
        position = step % (2 * self.half_period)
        height = 1.0 - tf.cast(abs(position - self.half_period), tf.float32) / self.half_period
        if self.mode == "triangular2":
            height *= tf.pow(0.5, tf.cast(step // (2 * self.half_period), tf.float32))
        elif self.mode == "exp_range":
            height *= tf.pow(self.decay, tf.cast(step, tf.float32))
        return self.low + (self.high - self.low) * height

    def get_config(self):
        return {
            "low": self.low,
            "high": self.high,
            "half_period": self.half_period,
            "mode": self.mode,
            "decay": self.decay,
        }

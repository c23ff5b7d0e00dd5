"""What `DistributedOptimizer.apply` costs with more and more variables, beside Keras's own.

Variables are small, so that the time is that of the operations, not of the numbers in them.
"""

import dataclasses
import functools

import keras
import numpy as np
import tensorflow as tf

import disttrain
from tests.benchmarks import harness, report
from tests.benchmarks.speed import measured

#: Numbers of variables, and the length and width of each.
COUNTS, SIZE = (10, 100, 1000, 3000), 16

#: The most by which a variable of the largest model may cost more than one of the next.
LINEAR = 1.1

_CLIP = 1.0


def adam(settings):
    """Time of one update by the number of variables, with an operation of disttrain's own."""
    pairs = [("disttrain", "Keras"), ("disttrain, as Trainer calls it", "Keras")]
    yield from _growth("Adam", keras.optimizers.Adam, pairs, settings)


def clip(settings):
    """Time of one update by the number of variables, with a clip by the global norm."""
    pairs = [("disttrain, clip", "Keras, clip")]
    yield from _growth("Adam", keras.optimizers.Adam, pairs, settings)


def ftrl(settings):
    """Time of one update by the number of variables, where Keras makes it."""
    yield from _growth("Ftrl", keras.optimizers.Ftrl, [("disttrain", "Keras")], settings)


class Updates:
    """Updates of variables by an optimizer; a call makes n times as many as fill `most` variables.

    Args:
        optimizer: A new optimizer with a `build` and an `apply`.
        count: Number of variables.
        most: Variables whose update counts as one step: an optimizer of fewer updates them so much
            oftener that slices of all are about equally long.
        alone: Whether a `DistributedOptimizer` is told that nothing else uses its slots, as
            `Trainer` tells it.
    """

    def __init__(self, optimizer, count, most, alone=False):
        rng = np.random.default_rng(0)
        shape = (SIZE, SIZE)
        values = rng.normal(size=(count, *shape)).astype(np.float32)
        self.variables = [keras.Variable(values[i], name=f"v{i}") for i in range(count)]
        # One tensor, for thousands of arguments would cost more than what is measured.
        self._gradients = tf.constant(rng.normal(size=(count, *shape)), tf.float32)
        self.optimizer = optimizer
        optimizer.build(self.variables)
        self._times = most // count
        self._alone = alone
        self._update = tf.function(self._apply, autograph=False)

    def __call__(self, steps):
        for _ in range(steps * self._times):
            self._update(self._gradients)

    def _apply(self, gradients):
        gradients = tf.unstack(gradients)
        if self._alone:
            self.optimizer.apply_shares(gradients, self.variables, alone=True)
        else:
            self.optimizer.apply(gradients, self.variables)


def _growth(name, optimizer, pairs, settings):
    counts = (2, 4) if settings.quick else COUNTS

    def wrapped(**options):
        return disttrain.DistributedOptimizer(optimizer(1e-3), replication="single", **options)

    makers = {
        "Keras": lambda *size: Updates(optimizer(1e-3), *size),
        "disttrain": lambda *size: Updates(wrapped(), *size),
        "Keras, clip": lambda *size: Updates(optimizer(1e-3, global_clipnorm=_CLIP), *size),
        "disttrain, clip": lambda *size: Updates(
            wrapped(clip=disttrain.ClipByGlobalNorm(_CLIP)), *size
        ),
        "disttrain, as Trainer calls it": lambda *size: Updates(wrapped(), *size, alone=True),
    }
    makers = {
        f"{kind}, {count}": functools.partial(_made, makers[kind], count, counts[-1])
        for count in counts
        for kind in dict.fromkeys(name for pair in pairs for name in reversed(pair))
    }
    timings = measured(makers, settings)
    for own, other in pairs:
        for count in counts:
            line = report.versus("growth", name, timings, f"{own}, {count}", f"{other}, {count}")
            yield _by_update(line, counts[-1] // count, f"{own} / {other}: {count:,} variables")
        slopes = [_slopes(timings, kind, counts) for kind in (own, other)]
        yield _figure(name, f"{own} / {other}: slope", timings, slopes[0][0] / slopes[1][0], slopes)
        # From one number of variables to the next, a line that is straight keeps this at 1.
        last = [timings.seconds[f"{own}, {count}"] for count in counts[-2:]]
        bend = f"{own}: a variable of {counts[-1]:,} / of {counts[-2]:,}"
        yield _figure(name, bend, timings, last[1] / last[0], slopes, LINEAR)


def _made(make, count, most, _):
    return make(count, most)


def _by_update(line, times, name):
    """The figure with its details for one update, not for one step."""
    details = {k: v / times if "milliseconds" in k else v for k, v in line.details.items()}
    return dataclasses.replace(line, name=name, details=details)


def _slopes(timings, kind, counts):
    """Seconds that a variable adds to an update, and seconds of one without variables.

    A straight line through the times of all counts, each with the same relative error; one for
    each sample: two arrays, float64 `[samples]`.
    """
    counts = np.asarray(counts)
    times = np.stack([timings.seconds[f"{kind}, {count}"] for count in counts])
    times *= (counts / counts[-1] / timings.steps)[:, None]
    return np.transpose([np.polyfit(counts, own, 1, w=1 / own) for own in times.T])


def _figure(case, name, timings, samples, slopes, goal=None):
    own, other = (
        {
            "slope_microseconds": float(1e6 * np.median(slope)),
            "start_microseconds": float(1e6 * np.median(start)),
        }
        for slope, start in slopes
    )
    summary = harness.summarize(samples, timings.build)
    return report.Figure("growth", case, name, summary, goal, {"own": own, "other": other})

"""Whether comparisons claim differences that are not there, and find those that are."""

import keras
import numpy as np
import tensorflow as tf

from disttrain.experiments.comparisons.comparing import compare
from tests.benchmarks import harness, report

#: Seeds of a comparison, as many as are the default.
_SEEDS = 5

_EPOCHS = 2


def false_claims(settings):
    """Share of comparisons in which any difference is claimed between copies of one optimizer.

    The copies of the first figure are equal, and so are their runs. Those of the second add noise
    of their own to the gradients, so that runs of one seed differ by chance, as two optimizers do
    that are equally good.
    """
    equal = {name: lambda: keras.optimizers.SGD(0.05) for name in ("a", "b")}
    yield _share(settings, "false", "2 equal copies", "claimed", equal, 100, _claims, 0.0)
    noisy = {name: _noisy(number) for number, name in enumerate(("a", "b", "c"))}
    yield _share(settings, "false", "3 noisy copies", "claimed", noisy, 100, _claims, 0.05)


def missed_winners(settings):
    """Share of comparisons that do not find the better of two optimizers."""
    rates = {"good": lambda: keras.optimizers.SGD(0.05), "slow": lambda: keras.optimizers.SGD(0.01)}
    yield _share(
        settings,
        "missed",
        "rates 0.05 and 0.01",
        "missed",
        rates,
        20,
        lambda f: f.best != "good",
        0.05,
    )


def _share(settings, which, case, name, optimizers, repeats, counts, goal):
    """The figure of how often something happened in repeats whose seeds are their own."""
    from scipy import stats

    repeats, seeds = (1, 2) if settings.quick else (repeats, _SEEDS)
    happened = [
        bool(counts(_comparison(optimizers, range(seeds * repeat, seeds * (repeat + 1)))))
        for repeat in range(repeats)
    ]
    count = sum(happened)
    ends = stats.binomtest(count, repeats).proportion_ci(0.95)
    share = count / repeats
    summary = harness.Summary(share, float(ends.low), float(ends.high), share, share, repeats)
    case = f"{case}, {repeats} repeats"
    details = {
        "count": count,
        "repeats": repeats,
        "seeds": seeds,
        "runs": repeats * seeds * len(optimizers),
    }
    return report.Figure(f"comparison-{which}", case, name, summary, goal, details)


def _claims(found):
    return any(test["significant"] for test in found.tests)


def _comparison(optimizers, seeds):
    return compare(
        _build,
        _data,
        optimizers,
        seeds,
        loss="mean_squared_error",
        epochs=_EPOCHS,
        batch_size=16,
        replication="single",
        telemetry=None,
        verbose=0,
    )


def _build():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])


def _data(seed):
    """A sample of its own for each seed, so that seeds are as different as they can be."""
    rng = np.random.default_rng([7, seed])
    x = rng.standard_normal((96, 4)).astype(np.float32)
    y = (x @ np.float32([[1], [-2], [3], [0.5]]) + 0.5 * rng.standard_normal((96, 1))).astype("f4")
    return (x[:64], y[:64]), (x[64:], y[64:])


def _noisy(copy):
    def make():
        # The global generator was seeded with the run's seed.
        stream = np.random.default_rng([copy, np.random.randint(2**31)]).integers(2**31)
        return NoisySGD(0.05, stream=int(stream))

    return make


class NoisySGD(keras.optimizers.SGD):
    """Gradient descent with noise in each gradient.

    Args:
        learning_rate: The rate.
        stream: Seed of the noise.
        noise: Its standard deviation.
        **options: As for `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate, stream=0, noise=3.0, **options):
        super().__init__(learning_rate, **options)
        self.stream, self.noise = stream, noise

    def update_step(self, gradient, variable, learning_rate):
        place = tf.stack([self.stream, tf.cast(self.iterations.value, tf.int32)])
        drawn = tf.random.stateless_normal(tf.shape(gradient), place, stddev=self.noise)
        super().update_step(gradient + drawn, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "stream": self.stream, "noise": self.noise}

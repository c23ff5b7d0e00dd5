"""A small problem whose winner is known, and what tests ask of experiments on it."""

import keras
import numpy as np

RNG = np.random.default_rng(0)
X = RNG.standard_normal((96, 3)).astype(np.float32)
Y = (X @ np.float32([[1], [2], [3]]) + 0.1 * RNG.standard_normal((96, 1))).astype(np.float32)
TRAIN, VALIDATION = (X[:64], Y[:64]), (X[64:], Y[64:])

SETTINGS = {
    "loss": "mean_squared_error",
    "epochs": 2,
    "batch_size": 16,
    "validation_data": VALIDATION,
    "replication": "single",
    "verbose": 0,
}


def build(units=None):
    hidden = [] if units is None else [keras.layers.Dense(units)]
    return keras.Sequential([keras.Input((3,)), *hidden, keras.layers.Dense(1)])


def sgd(rate):
    """A function that returns a new optimizer."""
    return lambda: keras.optimizers.SGD(rate)


class Interrupted(Exception):
    """What stops an experiment in a test."""


class Interrupt(keras.callbacks.Callback):
    """Raises after so many batches of all runs that share the count."""

    left = 10**9

    def on_train_batch_end(self, batch, logs=None):
        Interrupt.left -= 1
        if Interrupt.left == 0:
            raise Interrupted

"""Small models and data that the tests of the trainer share."""

import keras
import numpy as np
import tensorflow as tf

import disttrain

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 4)).astype(np.float32)
Y = RNG.normal(size=(10, 3)).astype(np.float32)
LABELS = RNG.integers(0, 3, 10)
HITS = RNG.integers(0, 2, (10, 1)).astype(np.float32)
WEIGHTS = RNG.uniform(0.2, 3, 10).astype(np.float32)
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dense():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def one_weight():
    return keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )


def sgd(rate=0.1, **options):
    return keras.optimizers.SGD(rate, **options)


def batches(*arrays, size=4):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def trainer_of(build=dense, **options):
    defaults = {"optimizer": sgd(), "loss": CROSSENTROPY, "replication": "single"}
    return disttrain.Trainer(build, **{**defaults, **options})


def compiled(build=dense, **options):
    """The same model by Keras on one device."""
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(**{"optimizer": sgd(), "loss": CROSSENTROPY, "jit_compile": False, **options})
    return model


def assert_same_weights(ours, theirs):
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


def assert_same_numbers(ours, theirs):
    assert set(ours) == set(theirs)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], err_msg=name, **CLOSE)

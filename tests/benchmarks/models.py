"""The models that benchmarks train, each with its synthetic data, optimizer and loss.

Shapes are those of real use at a small size: many equal dense layers, a transformer, and the
convolutional network of the demo. Data lie in memory, so that the input costs little.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from disttrain.examples import images, text

#: Different batches, so that a model does not learn a single one by heart within seconds.
_BATCHES = 16


@dataclasses.dataclass(frozen=True)
class Case:
    """A model with what trains it.

    Attributes:
        name: Its name in tables.
        build_model: A function that returns a `keras.Model` with logits as its outputs.
        inputs: A function `(rng, batches)` that returns arrays of shape `[batches, batch, ...]`.
        labels: A function `(rng, batches)` that returns int32 arrays of the labels' shape.
    """

    name: str
    build_model: Callable
    inputs: Callable
    labels: Callable

    def dataset(self):
        """An endless `tf.data.Dataset` of `(x, y)`, the same each time."""
        rng = np.random.default_rng(0)
        arrays = self.inputs(rng, _BATCHES), self.labels(rng, _BATCHES)
        return tf.data.Dataset.from_tensor_slices(arrays).repeat()

    def optimizer(self):
        """A new `keras.optimizers.Adam`."""
        return keras.optimizers.Adam(1e-3)

    def loss(self):
        """A new `keras.losses.SparseCategoricalCrossentropy`."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dense(width, layers, classes=10, use_bias=True):
    """Dense layers of one width, each with ReLU, and a layer of logits.

    Args:
        width: Units of each layer, and of the input.
        layers: Their number.
        classes: Number of logits.
        use_bias: Whether layers have a bias.
    """

    def build():
        hidden = [
            keras.layers.Dense(width, activation="relu", use_bias=use_bias, name=f"hidden_{i}")
            for i in range(layers)
        ]
        logits = keras.layers.Dense(classes, name="logits")
        return keras.Sequential([keras.layers.Input((width,)), *hidden, logits], name="mlp")

    return build


def _floats(*shape):
    return lambda rng, batches: rng.normal(size=(batches, *shape)).astype(np.float32)


def _below(limit, *shape):
    return lambda rng, batches: rng.integers(0, limit, (batches, *shape), dtype=np.int32)


#: 20 x Dense 256, batches of 64.
MLP = Case("mlp", dense(256, 20), _floats(64, 256), _below(10, 64))

#: 4 blocks of width 128, batches of 16 windows of 64 tokens.
TRANSFORMER = Case("transformer", text.build_model(64), _below(256, 16, 64), _below(256, 16, 64))

#: The network of the demo and the size of its images and batches.
CONVNET = Case("convnet", images.build_model((8, 8, 1)), _floats(64, 8, 8, 1), _below(10, 64))

#: For `--quick`, which shows that a benchmark runs, and nothing else.
TINY = Case("tiny", dense(8, 2), _floats(4, 8), _below(10, 4))

ALL = (MLP, TRANSFORMER, CONVNET)


def chosen(settings):
    """The cases that a `harness.Settings` asks for."""
    if settings.quick:
        return (TINY,)
    return tuple(case for case in ALL if not settings.cases or case.name in settings.cases)

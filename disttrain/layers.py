"""Layers whose replicas work together, and what makes Keras's do so."""

import functools

import keras
import tensorflow as tf

from disttrain import replication as replication_module
from disttrain.replication import active


@keras.saving.register_keras_serializable("disttrain")
class SyncBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation with the mean and variance of the global batch.

    Works under `tf.distribute` and Horovod alike, and gives what one device gives with the whole
    batch, for uneven parts and masks too; Keras's `synchronized=True` knows `tf.distribute` only,
    weighs each replica the same, and synchronizes nothing where there is a mask. `Trainer` and
    `callbacks.BroadcastVariables` let Keras's layer work as this one. Costs two small reductions a
    call, forward, and two backward.

    Args:
        **options: As for `keras.layers.BatchNormalization`, without `synchronized`.
    """

    def __init__(self, **options):
        options.pop("synchronized", None)
        super().__init__(**options)

    def build(self, input_shape):
        super().build(input_shape)
        _keep_statistics_apart(self)

    def _moments(self, inputs, mask):
        return _global_moments(self, inputs, mask)

    def get_config(self):
        config = super().get_config()
        config.pop("synchronized", None)
        return config


def synchronize(model):
    """Makes Keras's `BatchNormalization(synchronized=True)` do what it says in every replication.

    Args:
        model: A `keras.Model` whose layers are built.

    Returns:
        Whether there are such layers; functions of the model that were traced before do not know.
    """
    found = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.synchronized
        and type(layer)._moments is keras.layers.BatchNormalization._moments
    ]
    for layer in found:
        layer._moments = functools.partial(_global_moments, layer)
        _keep_statistics_apart(layer)
    return bool(found)


def refresh(model):
    """Makes what layers derive from their variables anew, once those have other values.

    `Normalization` keeps the mean and variance that it has adapted to as tensors, too.

    Args:
        model: A `keras.Model`.
    """
    for layer in model._flatten_layers():
        adapted = isinstance(layer, keras.layers.Normalization) and layer.input_mean is None
        if adapted and layer.built:
            layer.finalize_state()


def _keep_statistics_apart(layer):
    """All replicas make the same update, so there is nothing to bring together later."""
    names = ("moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev")
    for name in names:
        if hasattr(layer, name):
            getattr(layer, name).equal_on_replicas = True


def _global_moments(layer, inputs, mask):
    """The mean and the variance of the global batch along the layer's axis; in replica context."""
    known = active.state()
    replication, present = known or (replication_module.current(), None)
    axis = layer.axis % inputs.shape.rank
    axes = [i for i in range(inputs.shape.rank) if i != axis]
    weights = tf.ones_like(inputs[..., :1] if axis == inputs.shape.rank - 1 else inputs)
    if mask is not None:
        weights *= tf.cast(mask, inputs.dtype)[..., None]
    if present is not None:
        weights *= tf.cast(present, inputs.dtype)
    weights = tf.broadcast_to(weights, tf.shape(inputs))
    # Not the layer's path: Keras numbers layers by what else a process has made.
    name = f"moments.{active.collective_number()}"

    count, total = replication.reduce_sum_differentiably(
        [tf.reduce_sum(weights, axes), tf.reduce_sum(weights * inputs, axes)], f"{name}.mean"
    )
    mean = tf.math.divide_no_nan(total, count)
    shape = [-1 if i == axis else 1 for i in range(inputs.shape.rank)]
    deviation = inputs - tf.reshape(mean, shape)
    (squares,) = replication.reduce_sum_differentiably(
        [tf.reduce_sum(weights * tf.square(deviation), axes)], f"{name}.variance"
    )
    return mean, tf.math.divide_no_nan(squares, count)

"""Layers whose replicas work together."""

import itertools

import keras
import tensorflow as tf

from disttrain import replication as replication_module
from disttrain.replication import active


@keras.saving.register_keras_serializable("disttrain")
class SyncBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation with the mean and variance of the global batch.

    Works under `tf.distribute` and Horovod alike, and gives what one device gives with the whole
    batch, for uneven parts too; Keras's `synchronized=True` knows `tf.distribute` only, and weighs
    each replica the same. Costs two small reductions a call, forward, and two backward.

    Args:
        **options: As for `keras.layers.BatchNormalization`, without `synchronized`.
    """

    def __init__(self, **options):
        options.pop("synchronized", None)
        super().__init__(**options)
        self._calls = itertools.count()

    def build(self, input_shape):
        super().build(input_shape)
        # All replicas make the same update, so there is nothing to bring together later.
        for variable in (self.moving_mean, self.moving_variance):
            variable.equal_on_replicas = True

    def _moments(self, inputs, mask):
        known = active.state()
        replication, present = known or (replication_module.current(), None)
        axis = self.axis % inputs.shape.rank
        axes = [i for i in range(inputs.shape.rank) if i != axis]
        weights = tf.ones_like(inputs[..., :1] if axis == inputs.shape.rank - 1 else inputs)
        if mask is not None:
            weights *= tf.cast(mask, inputs.dtype)[..., None]
        if present is not None:
            weights *= tf.cast(present, inputs.dtype)
        weights = tf.broadcast_to(weights, tf.shape(inputs))
        # Retraced functions may use a name again, calls of one function may not.
        name = f"{self.path}.{next(self._calls)}"

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

    def get_config(self):
        config = super().get_config()
        config.pop("synchronized", None)
        return config

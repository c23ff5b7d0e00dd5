"""Norms of gradients, and whether they are finite, in one pass over each tensor."""

import tensorflow as tf

from disttrain import kernels
from disttrain.gradients.sparse import values_of

_COMPILED_DTYPES = (tf.float32, tf.float16, tf.bfloat16)


def norms_and_finite(gradients):
    """The L2 norm of each gradient, and whether all their elements are finite.

    The sum of squares answers both questions. Only where a square overflows are the tensors read
    again, with the norm's largest element taken out.

    Args:
        gradients: A list of tensors, or `tf.IndexedSlices` without repeated rows, of any shapes
            and floating dtypes.

    Returns:
        `(norms, finite)`: float32 of shape `[len(gradients)]`, and a boolean scalar.
    """
    gradients = [values_of(g) for g in gradients]
    if not gradients:
        return tf.zeros([0]), tf.constant(True)
    if all(g.dtype in _COMPILED_DTYPES for g in gradients):
        operations = kernels.available()
        if operations is not None:
            return operations.disttrain_norms(gradients=gradients)
    squares = tf.stack([tf.reduce_sum(tf.square(tf.cast(g, tf.float32))) for g in gradients])

    def exactly():
        largest = tf.stack([tf.reduce_max(tf.abs(tf.cast(g, tf.float32))) for g in gradients])
        scaled = [
            tf.sqrt(tf.reduce_sum(tf.square(tf.math.divide_no_nan(tf.cast(g, tf.float32), top))))
            for g, top in zip(gradients, tf.unstack(largest), strict=True)
        ]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
        return largest * tf.stack(scaled), finite

    return tf.cond(
        tf.reduce_all(tf.math.is_finite(squares)),
        lambda: (tf.sqrt(squares), tf.constant(True)),
        exactly,
    )

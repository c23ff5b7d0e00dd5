"""Gradients of embeddings: `tf.IndexedSlices`, where a row may stand several times.

A norm, a clip or a count of the values is only right once repeated rows are added up, so gradients
pass through `without_repeats` before anything looks at them.
"""

import tensorflow as tf


def is_sparse(gradient):
    """Whether a gradient is `tf.IndexedSlices`."""
    return isinstance(gradient, tf.IndexedSlices)


def values_of(gradient):
    """The elements of a gradient: itself, or the rows that it holds."""
    return gradient.values if is_sparse(gradient) else gradient


def map_values(function, gradient):
    """Applies an elementwise function that keeps 0; a sparse gradient stays sparse."""
    if not is_sparse(gradient):
        return function(gradient)
    return tf.IndexedSlices(
        function(gradient.values), gradient.indices, dense_shape=gradient.dense_shape
    )


def scaled(gradient, factor):
    """A gradient times a scalar, in the gradient's dtype."""
    return map_values(lambda values: values * tf.cast(factor, values.dtype), gradient)


def to_dense(gradient):
    """The gradient as a dense tensor; repeated rows are added."""
    return tf.convert_to_tensor(gradient)


def without_repeats(gradient):
    """`tf.IndexedSlices` of the same sum in which each row stands once, in ascending order."""
    rows, places = tf.unique(gradient.indices)
    order = tf.argsort(rows)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows))
    return tf.IndexedSlices(
        tf.gather(values, order), tf.gather(rows, order), dense_shape=gradient.dense_shape
    )

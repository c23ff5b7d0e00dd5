"""The reduction of a loss's values, split into a numerator and what it is divided by.

Shapes of values, sample weights and masks are brought together as `keras.losses.Loss` does it.
Weights with fewer axes than the values belong to the first axes; Keras would broadcast them against
the last ones.
"""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Weighted:
    """What a loss returned for some examples, weighted.

    All are float32, or float64 where the loss returned that.

    Attributes:
        values: The values times weights and mask.
        weights: A tensor of the same rank, weights times mask; or `None`.
        mask: A tensor, 0 for values that do not count; or `None`.
    """

    values: tf.Tensor
    weights: tf.Tensor | None
    mask: tf.Tensor | None


def match_ranks(first, second):
    """Squeezes or expands the last axis of one of two tensors whose ranks differ by one.

    An axis of size 1 is dropped from the larger one, unless the other has rank 1: that one gets an
    axis instead.

    Args:
        first: A tensor.
        second: A tensor.

    Returns:
        `(first, second)`; unchanged where the ranks do not differ by one, or the last axis of the
        larger one is not of size 1.
    """
    difference = first.shape.rank - second.shape.rank
    if difference == -1:
        second, first = match_ranks(second, first)
    elif difference == 1 and first.shape[-1] == 1:
        if second.shape.rank == 1:
            second = tf.expand_dims(second, -1)
        else:
            first = tf.squeeze(first, -1)
    return first, second


def join_masks(first, second):
    """The values that count under both masks, either of which may be `None`."""
    if first is None or second is None:
        return second if first is None else first
    first, second = match_ranks(tf.cast(first, tf.bool), tf.cast(second, tf.bool))
    return first & second


def weigh(values, sample_weight, mask, name):
    """Multiplies the values of a loss by weights and mask.

    Args:
        values: Tensor, what the loss returned.
        sample_weight: Tensor or `None`.
        mask: Tensor or `None`.
        name: The loss's name, for errors.

    Returns:
        A `Weighted`.

    Raises:
        ValueError: Weights or mask have more axes than the values.
    """
    values = widened(values)
    weights = None if sample_weight is None else tf.cast(sample_weight, values.dtype)
    if mask is not None:
        mask = tf.cast(mask, values.dtype)
        if weights is None:
            weights = mask
        else:
            first, second = _same_rank(*match_ranks(mask, weights))
            weights = first * second
    if weights is not None:
        shape = weights.shape
        values, weights = match_ranks(values, weights)
        if values.shape.rank and weights.shape.rank > values.shape.rank:
            kind = "its mask" if sample_weight is None else "sample_weight"
            raise ValueError(
                f"the loss {name!r} returns values of shape {values.shape}, and {kind} has the "
                f"shape {shape}; give weights of at most as many axes as the values have"
            )
        values, weights = _same_rank(values, weights)
        values *= weights
    return Weighted(values, weights, mask)


def divisor_of(weighted, reduction):
    """What the sum of the weighted values is divided by, where these are all examples.

    Returns:
        A scalar of the values' dtype.
    """
    dtype = weighted.values.dtype
    if reduction == "sum":
        return tf.constant(1.0, dtype)
    if reduction == "mean_with_sample_weight":
        if weighted.weights is not None:
            return tf.reduce_sum(weighted.weights)
        return size_of(weighted.values, dtype)
    if weighted.mask is None:
        return size_of(weighted.values, dtype)
    elements = size_of(weighted.values, dtype) / tf.maximum(size_of(weighted.mask, dtype), 1.0)
    return tf.reduce_sum(weighted.mask) * elements


def depends_on_data(weighted, reduction):
    """Whether equally many examples may have different divisors."""
    if reduction == "mean_with_sample_weight":
        return weighted.weights is not None
    return reduction != "sum" and weighted.mask is not None


def size_of(tensor, dtype):
    """The number of a tensor's elements, a scalar of the dtype."""
    return tf.cast(tf.size(tensor), dtype)


def widened(tensor):
    """A tensor as float32, or as it is where it is float64."""
    tensor = tf.convert_to_tensor(tensor)
    return tensor if tensor.dtype == tf.float64 else tf.cast(tensor, tf.float32)


def common(tensors):
    """Tensors in one dtype: float64 where one has it, else float32."""
    widest = tf.float64 if any(one.dtype == tf.float64 for one in tensors) else tf.float32
    return [tf.cast(one, widest) for one in tensors]


def _same_rank(first, second):
    for _ in range(second.shape.rank - first.shape.rank):
        first = tf.expand_dims(first, -1)
    for _ in range(first.shape.rank - second.shape.rank):
        second = tf.expand_dims(second, -1)
    return first, second

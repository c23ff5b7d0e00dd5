"""Gradient clipping: small objects that turn reduced, unscaled gradients into clipped ones.

`DistributedOptimizer` calls them after the reduction, so that every replica clips the same gradient
by the same factor.
"""

import abc
import math

import keras
import tensorflow as tf


def _register(cls):
    return keras.saving.register_keras_serializable("disttrain")(cls)


class Clip(abc.ABC):
    """A rule that limits gradients.

    Args:
        limit: The bound; what it bounds is the subclass's.

    Raises:
        ValueError: `limit` is not a finite number above 0.
    """

    def __init__(self, limit):
        number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
        if not number or not math.isfinite(limit) or limit <= 0:
            raise ValueError(
                f"{type(self).__name__} needs a finite limit above 0, not {limit!r}; leave the "
                "clip out to turn clipping off"
            )
        self.limit = float(limit)

    @abc.abstractmethod
    def __call__(self, gradients, norms):
        """Clips gradients.

        Args:
            gradients: A list of finite dense tensors.
            norms: Their L2 norms, float32 of shape `[len(gradients)]`.

        Returns:
            `(clipped, factor)`: the clipped list, and a float32 scalar: the norm of all clipped
            gradients together divided by the norm before, 1 where nothing was clipped.
        """

    def get_config(self):
        return {"limit": self.limit}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash((type(self), self.limit))

    def __repr__(self):
        return f"{type(self).__name__}({self.limit:g})"


def global_norm(norms):
    """The L2 norm of all tensors together from the norm of each, without overflow.

    Args:
        norms: float32 of shape `[n]`.

    Returns:
        A float32 scalar.
    """
    largest = tf.reduce_max(norms)
    scaled = tf.math.divide_no_nan(norms, largest)
    return largest * tf.sqrt(tf.reduce_sum(tf.square(scaled)))


@_register
class ClipByGlobalNorm(Clip):
    """Scales all gradients by one factor so that their common L2 norm is at most `limit`.

    Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks",
    algorithm 1.
    """

    def __call__(self, gradients, norms):
        norm = global_norm(norms)
        factor = tf.where(norm > self.limit, self.limit / norm, 1.0)
        return [g * tf.cast(factor, g.dtype) for g in gradients], factor


@_register
class ClipByNorm(Clip):
    """Scales each variable's gradient so that its L2 norm is at most `limit`."""

    def __call__(self, gradients, norms):
        factors = tf.where(norms > self.limit, self.limit / norms, tf.ones_like(norms))
        clipped = [
            g * tf.cast(factor, g.dtype)
            for g, factor in zip(gradients, tf.unstack(factors), strict=True)
        ]
        return clipped, tf.where(
            tf.reduce_all(factors == 1.0),
            1.0,
            tf.math.divide_no_nan(global_norm(norms * factors), global_norm(norms)),
        )


@_register
class ClipByValue(Clip):
    """Limits each element of a gradient to `[-limit, limit]`."""

    def __call__(self, gradients, norms):
        clipped = [tf.clip_by_value(g, -self.limit, self.limit) for g in gradients]
        after = tf.stack([tf.cast(tf.norm(g), tf.float32) for g in clipped])
        before = global_norm(norms)
        return clipped, tf.where(before > 0, tf.math.divide_no_nan(global_norm(after), before), 1.0)


def take_over(optimizer):
    """Takes the clip that a Keras optimizer was built with, and leaves it without one.

    Returns:
        A `Clip`, or `None` if it had none.
    """
    for name, clip in (
        ("global_clipnorm", ClipByGlobalNorm),
        ("clipnorm", ClipByNorm),
        ("clipvalue", ClipByValue),
    ):
        limit = getattr(optimizer, name, None)
        if limit is not None:
            setattr(optimizer, name, None)
            return clip(limit)
    return None

"""Gradient clipping: small objects that turn gradients into clipped ones.

`DistributedOptimizer` calls them after the reduction, so that every replica clips the same gradient
by the same factor, or, with `before_reduce=True`, each replica's own gradient before it.
"""

import abc
import math

import keras
import tensorflow as tf

from disttrain.gradients.norms import norms_and_finite
from disttrain.gradients.sparse import is_sparse, map_values, scaled, to_dense


def _register(cls):
    return keras.saving.register_keras_serializable("disttrain")(cls)


def check_positive(owner, name, value):
    """Raises a `ValueError` unless `value` is a finite number above 0; returns it as a float."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise ValueError(
            f"{owner} needs a finite {name} above 0, not {value!r}; leave the clip out to turn "
            "clipping off"
        )
    return float(value)


class Clip(abc.ABC):
    """A rule that limits gradients.

    Args:
        before_reduce: Whether each replica's gradient, as the mean over its own examples, is
            clipped before they are added, so that no replica can dominate the others.

    """

    def __init__(self, before_reduce=False):
        self.before_reduce = bool(before_reduce)

    def bind(self, optimizer):
        """Sees the inner optimizer before `build`; a clip for several of them asks it."""

    def build(self, add_variable):
        """Makes the state, if there is any, through `add_variable(name, dtype, value, shape)`."""

    @abc.abstractmethod
    def __call__(self, gradients, norms, variables):
        """Clips gradients; in replica context.

        Args:
            gradients: A list of tensors, or `tf.IndexedSlices` without repeated rows.
            norms: Their L2 norms, float32 of shape `[len(gradients)]`.
            variables: The variables that they belong to.

        Returns:
            `(clipped, factor)`: the clipped list, and a float32 scalar: the norm of all clipped
            gradients together divided by the norm before, 1 where nothing was clipped.
        """

    @abc.abstractmethod
    def get_config(self):
        """The arguments of the constructor."""

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash((type(self), *self.get_config().values()))

    def __repr__(self):
        shown = {k: v for k, v in self.get_config().items() if v is not False}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


class Scaling(Clip):
    """A clip after which each gradient is what it was, times one number."""

    @abc.abstractmethod
    def factors(self, norms):
        """What to multiply the gradients by; in replica context.

        Args:
            norms: As for `Clip.__call__`.

        Returns:
            `(factors, factor)`: float32 of shape `[len(gradients)]`, and what `Clip.__call__`
            returns.
        """

    def __call__(self, gradients, norms, variables):
        factors, factor = self.factors(norms)
        each = zip(gradients, tf.unstack(factors), strict=True)
        return [scaled(gradient, by) for gradient, by in each], factor


class _Limit(Clip):
    """A clip with one limit.

    Args:
        limit: The bound.
        before_reduce: As for `Clip`.

    Raises:
        ValueError: `limit` is not a finite number above 0.
    """

    def __init__(self, limit, before_reduce=False):
        super().__init__(before_reduce)
        self.limit = check_positive(type(self).__name__, "limit", limit)

    def get_config(self):
        return {"limit": self.limit, "before_reduce": self.before_reduce}


def global_norm(norms):
    """The L2 norm of all tensors together from the norm of each, without overflow.

    Args:
        norms: float32 of shape `[n]`.

    Returns:
        A float32 scalar.
    """
    largest = tf.reduce_max(norms)
    parts = tf.math.divide_no_nan(norms, largest)
    return largest * tf.sqrt(tf.reduce_sum(tf.square(parts)))


def _ratio(after, before):
    """The clip factor from the norms of each gradient after and before."""
    before = global_norm(before)
    return tf.where(before > 0, tf.math.divide_no_nan(global_norm(after), before), 1.0)


def _factor_to(norms, limits):
    """What to multiply norms by so that they are at most the limits; exactly 1 below them.

    Norms that are not finite belong to steps that are skipped: their gradients stay what they are.
    """
    above = (norms > limits) & tf.math.is_finite(norms)
    return tf.where(above, limits / norms, tf.ones_like(norms))


@_register
class ClipByGlobalNorm(_Limit, Scaling):
    """Scales all gradients by one factor so that their common L2 norm is at most `limit`.

    Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks",
    algorithm 1.
    """

    def factors(self, norms):
        factor = _factor_to(global_norm(norms), self.limit)
        return tf.fill(tf.shape(norms), factor), factor


@_register
class ClipByNorm(_Limit, Scaling):
    """Scales each variable's gradient so that its L2 norm is at most `limit`."""

    def factors(self, norms):
        factors = _factor_to(norms, self.limit)
        untouched = tf.reduce_all(factors == 1.0)
        return factors, tf.where(untouched, 1.0, _ratio(norms * factors, norms))


@_register
class ClipByValue(_Limit):
    """Limits each element of a gradient to `[-limit, limit]`."""

    def __call__(self, gradients, norms, variables):
        def within(values):
            return tf.clip_by_value(values, -self.limit, self.limit)

        clipped = [map_values(within, g) for g in gradients]
        return clipped, _ratio(norms_and_finite(clipped)[0], norms)


@_register
class AdaptiveClip(Clip):
    """Limits each unit's gradient to `ratio` times the norm of the unit's weights.

    A unit is a column of a matrix, a filter of a convolution, or a whole vector: the norm goes over
    all axes but the last. Brock et al. 2021, "High-performance large-scale image recognition
    without normalization", equation 3.

    Args:
        ratio: The bound on the gradient norm relative to the weight norm; 0.01 is usual.
        epsilon: Least weight norm that counts, so that weights at 0 can move.
        before_reduce: As for `Clip`.

    Raises:
        ValueError: `ratio` or `epsilon` is not a finite number above 0.
    """

    def __init__(self, ratio=0.01, epsilon=1e-3, before_reduce=False):
        super().__init__(before_reduce)
        self.ratio = check_positive("AdaptiveClip", "ratio", ratio)
        self.epsilon = check_positive("AdaptiveClip", "epsilon", epsilon)

    def __call__(self, gradients, norms, variables):
        clipped = [
            self._clip(g, tf.convert_to_tensor(getattr(v, "value", v)))
            for g, v in zip(gradients, variables, strict=True)
        ]
        after = norms_and_finite(clipped)[0]
        # Units that were left alone keep their bits, so equal norms mean that nothing was clipped.
        return clipped, tf.where(tf.reduce_all(after == norms), 1.0, _ratio(after, norms))

    def _clip(self, gradient, weight):
        if is_sparse(gradient):
            gradient = to_dense(gradient)
        axes = list(range(gradient.shape.rank - 1)) if gradient.shape.rank > 1 else None

        def unit_norms(tensor):
            tensor = tf.cast(tensor, tf.float32)
            return tf.sqrt(tf.reduce_sum(tf.square(tensor), axis=axes, keepdims=True))

        limits = self.ratio * tf.maximum(unit_norms(weight), self.epsilon)
        factors = _factor_to(unit_norms(gradient), limits)
        return gradient * tf.cast(
            tf.reshape(factors, _broadcast(gradient.shape, axes)), gradient.dtype
        )

    def get_config(self):
        return {
            "ratio": self.ratio,
            "epsilon": self.epsilon,
            "before_reduce": self.before_reduce,
        }


def _broadcast(shape, axes):
    if axes is None:
        return [1] * shape.rank
    return [1] * (shape.rank - 1) + [shape[-1]]


@_register
class AutoClip(Scaling):
    """Clips by a global norm that follows the history: a percentile of the norms seen so far.

    Seetharaman et al. 2020, "AutoClip: adaptive gradient clipping for source separation networks",
    algorithm 1; the norm of the present step belongs to the history, too.

    Args:
        percentile: From 0 to 100; the paper finds 10 to work well.
        window: How many of the last norms are kept, float32 each.
        before_reduce: As for `Clip`.

    Raises:
        ValueError: `percentile` or `window` is out of range.
    """

    def __init__(self, percentile=10.0, window=1000, before_reduce=False):
        super().__init__(before_reduce)
        number = isinstance(percentile, (int, float)) and not isinstance(percentile, bool)
        if not number or not 0 <= percentile <= 100:
            raise ValueError(f"AutoClip's percentile must lie within 0 to 100, not {percentile!r}")
        if isinstance(window, bool) or int(window) != window or window < 1:
            raise ValueError(f"AutoClip's window must be a whole number from 1, not {window!r}")
        self.percentile = float(percentile)
        self.window = int(window)

    def build(self, add_variable):
        self._norms = add_variable("autoclip_norms", "float32", 0.0, (self.window,))
        self._seen = add_variable("autoclip_seen", "int64", 0)

    def factors(self, norms):
        norm = global_norm(norms)
        seen, history = tf.identity(self._seen.value), tf.identity(self._norms.value)
        place = tf.one_hot(seen % self.window, self.window)
        finite = tf.math.is_finite(norm)
        # A norm that is not finite would poison the history for a whole window.
        with_this = tf.where(place > 0, norm, history)
        history = tf.where(finite, with_this, history)
        seen = tf.where(finite, seen + 1, seen)
        self._norms.assign(history)
        self._seen.assign(seen)
        factor = _factor_to(norm, self._limit(history, tf.minimum(seen, self.window)))
        return tf.fill(tf.shape(norms), factor), factor

    def _limit(self, history, count):
        """The percentile of the first `count` norms, interpolated as NumPy does."""
        unused = tf.range(self.window, dtype=count.dtype) >= count
        ascending = tf.sort(tf.where(unused, float("inf"), history))
        last = tf.cast(tf.maximum(count, 1) - 1, tf.float32)
        place = last * (self.percentile / 100.0)
        below = tf.cast(tf.floor(place), tf.int32)
        above = tf.minimum(below + 1, tf.cast(last, tf.int32))
        low, high = ascending[below], ascending[above]
        between = low + (high - low) * (place - tf.floor(place))
        return tf.where(count > 0, between, float("inf"))

    def get_config(self):
        return {
            "percentile": self.percentile,
            "window": self.window,
            "before_reduce": self.before_reduce,
        }


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

"""The way of a gradient from a replica's backward pass to the inner optimizer.

Clip before, reduce, check, unscale, clip after: what `DistributedOptimizer` promises about the
order stands here. It updates nothing but the state of a clip.
"""

import dataclasses
import functools

import tensorflow as tf

from disttrain.gradients import sparse
from disttrain.gradients.clipping import Scaling
from disttrain.gradients.norms import norms_and_finite


@dataclasses.dataclass(frozen=True)
class Reduced:
    """Gradients that are equal on all replicas, but for local variables.

    They are kept as sums with what is to become of them, for who updates by an operation of our own
    multiplies while it updates.

    Attributes:
        sums: Gradients as they were reduced.
        unscale: What makes the gradients of the sums, a scalar, float64 if one of them is, else
            float32; or `None` for 1.
        factors: What the clip multiplies the gradients by, float32 of shape `[len(sums)]`, or
            `None` for 1.
        norms: L2 norms of the gradients before this clip, float32 of shape `[len(sums)]`.
        finite: Boolean scalar, whether all elements are finite.
        clip_factor: float32 scalar.
        extras: Sums over the replicas.
        otherwise_clipped: The gradients after a clip that does more than to multiply; else `None`.
    """

    sums: list
    unscale: tf.Tensor | None
    factors: tf.Tensor | None
    norms: tf.Tensor
    finite: tf.Tensor
    clip_factor: tf.Tensor
    extras: list
    otherwise_clipped: list | None = None

    @functools.cached_property
    def gradients(self):
        """The gradients before the clip after the reduction."""
        if self.unscale is None:
            return self.sums
        return [sparse.scaled(g, self.unscale) for g in self.sums]

    @functools.cached_property
    def clipped(self):
        """What an inner optimizer gets."""
        if self.otherwise_clipped is not None:
            return self.otherwise_clipped
        if self.factors is None:
            return self.gradients
        each = zip(self.gradients, tf.unstack(self.factors), strict=True)
        return [sparse.scaled(g, factor) for g, factor in each]


class GradientPath:
    """Takes gradients along that way.

    Args:
        reduction: A `disttrain.gradients.reduction.Reduction`.
        clip: A `disttrain.gradients.clipping.Clip`, or `None`.
        is_local: Says of a variable whether each replica keeps it for itself.
    """

    def __init__(self, reduction, clip, is_local):
        self._reduction = reduction
        self._clip = clip
        self._is_local = is_local

    def __call__(self, replication, gradients, variables, extras, scale, divisor, share_to_mean):
        """Reduces gradients; in replica context.

        Args:
            replication: A `Replication`.
            gradients: This replica's shares, none of them `None`.
            variables: Their variables.
            extras: float32 scalars to sum over the replicas.
            scale: The loss scale, a float32 scalar, or `None`.
            divisor: A Python number by which the sum is divided.
            share_to_mean: What turns a share into the mean over this replica's examples.

        Returns:
            A `Reduced`.
        """
        gradients = self._reduction.prepare(gradients)
        shared = self._shared(variables)
        clip = self._clip if shared else None
        before = clip is not None and clip.before_reduce
        extras = list(extras)
        if before:
            to_mean = share_to_mean if scale is None else share_to_mean / scale
            clipped, factor = self._clip_before(
                [gradients[i] for i in shared], [variables[i] for i in shared], to_mean
            )
            gradients = _replaced(gradients, shared, clipped)
            extras.append(factor / replication.replicas)
        if self._reduction.kind != "mean":
            means = [sparse.scaled(gradients[i], share_to_mean) for i in shared]
            gradients = _replaced(gradients, shared, means)
        gradients, divisor = self._divided(replication, gradients, shared, divisor)
        if len(shared) < len(variables):
            # A local variable gets the mean over this replica's examples. What follows divides.
            by = share_to_mean * divisor
            local = [i for i in range(len(variables)) if i not in set(shared)]
            means = [sparse.scaled(gradients[i], by) for i in local]
            gradients = _replaced(gradients, local, means)

        sums, extras, norms, finite = self._reduce(replication, gradients, variables, extras)

        unscale = None
        if scale is not None or divisor != 1:
            # A third in float32 would take half of the digits of a float64 gradient.
            wide = any(gradient.dtype == tf.float64 for gradient in sums)
            scale = tf.cast(1.0 if scale is None else scale, tf.float64 if wide else tf.float32)
            unscale = 1.0 / (scale * divisor)
            norms *= tf.cast(unscale, tf.float32)
        factors, factor = None, tf.constant(1.0)
        if before:
            *extras, factor = extras
        elif isinstance(clip, Scaling):
            factors, factor = self._factors(norms, variables)
        factor = tf.where(finite, factor, 1.0)
        reduced = Reduced(sums, unscale, factors, norms, finite, factor, extras)
        if before or clip is None or factors is not None:
            return reduced
        clipped, factor = self._clip_after(reduced.gradients, norms, variables)
        factor = tf.where(finite, factor, 1.0)
        return dataclasses.replace(reduced, clip_factor=factor, otherwise_clipped=clipped)

    def reduce(self, replication, gradients, variables, extras=(), divisor=1):
        """Reduces gradients without clip or scale; in replica context.

        Returns:
            `(gradients, extras, finite)` over all replicas; of the gradients the direction counts.
        """
        gradients = self._reduction.prepare(gradients)
        shared = self._shared(variables)
        gradients, _ = self._divided(replication, gradients, shared, divisor)
        gradients, extras, _, finite = self._reduce(replication, gradients, variables, list(extras))
        return gradients, extras, finite

    def _divided(self, replication, gradients, places, divisor):
        """Divides before the sum where that is made in 16 bits, in which a sum may overflow.

        Returns:
            `(gradients, divisor)`: what the sum is still to be divided by.
        """
        kind = self._reduction.kind
        shared = [gradients[i] for i in places]
        if (
            kind == "adasum"
            or replication.replicas == 1
            or not self._reduction.uses_16_bits(shared)
        ):
            return gradients, divisor
        # What travels adds up to the mean: shares do already.
        by = divisor if kind == "mean" else replication.replicas
        if by == 1:
            return gradients, divisor
        return _replaced(
            gradients, places, [sparse.scaled(g, 1 / by) for g in shared]
        ), divisor / by

    def _clip_before(self, gradients, variables, to_mean):
        means = [sparse.scaled(g, to_mean) for g in gradients]
        norms, finite = norms_and_finite(means)
        clipped, factor = self._clip(means, norms, variables)
        # What is not finite goes on as it is, for the check after the reduction to find.
        back = tf.math.divide_no_nan(1.0, tf.cast(to_mean, tf.float32))
        chosen = [
            _choose(finite, sparse.scaled(c, back), g)
            for c, g in zip(clipped, gradients, strict=True)
        ]
        return chosen, tf.where(finite, factor, 1.0)

    def _factors(self, norms, variables):
        """`Scaling.factors` for what all replicas share, and 1 for what they do not."""
        shared = self._shared(variables)
        if len(shared) == len(variables):
            return self._clip.factors(norms)
        factors, factor = self._clip.factors(tf.gather(norms, shared))
        places = [[place] for place in shared]
        return tf.tensor_scatter_nd_update(tf.ones_like(norms), places, factors), factor

    def _shared(self, variables):
        return [i for i, v in enumerate(variables) if not self._is_local(v)]

    def _clip_after(self, gradients, norms, variables):
        shared = self._shared(variables)
        clipped, factor = self._clip(
            [gradients[i] for i in shared],
            tf.gather(norms, shared),
            [variables[i] for i in shared],
        )
        return _replaced(gradients, shared, clipped), factor

    def _reduce(self, replication, gradients, variables, extras):
        """Returns `(gradients, extras, norms, finite)` after the reduction."""
        shared = self._shared(variables)
        some_are_local = len(shared) < len(variables)
        if some_are_local:
            # A NaN in what only this replica knows has to skip the step everywhere.
            local = [g for g, v in zip(gradients, variables, strict=True) if self._is_local(v)]
            extras = [*extras, 1.0 - tf.cast(norms_and_finite(local)[1], tf.float32)]
        reduced, sums = self._reduction(replication, [gradients[i] for i in shared], extras)
        result = _replaced(gradients, shared, reduced)
        norms, finite = norms_and_finite(result)
        if some_are_local:
            *sums, troubled = sums
            finite &= troubled == 0
        return result, sums, norms, finite


def _replaced(gradients, places, others):
    """The gradients with others in some places."""
    result = list(gradients)
    for place, other in zip(places, others, strict=True):
        result[place] = other
    return result


def _choose(condition, one, other):
    """`tf.where` for gradients of the same structure."""
    if sparse.is_sparse(one) != sparse.is_sparse(other):
        other = sparse.to_dense(other)
    if not sparse.is_sparse(one):
        return tf.where(condition, one, other)
    values = tf.where(condition, one.values, other.values)
    return tf.IndexedSlices(values, one.indices, dense_shape=one.dense_shape)

"""The way of a gradient from a replica's backward pass to the inner optimizer.

Clip before, reduce, check, unscale, clip after: what `DistributedOptimizer` promises about the
order stands here. It updates nothing but the state of a clip.
"""

import dataclasses

import tensorflow as tf

from disttrain.gradients import sparse
from disttrain.gradients.norms import norms_and_finite


@dataclasses.dataclass(frozen=True)
class Reduced:
    """Gradients that are equal on all replicas, but for local variables.

    Attributes:
        gradients: Reduced and unscaled, before the clip after the reduction.
        clipped: What the inner optimizer gets.
        norms: L2 norms of `gradients`, float32 of shape `[len(gradients)]`.
        finite: Boolean scalar, whether all elements are finite.
        clip_factor: float32 scalar.
        extras: Sums over the replicas.
    """

    gradients: list
    clipped: list
    norms: tf.Tensor
    finite: tf.Tensor
    clip_factor: tf.Tensor
    extras: list


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
        before = self._clip is not None and self._clip.before_reduce
        extras = list(extras)
        if before:
            to_mean = share_to_mean if scale is None else share_to_mean / scale
            gradients, factor = self._clip_before(gradients, variables, to_mean)
            extras.append(factor / replication.replicas)
        if self._reduction.kind != "mean":
            gradients = [sparse.scaled(g, share_to_mean) for g in gradients]

        gradients, extras, norms, finite = self._reduce(replication, gradients, variables, extras)

        if scale is not None or divisor != 1:
            inverse = 1.0 / ((1.0 if scale is None else scale) * divisor)
            gradients = [sparse.scaled(g, inverse) for g in gradients]
            norms *= inverse
        clipped, factor = gradients, tf.constant(1.0)
        if before:
            *extras, factor = extras
        elif self._clip is not None:
            clipped, factor = self._clip_after(gradients, norms, variables)
        factor = tf.where(finite, factor, 1.0)
        return Reduced(gradients, clipped, norms, finite, factor, extras)

    def reduce(self, replication, gradients, variables, extras=()):
        """Reduces gradients without clip or scale; in replica context.

        Returns:
            `(gradients, extras, finite)` over all replicas.
        """
        gradients = self._reduction.prepare(gradients)
        gradients, extras, _, finite = self._reduce(replication, gradients, variables, list(extras))
        return gradients, extras, finite

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

    def _clip_after(self, gradients, norms, variables):
        shared = [i for i, v in enumerate(variables) if not self._is_local(v)]
        clipped, factor = self._clip(
            [gradients[i] for i in shared],
            tf.gather(norms, shared),
            [variables[i] for i in shared],
        )
        result = list(gradients)
        for i, gradient in zip(shared, clipped, strict=True):
            result[i] = gradient
        return result, factor

    def _reduce(self, replication, gradients, variables, extras):
        """Returns `(gradients, extras, norms, finite)` after the reduction."""
        shared = [i for i, v in enumerate(variables) if not self._is_local(v)]
        some_are_local = len(shared) < len(variables)
        if some_are_local:
            # A NaN in what only this replica knows has to skip the step everywhere.
            local = [g for g, v in zip(gradients, variables, strict=True) if self._is_local(v)]
            extras = [*extras, 1.0 - tf.cast(norms_and_finite(local)[1], tf.float32)]
        reduced, sums = self._reduction(replication, [gradients[i] for i in shared], extras)
        result = list(gradients)
        for i, gradient in zip(shared, reduced, strict=True):
            result[i] = gradient
        norms, finite = norms_and_finite(result)
        if some_are_local:
            *sums, troubled = sums
            finite &= troubled == 0
        return result, sums, norms, finite


def _choose(condition, one, other):
    """`tf.where` for gradients of the same structure."""
    if sparse.is_sparse(one) != sparse.is_sparse(other):
        other = sparse.to_dense(other)
    if not sparse.is_sparse(one):
        return tf.where(condition, one, other)
    values = tf.where(condition, one.values, other.values)
    return tf.IndexedSlices(values, one.indices, dense_shape=one.dense_shape)

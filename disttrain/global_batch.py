"""Gathers the examples of all replicas, for losses and metrics that need the global batch.

Every replica computes the same from the same global batch. It then counts that by its part of the
examples, and differentiates its own rows alone, so that the gradients of the replicas add up to
that of one device.
"""

import tensorflow as tf


class GlobalBatch:
    """Gathers tensors of the replicas' examples; in replica context.

    Args:
        replication: A `disttrain.replication.Replication`.
        rows: The `disttrain.losses.Rows` of this replica.
        name: What is gathered for, once in a step.
    """

    def __init__(self, replication, rows, name):
        self._replication = replication
        self._rows = rows
        self._name = name
        self._counts = None
        self._gathered = 0

    def share(self, value):
        """This replica's share of a number that all replicas have computed from the batch."""
        local, total = (tf.cast(n, value.dtype) for n in (self._rows.local, self._rows.total))
        return value * tf.math.divide_no_nan(local, total)

    def gather(self, tensor):
        """The rows of all replicas, in their order; floating tensors with a gradient.

        Args:
            tensor: Its first axis are this replica's examples, or one borrowed example where it has
                none.

        Returns:
            A tensor whose first axis are the examples of the global batch.
        """
        if self._replication.replicas == 1:
            return tensor
        if tensor.shape.rank is None or tensor.shape.rank == 0:
            raise ValueError(
                f"{self._name} needs the examples of all replicas, but one of its tensors has the "
                f"shape {tensor.shape}; its first axis must be that of the examples"
            )
        own = tensor
        if self._rows.may_borrow:
            own = tensor[: tf.cast(self._rows.local, tf.int32)]
        if not tensor.dtype.is_floating:
            return self._gather(own)
        return self._differentiable(own)

    def gather_with_mask(self, tensor):
        """`gather`, with the mask that Keras has attached to an output."""
        gathered, mask = self.gather(tensor), getattr(tensor, "_keras_mask", None)
        if mask is not None and gathered is not tensor:
            gathered._keras_mask = self.gather(mask)
        return gathered

    def _gather(self, tensor):
        self._gathered += 1
        as_bytes = tensor.dtype == tf.bool
        gathered = self._replication.gather(
            tf.cast(tensor, tf.uint8) if as_bytes else tensor, f"{self._name}.{self._gathered}"
        )
        return tf.cast(gathered, tf.bool) if as_bytes else gathered

    def _differentiable(self, tensor):
        if self._counts is None:
            self._counts = self._gather(tf.fill([1], self._rows.local))
        index = self._replication.replica_index()
        start = tf.cast(tf.reduce_sum(self._counts[:index]), tf.int32)
        rows = tf.shape(tensor)[0]
        # Undoes what `share` does to the gradient.
        scale = tf.math.divide_no_nan(self._rows.total, self._rows.local)

        @tf.custom_gradient
        def gathered(own):
            def gradient(upstream):
                mine = upstream[start : start + rows]
                return tf.ensure_shape(mine * tf.cast(scale, mine.dtype), own.shape)

            return self._gather(own), gradient

        return gathered(tensor)

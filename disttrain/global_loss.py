"""Each replica's share of the whole loss: that of the outputs, and what layers add.

A model may override `compute_loss`. It is called with the global batch then, by every replica.
"""

import inspect

import keras
import tensorflow as tf

from disttrain import layer_metrics
from disttrain.data import irregular
from disttrain.global_batch import GlobalBatch
from disttrain.keras_loss_scaling import unscaled
from disttrain.loss_reduction import common, widened
from disttrain.replication import active


def unpack(batch):
    """A part as `(x, y, sample_weight)`, with `None` for what it lacks."""
    return (*batch, None, None)[:3]


def global_loss(task, batch, y_pred, rows, training, compiled=False):
    """This replica's share of the loss of the global batch, regularisation included.

    Losses that layers add are sums or means over the examples of a batch. Each replica counts a
    mean by its part of the examples. A regularizer's is equal on all replicas, and counted once.

    Args:
        task: A built `disttrain.task.Task`.
        batch: This replica's `(x, y)` or `(x, y, sample_weight)`.
        y_pred: The model's outputs for it.
        rows: A `disttrain.losses.Rows`.
        training: Whether this is a training step.
        compiled: Whether XLA compiles it, so that replicas cannot communicate.

    Returns:
        `(share, shares of the terms)`, float32 scalars, or float64 in a model of that dtype.

    Raises:
        ValueError: A loss needs the other replicas while XLA compiles it, or has a wrong shape.
    """
    replication = task.replication
    if compiled and replication.replicas > 1:
        replication = _Unreachable(replication)
    if task.overrides_compute_loss:
        share = _by_the_model(task, batch, y_pred, rows, training, replication)
        return share, [share]
    _, y, sample_weight = unpack(batch)
    with irregular.readable_errors(y, "the loss"):
        total, shares = task.losses(y, y_pred, sample_weight, rows, replication)
    added = [_number(loss, replication) for loss in task.added_losses()]
    if added:
        total, *added = common([total, *added])
        local, everywhere = (tf.cast(n, total.dtype) for n in (rows.local, rows.total))
        means, sums = added, []
        if replication.replicas > 1:
            are_sums = task.losses_that_are_sums(len(added))
            sums = [loss for loss, is_sum in zip(added, are_sums, strict=True) if is_sum]
            means = [loss for loss, is_sum in zip(added, are_sums, strict=True) if not is_sum]
        if means:
            total += tf.add_n(means) * (local / everywhere)
        if sums:
            total += tf.add_n(sums) * tf.cast(rows.local > 0, total.dtype)
    return total, shares


def _number(loss, replication):
    """A loss that a layer has added, a float32 or float64 scalar."""
    loss = widened(loss)
    if loss.shape.rank != 0 and replication.replicas > 1:
        raise ValueError(
            f"a layer has added a loss of shape {loss.shape}; several replicas need one number, "
            "the mean over the examples: self.add_loss(keras.ops.mean(values))"
        )
    return tf.reduce_sum(loss)


def _added_everywhere(task, y_pred, whole):
    """The losses of layers and regularizers, for the global batch; none on a single replica."""
    if task.replication.replicas == 1:
        return []
    added = task.added_losses()
    regularizers = sum(v.regularizer is not None for v in task.model.trainable_variables)
    of_layers = len(added) - regularizers
    are_sums = task.losses_that_are_sums(len(added))
    rows = tf.shape(keras.tree.flatten(y_pred)[0])[:1]
    found = []
    for loss, is_sum in zip(added[:of_layers], are_sums, strict=False):
        loss = _number(loss, task.replication)
        if is_sum:
            loss /= tf.cast(rows[0], loss.dtype)
        examples = whole.gather(tf.fill(rows, loss))
        found.append(tf.reduce_sum(examples) if is_sum else tf.reduce_mean(examples))
    return [*found, *added[of_layers:]]


def _by_the_model(task, batch, y_pred, rows, training, replication):
    """The share of what the model's own `compute_loss` returns for the global batch."""
    model = task.model
    whole = GlobalBatch(replication, rows, f"compute_loss.{task.losses.next_call()}")

    def gather(structure):
        return keras.tree.map_structure(
            lambda leaf: leaf if leaf is None else whole.gather_with_mask(leaf), structure
        )

    x, y, sample_weight = unpack(batch)
    arguments = [gather(x), gather(y), gather(y_pred), gather(sample_weight)]
    added = _added_everywhere(task, y_pred, whole)
    # All replicas compute the same, and one of them counts it in the model's metrics.
    keep = None if replication.replicas == 1 else tf.constant(replication.replica_index() == 0)
    counting = layer_metrics.counting(task.layer_metrics, keep=keep)
    with active.activate(replication), counting, unscaled():
        # Keras calls those that do not take it without it, too.
        model._losses_override.extend(added)
        try:
            if "training" in inspect.signature(model.compute_loss).parameters:
                value = model.compute_loss(*arguments, training=training)
            else:
                value = model.compute_loss(*arguments)
        finally:
            model._losses_override.clear()
    if value is None or tf.convert_to_tensor(value).shape.rank != 0:
        found = "None" if value is None else f"a tensor of shape {value.shape}"
        raise ValueError(
            f"{type(model).__name__}.compute_loss must return one number for the batch, not {found}"
        )
    return whole.share(widened(value))


class _Unreachable:
    """The other replicas while XLA compiles a step, whose programs cannot communicate."""

    def __init__(self, replication):
        self.replicas = replication.replicas
        self.replica_index = replication.replica_index
        self.as_one_replica = replication.as_one_replica

    def reduce_sum(self, tensors, name):
        raise ValueError(
            "jit_compile=True compiles forward and backward for each replica alone, but this loss "
            "needs the other replicas, as masks, mean_with_sample_weight and losses that are one "
            "number for a batch do; use jit_compile='auto', or a loss with a value for each example"
        )

    gather = reduce_sum

"""Steps without gradients: evaluation and prediction."""

import tensorflow as tf

from disttrain import outputs
from disttrain.fingerprints import ReadOrder
from disttrain.global_loss import global_loss, unpack
from disttrain.losses import Rows
from disttrain.tracing import traced
from disttrain.train_step import may_be_empty


class EvaluateStep:
    """Adds the loss and the metrics of batches.

    Args:
        task: A built `disttrain.task.Task`.
        feed: The `Feed` whose elements it will read.
    """

    def __init__(self, task, feed):
        self._task = task
        self._shared = feed.shared
        self._may_be_empty = may_be_empty(feed)
        self._divide = feed.divide
        with tf.init_scope():
            self._sums = tf.Variable(
                tf.zeros([2 + len(task.losses.names)], tf.float64), trainable=False
            )
        self._order = ReadOrder(task.replication, feed.shared)
        self.execute = traced(self._execute)

    def _execute(self, element):
        element = self._divide(element)
        self._order.note(element)
        parts = [(batch, element["rows"][i]) for i, batch in enumerate(element["parts"])]
        self._task.replication.run(self._on_replica, parts, shared=(element["total"],))

    def _on_replica(self, part, total):
        batch, local = part
        if not self._shared:
            total = self._task.replication.reduce_sum([local], "rows")[0]
        _, y, sample_weight = unpack(batch)
        rows = Rows(local, total, self._may_be_empty)
        loss, shares, y_pred = self._losses_and_outputs(batch, rows)
        terms = shares if self._task.losses.names else []
        weighted = [tf.cast(value, tf.float32) * total for value in (loss, *terms)]
        self._sums.assign_add(tf.cast(tf.stack([local, *weighted]), tf.float64))
        self._task.update_metrics(y, y_pred, sample_weight, rows)

    def _losses_and_outputs(self, batch, rows):
        """`(loss share, shares of the terms, outputs)` of this replica."""
        y_pred = self._task.call(batch[0], training=False, rows=rows)
        loss, shares = global_loss(self._task, batch, y_pred, rows, training=False)
        return loss, shares, y_pred

    def reset(self):
        """Begins new sums."""
        self._sums.assign(tf.zeros_like(self._sums))
        self._order.reset()

    def check(self):
        """Compares what the processes have read since `reset`. Called by every process.

        Raises:
            RuntimeError: They have read different batches.
        """
        self._order.check()

    def read(self):
        """The mean losses over the examples of all replicas. Called by every process.

        Returns:
            `"loss"`, and each term where there are several, to a number.
        """
        examples, *sums = self._task.replication.all_gather(self._sums.numpy()).sum(axis=0)
        names = ["loss", *self._task.losses.names]
        return {
            name: float(value / examples) if examples else float("nan")
            for name, value in zip(names, sums, strict=True)
        }


class PredictStep:
    """Computes outputs, and puts those of all replicas into the order of the examples.

    Args:
        task: A `disttrain.task.Task`.
        feed: The `Feed` whose elements it will read, or one of the same task like it.
    """

    def __init__(self, task, feed):
        self._task = task
        self._divide = feed.divide
        self._order = ReadOrder(task.replication, feed.shared)
        self.execute = traced(self._execute, reduce_retracing=True)
        self.reset()

    def reset(self):
        """Forgets the outputs."""
        self._structure = None
        self._batches = []
        self._whole = 0  # The number of batches whose rows were gathered from all processes.
        self._order.reset()

    def check(self):
        """As `EvaluateStep.check`."""
        self._order.check()

    def _execute(self, element):
        element = self._divide(element)
        self._order.note(element)
        parts = [(batch[0], element["rows"][i]) for i, batch in enumerate(element["parts"])]
        return self._task.replication.run(self._on_replica, parts)

    def _on_replica(self, part):
        x, rows = part
        count = tf.cast(rows, tf.int32)
        y_pred = self._task.call(x, training=False)
        return tf.nest.map_structure(lambda leaf: leaf[:count], y_pred)

    def add(self, element):
        """Computes the outputs of one element."""
        found = self.execute(element)
        self._structure = found[0]
        leaves = zip(*(tf.nest.flatten(output) for output in found), strict=True)
        self._batches.append([outputs.to_host(leaf) for leaf in leaves])

    def last_batch(self):
        """The outputs of the batch that was added last, on all processes, which call this."""
        self._gather()
        return tf.nest.pack_sequence_as(self._structure, self._batches[-1])

    def read(self):
        """All outputs in the order of the examples, in the model's structure.

        Returns:
            NumPy arrays; a `tf.RaggedTensor` where the axes of examples differ between batches.
        """
        self._gather()
        leaves = [outputs.concatenated(list(leaf)) for leaf in zip(*self._batches, strict=True)]
        return tf.nest.pack_sequence_as(self._structure, leaves)

    def _gather(self):
        """Replaces this process's rows of batches by those of all processes."""
        new = zip(*self._batches[self._whole :], strict=True)
        leaves = [outputs.gathered(self._task.replication, list(leaf)) for leaf in new]
        self._batches[self._whole :] = [list(batch) for batch in zip(*leaves, strict=True)]
        self._whole = len(self._batches)

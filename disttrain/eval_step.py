"""Steps without gradients: evaluation and prediction."""

import numpy as np
import tensorflow as tf

from disttrain.losses import Rows
from disttrain.tracing import traced
from disttrain.train_step import global_loss, unpack


class EvaluateStep:
    """Adds the loss and the metrics of batches.

    Args:
        task: A built `disttrain.task.Task`.
        feed: The `Feed` whose elements it will read.
    """

    def __init__(self, task, feed):
        self._task = task
        self._shared = feed.shared
        self._divide = feed.divide
        with tf.init_scope():
            self._sums = tf.Variable(
                tf.zeros([2 + len(task.losses.names)], tf.float64), trainable=False
            )
        self.execute = traced(self._execute)

    def _execute(self, element):
        element = self._divide(element)
        parts = [(batch, element["rows"][i]) for i, batch in enumerate(element["parts"])]
        self._task.replication.run(self._on_replica, parts, shared=(element["total"],))

    def _on_replica(self, part, total):
        batch, local = part
        if not self._shared:
            total = self._task.replication.reduce_sum([local], "rows")[0]
        x, y, sample_weight = unpack(batch)
        loss, shares, y_pred = self._losses_and_outputs(batch, Rows(local, total))
        terms = shares if self._task.losses.names else []
        weighted = [value * total for value in (loss, *terms)]
        self._sums.assign_add(tf.cast(tf.stack([local, *weighted]), tf.float64))

        def update():
            self._task.update_metrics(x, y, y_pred, sample_weight)
            return True

        tf.cond(local > 0, update, lambda: False)

    def _losses_and_outputs(self, batch, rows):
        """`(loss share, shares of the terms, outputs)` of this replica."""
        x, y, sample_weight = unpack(batch)
        y_pred = self._task.call(x, training=False)
        loss, shares = global_loss(self._task, y, y_pred, sample_weight, rows, self._shared)
        return loss, shares, y_pred

    def reset(self):
        """Begins new sums."""
        self._sums.assign(tf.zeros_like(self._sums))

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
        self.execute = traced(self._execute, reduce_retracing=True)
        self.reset()

    def reset(self):
        """Forgets the outputs."""
        self._outputs = []
        self._rows = []

    def _execute(self, element):
        element = self._divide(element)
        parts = [(batch[0], element["rows"][i]) for i, batch in enumerate(element["parts"])]
        return self._task.replication.run(self._on_replica, parts)

    def _on_replica(self, part):
        x, rows = part
        count = tf.cast(rows, tf.int32)
        y_pred = self._task.call(x, training=False)
        return tf.nest.map_structure(lambda leaf: leaf[:count], y_pred)

    def add(self, element):
        """Computes the outputs of one element."""
        outputs = self.execute(element)
        leaves = zip(*(tf.nest.flatten(output) for output in outputs), strict=True)
        self._structure = outputs[0]
        self._outputs.append([np.concatenate([part.numpy() for part in leaf]) for leaf in leaves])
        self._rows.append(len(self._outputs[-1][0]))

    def read(self):
        """All outputs in the order of the examples, NumPy arrays in the model's structure."""
        gathered = [self._in_order(list(leaf)) for leaf in zip(*self._outputs, strict=True)]
        return tf.nest.pack_sequence_as(self._structure, gathered)

    def _in_order(self, batches):
        replication = self._task.replication
        if replication.topology.processes == 1:
            return np.concatenate(batches)
        rows = replication.all_gather(np.asarray(self._rows, np.int64))
        own = np.concatenate(batches)
        padded = np.zeros((int(rows.sum(axis=1).max()), *own.shape[1:]), own.dtype)
        padded[: len(own)] = own
        parts = [
            np.split(process[: counts.sum()], np.cumsum(counts)[:-1])
            for process, counts in zip(replication.all_gather(padded), rows, strict=True)
        ]
        return np.concatenate(
            [process[batch] for batch in range(len(batches)) for process in parts]
        )

"""One training step: forward, backward, and each replica's share of the global batch.

`TrainStep` knows no epochs and no files. It reads elements of a `disttrain.data.Feed`, and leaves
what it measured in variables that the loop reads when it wants to.
"""

import tensorflow as tf

from disttrain.losses import Rows


class TrainStep:
    """Runs training steps in one traced function.

    Args:
        task: A built `disttrain.task.Task`.
        feed: The `Feed` whose elements it will read.
        steps_per_execution: Most steps in one call.
        jit_compile: Whether forward and backward are compiled by XLA.
        probe: A `disttrain.telemetry.probe.Probe`, or `None`.
    """

    def __init__(self, task, feed, steps_per_execution=1, jit_compile=False, probe=None):
        self._task = task
        self._replication = task.replication
        self._shared = feed.shared
        self._may_be_empty = any(
            leaf.shape.rank and leaf.shape[0] is None for leaf in tf.nest.flatten(feed.spec)
        )
        self._probe = probe
        self.steps_per_execution = steps_per_execution
        self.variables = task.model.trainable_variables
        self._gradients = self._forward_backward
        if jit_compile:
            self._gradients = tf.function(
                self._forward_backward, jit_compile=True, autograph=False, reduce_retracing=True
            )
        self._jit_compile = jit_compile
        terms = len(task.losses.names)
        with tf.init_scope():
            self._sums = tf.Variable(tf.zeros([2 + terms], tf.float64), trainable=False)
            self._finite_losses = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._disagreed = tf.Variable(False, trainable=False)
        self.execute = tf.function(
            self._execute_one if steps_per_execution == 1 else self._execute_many, autograph=False
        )

    def _execute_one(self, iterator, steps):
        """Makes at most one step; returns how many it made, an int32 scalar."""
        optional = iterator.get_next_as_optional()
        return tf.cond(
            optional.has_value(), lambda: self._step(optional.get_value()), lambda: tf.constant(0)
        )

    def _execute_many(self, iterator, steps):
        """Makes at most `steps` steps, an int32 scalar; returns how many it made."""

        def body(done, more):
            made = self._execute_one(iterator, steps)
            return done + made, made > 0

        done, _ = tf.while_loop(
            lambda done, more: more & (done < steps),
            body,
            (tf.constant(0), tf.constant(True)),
            parallel_iterations=1,
        )
        return done

    def _step(self, element):
        parts = [(batch, element["rows"][i]) for i, batch in enumerate(element["parts"])]
        self._replication.run(
            self._on_replica, parts, shared=(element["total"], element["fingerprint"])
        )
        return tf.constant(1)

    def _on_replica(self, part, total, fingerprint):
        batch, local = part
        if not self._shared:
            total = self._replication.reduce_sum([local], "rows")[0]
        rows = Rows(local, total)
        state = self._task.state_to_average() if self._may_be_empty else []
        before = [tf.identity(variable.value) for variable in state]

        scale = self._task.optimizer.current_loss_scale()
        loss, shares, gradients, y_pred = self._gradients(batch, rows.local, rows.total, scale)

        present = rows.local > 0
        for variable, value in zip(state, before, strict=True):
            variable.assign(tf.where(present, variable.value, value))
        self._update_metrics(batch, y_pred, present)

        terms = shares if self._task.losses.names else []
        (loss, _, fingerprints, *terms), _ = self._task.optimizer.apply_shares(
            gradients,
            self.variables,
            extras=[loss, rows.local, fingerprint, *terms],
            observer=self._probe,
        )
        if self._replication.is_first_local_replica():
            self._count([loss, *terms], total)
            # Processes that read the same batch have the same fingerprint, and so their mean.
            same = fingerprints == fingerprint * self._replication.replicas
            self._disagreed.assign(self._disagreed | ~same)

    def _forward_backward(self, batch, local, total, scale):
        """Returns `(loss share, shares of the terms, gradients, outputs)` of this replica."""
        task = self._task
        rows = Rows(local, total)
        x, y, sample_weight = unpack(batch)
        with tf.GradientTape() as tape:
            y_pred = task.call(x, training=True)
            loss, shares = global_loss(task, y, y_pred, sample_weight, rows, self._shared)
            scaled = loss * scale
        gradients = tape.gradient(scaled, self.variables)
        return loss, shares, gradients, y_pred

    def _update_metrics(self, batch, y_pred, present):
        x, y, sample_weight = unpack(batch)

        def update():
            self._task.update_metrics(x, y, y_pred, sample_weight)
            return True

        if self._may_be_empty:
            tf.cond(present, update, lambda: False)
        else:
            update()

    def _count(self, losses, total):
        weighted = [value * total for value in losses]
        self._sums.assign_add(tf.cast(tf.stack([total, *weighted]), tf.float64))
        self._finite_losses.assign_add(tf.cast(tf.math.is_finite(losses[0]), tf.int64))

    def reset(self):
        """Begins a new epoch's sums."""
        self._sums.assign(tf.zeros_like(self._sums))
        self._finite_losses.assign(0)

    def read(self):
        """What the steps since `reset` have summed up.

        Returns:
            `(examples, losses)`: their number, and the mean loss under `"loss"`, followed by the
            mean of each term where there are several.
        """
        examples, *sums = self._sums.numpy()
        names = ["loss", *self._task.losses.names]
        mean = [float(value / examples) if examples else float("nan") for value in sums]
        return float(examples), dict(zip(names, mean, strict=True))

    def any_finite_loss(self):
        """Whether the loss was finite in at least one step since `reset`."""
        return int(self._finite_losses.numpy()) > 0

    def disagreed(self):
        """Whether this process has ever read another batch than the others."""
        return bool(self._disagreed.numpy())


def unpack(batch):
    """A part as `(x, y, sample_weight)`, with `None` for what it lacks."""
    return (*batch, None, None)[:3]


def global_loss(task, y, y_pred, sample_weight, rows, shared):
    """This replica's share of the loss of the global batch, regularisation included.

    Losses that layers add are taken as means over the examples of a batch, so each replica counts
    them by its part of the examples.

    Returns:
        `(share, shares of the terms)`, float32 scalars.
    """
    # Under a function of an InputContext, even the elements of an example may differ.
    communicate = not shared or task.losses.needs_communication(y_pred)
    reduce_sum = None
    if communicate:
        reduce_sum = lambda tensors: task.replication.reduce_sum(tensors, "divisors")  # noqa: E731
    total, shares = task.losses(y, y_pred, sample_weight, rows, reduce_sum)
    added = [tf.cast(loss, tf.float32) for loss in task.model.losses]
    if added:
        total += tf.add_n(added) * (rows.local / rows.total)
    return total, shares

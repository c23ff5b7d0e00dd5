"""One training step: forward, backward, and each replica's share of the global batch.

`TrainStep` knows no epochs and no files. It reads elements of a `disttrain.data.Feed`, and leaves
what it measured in variables that the loop reads when it wants to.
"""

import numpy as np
import tensorflow as tf

from disttrain import state_averaging
from disttrain.global_loss import global_loss, unpack
from disttrain.losses import Rows
from disttrain.state_averaging import AssignedVariables
from disttrain.tracing import traced


class TrainStep:
    """Runs training steps in one traced function.

    Args:
        task: A built `disttrain.task.Task`.
        feed: The `Feed` whose elements it will read.
        steps_per_execution: Most updates in one call.
        jit_compile: Whether forward and backward are compiled by XLA.
        observer: A `disttrain.telemetry.observer.Observer`, or `None`.
        wishes: What processes tell each other with each step, a
            `disttrain.checkpoints.signals.Wishes`, or `None`.
    """

    def __init__(
        self, task, feed, steps_per_execution=1, jit_compile=False, observer=None, wishes=None
    ):
        self._task = task
        self._replication = task.replication
        self._shared = feed.shared
        self._divide = feed.divide
        self._may_be_empty = may_be_empty(feed)
        self._observer = observer
        self._wishes = wishes
        self.variables = task.trained_variables
        self._gradients = self._forward_backward
        self._jit_compile = jit_compile
        if jit_compile:
            self._gradients = traced(
                self._forward_backward, jit_compile=True, reduce_retracing=True
            )
        # Without variables there are losses, metrics and the state of layers, but no updates.
        self._accumulate_steps = task.optimizer.accumulate_steps if self.variables else 1
        extras = 3 + len(task.losses.names)
        with tf.init_scope():
            self._sums = tf.Variable(tf.zeros([extras - 1], tf.float64), trainable=False)
            self._finite_losses = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._disagreed = tf.Variable(False, trainable=False)
            if self._accumulate_steps > 1:
                with self._replication.scope():
                    self._extras = tf.Variable(tf.zeros([extras]), trainable=False)
        self.batches_per_execution = steps_per_execution * self._accumulate_steps
        alone = self.batches_per_execution == 1
        self.execute = traced(self._execute_one if alone else self._execute_many)
        # Ids of what a forward pass assigns; None until one was traced.
        self._assigned = None
        self._average = self._averaged = None

    def updates(self, batches):
        """How many updates an execution of so many batches makes."""
        return -(-batches // self._accumulate_steps)

    def _execute_one(self, iterator, most):
        """Trains on at most one batch; returns on how many it did, an int32 scalar."""
        return self._with_next(iterator, self._on_replica)

    def _execute_many(self, iterator, most):
        """Trains on at most `most` batches, an int32 scalar; returns on how many it did."""
        if self._accumulate_steps == 1:
            return self._repeat(lambda left: self._execute_one(iterator, left), most)

        def update(left):
            batches = self._repeat(
                lambda left: self._with_next(iterator, self._accumulate_on_replica),
                tf.minimum(left, self._accumulate_steps),
            )

            def apply():
                parts = [tf.constant(0)] * self._replication.topology.local_replicas
                self._replication.run(self._apply_accumulated_on_replica, parts)
                return batches

            return tf.cond(batches > 0, apply, lambda: batches)

        return self._repeat(update, most)

    def _repeat(self, action, most):
        """Calls `action(batches left)`, which returns how many it took, until all are taken."""

        def body(done, more):
            made = action(most - done)
            return done + made, made > 0

        done, _ = tf.while_loop(
            lambda done, more: more & (done < most),
            body,
            (tf.constant(0), tf.constant(True)),
            parallel_iterations=1,
        )
        return done

    def _with_next(self, iterator, on_replica):
        optional = iterator.get_next_as_optional()

        def run():
            element = self._divide(optional.get_value())
            parts = [(batch, element["rows"][i]) for i, batch in enumerate(element["parts"])]
            shared = (element["total"], element["fingerprint"])
            self._replication.run(on_replica, parts, shared=shared)
            return tf.constant(1)

        return tf.cond(optional.has_value(), run, lambda: tf.constant(0))

    def _on_replica(self, part, total, fingerprint):
        twice = self._task.optimizer.two_gradients and self.variables
        again = SecondPass(self._task) if twice else None
        gradients, extras, total = self._local_step(part, total, fingerprint)
        to_mean = total / tf.maximum(extras[1], 1.0)
        recompute = None
        if again is not None:
            batch, local = part
            scale = self._task.optimizer.current_loss_scale()
            recompute = again.begin(lambda: self._gradients(batch, local, total, scale)[2])
        self._apply(gradients, self.variables, extras, total, to_mean, recompute)

    def _accumulate_on_replica(self, part, total, fingerprint):
        gradients, extras, total = self._local_step(part, total, fingerprint)
        optimizer = self._task.optimizer
        present = optimizer.missing.leave_out(gradients, self.variables)
        gradients, self._having_gradients = present
        optimizer.accumulate(gradients, self._having_gradients, weight=total)
        loss, rows, fingerprint, *terms = extras
        weighted = [loss * total, rows, fingerprint, *(term * total for term in terms)]
        self._extras.assign_add(tf.stack(weighted))

    def _apply_accumulated_on_replica(self, part):
        gradients, total = self._task.optimizer.accumulator.take(self._having_gradients)
        loss, rows, fingerprint, *terms = tf.unstack(tf.identity(self._extras.read_value()))
        extras = [loss / total, rows, fingerprint, *(term / total for term in terms)]
        with tf.control_dependencies(extras):
            self._extras.assign(tf.zeros_like(self._extras))
        to_mean = total / tf.maximum(rows, 1.0)
        self._apply(gradients, self._having_gradients, extras, total, to_mean)

    def _local_step(self, part, total, fingerprint):
        """Forward and backward on this replica's part.

        Returns:
            `(gradients, extras, total)`: extras are the loss, the rows, the fingerprint, and the
            share of each term where there are several.
        """
        batch, local = part
        if not self._shared:
            total = self._replication.reduce_sum([local], "rows")[0]
        rows = Rows(local, total, self._may_be_empty)
        assigned = AssignedVariables(self._task.state_to_average(), self._replication)

        scale = self._task.optimizer.current_loss_scale() if self.variables else 1.0
        loss, shares, gradients, y_pred = self._gradients(batch, rows.local, rows.total, scale)

        present = rows.local > 0
        self._note_assigned(assigned)
        # A replica without examples has computed on a borrowed row.
        for variable, before in assigned.find_dependent(batch) if self._may_be_empty else ():
            variable.assign(tf.where(present, variable.value, before))
        _, y, sample_weight = unpack(batch)
        self._task.update_metrics(y, y_pred, sample_weight, rows)
        terms = shares if self._task.losses.names else []
        return gradients, [loss, rows.local, fingerprint, *terms], total

    def _apply(self, gradients, variables, extras, total, to_mean, recompute=None):
        fingerprint = extras[2]
        if self._wishes is not None:
            extras = [*extras, self._wishes.share()]
        if variables:
            sums, finite = self._task.optimizer.apply_shares(
                gradients,
                variables,
                extras=extras,
                observer=self._observer,
                own_loss=extras[0] * to_mean,
                share_to_mean=to_mean,
                recompute=recompute,
                alone=True,
            )
            self._after_apply(finite)
        else:
            sums = tf.unstack(self._replication.reduce_sum([tf.stack(extras)], "extras")[0])
        loss, _, fingerprints, *terms = sums
        if self._wishes is not None:
            *terms, wished = terms
        if self._replication.is_first_local_replica():
            if self._wishes is not None:
                self._wishes.hear(wished)
            self._count([loss, *terms], total)
            # Processes that read the same batch have the same fingerprint, and so their mean.
            same = fingerprints == fingerprint * self._replication.replicas
            self._disagreed.assign(self._disagreed | ~same)

    def _after_apply(self, finite):
        """Called on each replica behind an update, or a skip where `finite` is false."""

    def _forward_backward(self, batch, local, total, scale):
        """Returns `(loss share, shares of the terms, gradients, outputs)` of this replica."""
        task = self._task
        rows = Rows(local, total, self._may_be_empty)
        with tf.GradientTape() as tape:
            y_pred = task.call(batch[0], training=True, rows=rows)
            loss, shares = global_loss(
                task, batch, y_pred, rows, training=True, compiled=self._jit_compile
            )
            scaled = loss * tf.cast(scale, loss.dtype)
        gradients = tape.gradient(scaled, self.variables)
        loss, *shares = (tf.cast(one, tf.float32) for one in (loss, *shares))
        return loss, shares, gradients, y_pred

    def _count(self, losses, total):
        weighted = [value * total for value in losses]
        self._sums.assign_add(tf.cast(tf.stack([total, *weighted]), tf.float64))
        self._finite_losses.assign_add(tf.cast(tf.math.is_finite(losses[0]), tf.int64))

    def _note_assigned(self, assigned):
        found = {id(variable) for variable, _ in assigned.find()}
        self._assigned = found | (self._assigned or set())

    def average_state(self):
        """Brings variables together that replicas moved apart, BatchNormalization's above all.

        Called by every process. Variables that no step has assigned are left alone.
        """
        candidates = self._task.state_to_average()
        if self._replication.replicas == 1 or not candidates:
            return
        own = [self._assigned is None or id(variable) in self._assigned for variable in candidates]
        # What a layer does may depend on the process, but all have to send the same.
        everyone = self._replication.all_gather(np.asarray(own, np.int32)).any(axis=0).tolist()
        if everyone != self._averaged:
            state = [v for v, is_assigned in zip(candidates, everyone, strict=True) if is_assigned]
            self._average = self._traced_average(state) if state else None
            self._averaged = everyone
        if self._average is not None:
            with self._replication.pulse.waiting("the average of the layers' state"):
                topology = self._replication.topology
                own = np.arange(topology.local_replicas) + topology.first_replica
                self._average(tf.constant(own == 0))

    def _traced_average(self, state):
        def average_state(are_first):
            def on_replica(is_first):
                state_averaging.average(self._replication, state, is_first)

            self._replication.run(on_replica, tf.unstack(are_first))

        return traced(average_state)

    @property
    def sums(self):
        """The variables with what the steps since `reset` have summed up; equal everywhere."""
        return [self._sums, self._finite_losses]

    def go_on_from(self, other):
        """Takes over the sums of the step that has trained the epoch until now."""
        self._sums.assign(other._sums)
        self._finite_losses.assign(other._finite_losses)
        self._disagreed.assign(other._disagreed)
        if other._assigned is not None:
            self._assigned = other._assigned | (self._assigned or set())

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


def may_be_empty(feed):
    """Whether a replica may have no examples of its own in a batch of a feed."""
    return any(leaf.shape.rank and leaf.shape[0] is None for leaf in tf.nest.flatten(feed.spec))


class SecondPass:
    """Lets a second pass over a batch see the random numbers of the first, and leave no trace.

    Args:
        task: The `disttrain.task.Task`, before the first pass; in replica context.
    """

    def __init__(self, task):
        own = [variable for metric in task.layer_metrics for variable in metric.variables]
        state = [*task.model.non_trainable_variables, *own]
        self._assigned = AssignedVariables(state, task.replication)

    def begin(self, gradients):
        """Notes the state after the first pass.

        Args:
            gradients: Computes gradients at the present weights.

        Returns:
            A function that does so, with the state of the first pass before and after.
        """
        at_first = self._assigned.find()
        after = [(variable, tf.identity(variable.value)) for variable, _ in at_first]

        def again():
            _assign(at_first)
            found = gradients()
            _assign(after)
            return found

        return again


def _assign(pairs):
    for variable, value in pairs:
        variable.assign(value)

"""What becomes of a step once its gradients are reduced: an update, or a skip; recorded, or not.

Every replica takes the same branch.
"""

import tensorflow as tf

from disttrain.optimizers import around_each, skips


class Outcome:
    """Takes the branch of a step.

    Args:
        optimizer: The `DistributedOptimizer`.
    """

    def __init__(self, optimizer):
        self._owner = optimizer
        self._clipped = None

    def build(self, add_state):
        """Makes the counters of clipped and of skipped steps.

        Args:
            add_state: Makes a variable from a name, a dtype and a value.
        """
        if self._owner.clip is not None:
            self._clipped = add_state("clipped_steps", "int64", 0)
        self._skipped_in_a_row = add_state("skipped_in_a_row", "int64", 0)

    def clipped_steps(self):
        """In how many steps the clip has changed the gradients."""
        return 0 if self._clipped is None else int(self._clipped.numpy())

    def decide(self, reduced, variables):
        """Updates, or skips if not all gradients are finite; in replica context.

        Args:
            reduced: A `disttrain.gradients.path.Reduced`.
            variables: The variables of its gradients.
        """
        self._owner.replication.cond(
            reduced.finite,
            lambda clipped, factor, norms: self._update(clipped, variables, factor),
            lambda clipped, factor, norms: self._skip(norms, variables),
            args=(reduced.clipped, reduced.clip_factor, reduced.norms),
        )

    def decide_and_record(self, reduced, variables, observer, due, facts):
        """The same, and lets an observer record the step.

        Args:
            reduced: As for `decide`.
            variables: As for `decide`.
            observer: A `disttrain.telemetry.observer.Observer`.
            due: Whether its plan names the step, `record`, and `with_histograms`: boolean scalars.
            facts: What this replica knows of the step: name to tensor, as `Probe.write` takes it.
        """
        clip = self._owner.clip
        # Not to keep every gradient twice: from a multiple, all but the norm can be told.
        multiples = clip is None or clip.before_reduce or clip.scales_whole
        unclipped = [] if multiples else reduced.gradients

        def update(clipped, unclipped, norms, due, facts):
            probe = observer.here()
            watch = probe and probe.watch(variables, unclipped or clipped, norms, **due)
            self._update(clipped, variables, facts["clip_factor"], watch)
            if probe is not None:
                probe.write(due["record"], facts, norms, watch)

        def skip(clipped, unclipped, norms, due, facts):
            probe = observer.here()
            if probe is not None:
                due = {**due, "record": probe.skipped()}
                watch = probe.watch(variables, unclipped or clipped, norms, **due)
                if watch is not None:
                    around_each.look(variables, watch)
                probe.write(due["record"], facts, norms, watch)
            self._skip(norms, variables)

        facts = {**facts, "clip_factor": reduced.clip_factor}
        self._owner.replication.cond(
            reduced.finite,
            update,
            skip,
            args=(reduced.clipped, unclipped, reduced.norms, due, facts),
        )

    def _update(self, gradients, variables, factor, watch=None):
        owner = self._owner

        def apply():
            owner.inner.apply(gradients, variables)
            self._overwrite_with_average()

        if watch is None:
            apply()
        else:
            around_each.call(apply, owner.inner, variables, watch)
        self._skipped_in_a_row.assign(0)
        if owner.loss_scale is not None:
            owner.loss_scale.after_finite()
        if self._clipped is not None:
            self._clipped.assign(self._clipped.value + tf.cast(factor < 1.0, tf.int64))

    def _overwrite_with_average(self):
        """Keras's `ema_overwrite_frequency`, which it cannot do on several replicas."""
        owner = self._owner
        if not owner.use_ema or not owner.ema_overwrite_frequency:
            return

        def overwrite():
            averages = owner.inner._model_variables_moving_average
            for variable, average in zip(owner.built_with, averages, strict=True):
                variable.assign(average.value)
            return True

        due = owner.inner.iterations.value % owner.ema_overwrite_frequency == 0
        tf.cond(due, overwrite, lambda: False)

    def _skip(self, norms, variables):
        if self._owner.loss_scale is not None:
            self._owner.loss_scale.after_overflow()
        skipped = self._skipped_in_a_row.value + 1
        self._skipped_in_a_row.assign(skipped)
        skips.stop_after(self._owner.max_skipped, skipped, norms, variables)

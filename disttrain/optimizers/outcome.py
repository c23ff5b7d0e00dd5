"""What becomes of a step once its gradients are reduced: an update, or a skip; recorded, or not.

Every replica takes the same branch.
"""

import tensorflow as tf

from disttrain.gradients import sparse
from disttrain.optimizers import around_each, fused
from disttrain.optimizers.skips import SkipCounter
from disttrain.replication import replica_value


class Outcome:
    """Takes the branch of a step.

    Args:
        optimizer: The `DistributedOptimizer`.
    """

    def __init__(self, optimizer):
        self._owner = optimizer
        self._clipped = None
        self.skips = SkipCounter(optimizer.max_skipped)

    def build(self, add_state, variables):
        """Makes the counters of clipped and of skipped steps.

        Args:
            add_state: Makes a variable from a name, a dtype and a value.
            variables: All trainable variables.
        """
        if self._owner.clip is not None:
            self._clipped = add_state("clipped_steps", "int64", 0)
        self.skips.build(add_state, variables)

    def clipped_steps(self):
        """In how many steps the clip has changed the gradients."""
        return 0 if self._clipped is None else int(self._clipped.numpy())

    def decide(self, reduced, variables, alone=False):
        """Updates, or skips if not all gradients are finite; in replica context.

        Args:
            reduced: A `disttrain.gradients.path.Reduced`.
            variables: The variables of its gradients.
            alone: As for `DistributedOptimizer.apply_shares`.
        """
        at_once = fused.find(self._owner.inner, variables)
        if _measures(at_once):
            given = _given(reduced, at_once)
            at_once.apply(**given, own=self._own, finite=reduced.finite, alone=alone)
            self._count(reduced, variables)
            return
        self._owner.replication.cond(
            reduced.finite,
            lambda given, factor, norms: self._update(at_once, given, variables, factor),
            _seldom(lambda given, factor, norms: self._skip(norms, variables)),
            args=(_given(reduced, at_once), reduced.clip_factor, reduced.norms),
        )

    def overwrite(self, targets, values, finite):
        """Gives variables their next values, unless the step is skipped; in replica context.

        Args:
            targets: The variables, none of which has a gradient.
            values: Their next values, equal on all replicas but for local variables.
            finite: Whether the step is applied, a boolean scalar.
        """
        for target, value in zip(targets, values, strict=True):
            own = self._own(target)
            own.assign(tf.where(finite, tf.cast(value, own.dtype), own.read_value()))

    def decide_and_record(self, reduced, variables, observer, due, facts, alone=False):
        """The same, and lets an observer record the step.

        Args:
            reduced: As for `decide`.
            variables: As for `decide`.
            observer: A `disttrain.telemetry.observer.Observer`.
            due: Whether its plan names the step, `record`, and `with_histograms`: boolean scalars.
            facts: What this replica knows of the step: name to tensor, as `Probe.write` takes it.
            alone: As for `decide`.
        """
        at_once = fused.find(self._owner.inner, variables)
        if _measures(at_once):
            self._update_and_record(at_once, reduced, variables, observer, due, facts, alone)
            return
        # Not to keep every gradient twice: from a multiple, all but the norm can be told.
        unclipped = [] if reduced.otherwise_clipped is None else reduced.gradients

        def update(given, unclipped, norms, due, facts):
            probe = observer.here()
            watch = None
            if probe is not None:
                watch = probe.watch(variables, unclipped or _multiples(given), norms, **due)
            self._update(at_once, given, variables, facts["clip_factor"], watch)
            if probe is not None:
                probe.write(due["record"], facts, norms, watch)

        def skip(given, unclipped, norms, due, facts):
            probe = observer.here()
            if probe is not None:
                due = {**due, "record": probe.skipped()}
                watch = probe.watch(variables, unclipped or _multiples(given), norms, **due)
                if watch is not None:
                    around_each.look(variables, watch)
                probe.write(due["record"], facts, norms, watch)
            self._skip(norms, variables)

        facts = {**facts, "clip_factor": reduced.clip_factor}
        self._owner.replication.cond(
            reduced.finite,
            update,
            _seldom(skip),
            args=(_given(reduced, at_once), unclipped, reduced.norms, due, facts),
        )

    def _update_and_record(self, at_once, reduced, variables, observer, due, facts, alone):
        """The same where one operation makes the update or leaves it, and measures either."""
        facts = {**facts, "clip_factor": reduced.clip_factor}
        unclipped = [] if reduced.otherwise_clipped is None else reduced.gradients
        probe, watch = observer.here(), None
        if probe is not None:
            # The operation has the gradients already.
            watch = probe.watch(variables, [], reduced.norms, **due)
        at_once.apply(
            **_given(reduced, at_once),
            own=self._own,
            watch=watch,
            unclipped=unclipped if watch is not None else (),
            finite=reduced.finite,
            alone=alone,
        )
        if probe is not None:
            probe.write(due["record"], facts, reduced.norms, watch, reduced.finite)
        self._count(reduced, variables)

    def _count(self, reduced, variables):
        """Counts a step that was updated or left at once."""
        self._owner.replication.cond(
            reduced.finite,
            lambda factor, norms: self._count_update(factor),
            _seldom(lambda factor, norms: self._skip(norms, variables)),
            args=(reduced.clip_factor, reduced.norms),
        )

    def _update(self, at_once, given, variables, factor, watch=None):
        owner = self._owner

        def apply():
            if at_once is None and getattr(owner.inner, "state_is_in_parts", False):
                owner.inner.apply(given["gradients"], variables, own=self._own)
            elif at_once is None:
                owner.inner.apply(given["gradients"], variables)
            else:
                at_once.apply(**given, own=self._own)
            self._overwrite_with_average()

        if watch is None:
            apply()
        else:
            around_each.call(apply, owner.inner, variables, watch)
        self._count_update(factor)

    def _count_update(self, factor):
        self.skips.applied()
        if self._owner.loss_scale is not None:
            self._owner.loss_scale.after_finite()
        if self._clipped is not None:
            self._clipped.assign(self._clipped.value + tf.cast(factor < 1.0, tf.int64))

    def _own(self, variable):
        """The `tf.Variable` of the replica that calls."""
        replication = self._owner.replication
        place = replication.replica_index() - replication.topology.first_replica
        return replica_value(variable, place)

    def _overwrite_with_average(self):
        """Keras's `ema_overwrite_frequency`, which it cannot do on several replicas."""
        owner = self._owner
        if not owner.use_ema or not owner.ema_overwrite_frequency:
            return

        def overwrite():
            averages = owner.inner._model_variables_moving_average
            for variable, average in zip(owner.built_with, averages, strict=True):
                if average is not None:
                    variable.assign(average.value)
            return True

        due = owner.inner.iterations.value % owner.ema_overwrite_frequency == 0
        tf.cond(due, overwrite, lambda: False)

    def _skip(self, norms, variables):
        if self._owner.loss_scale is not None:
            self._owner.loss_scale.after_overflow()
        self.skips.skipped(norms, variables)


def _seldom(branch):
    """A branch as one operation, for each of its own takes time where it is not taken.

    Variables of several replicas can be changed in the replicas' own function alone.
    """
    if tf.distribute.has_strategy():
        return branch
    return tf.function(branch, autograph=False, experimental_attributes={"_noinline": True})


def _measures(at_once):
    return at_once is not None and at_once.measures


def _given(reduced, at_once):
    """What an update gets: the gradients to apply, or what `FusedUpdate.apply` takes."""
    if at_once is None:
        return {"gradients": reduced.clipped}
    one = tf.constant(1.0)
    if reduced.otherwise_clipped is not None:
        gradients, scales, unscale = reduced.otherwise_clipped, tf.ones_like(reduced.norms), one
    else:
        gradients = reduced.sums
        unscale = one if reduced.unscale is None else reduced.unscale
        factors = tf.ones_like(reduced.norms) if reduced.factors is None else reduced.factors
        scales = factors * unscale
    return {"gradients": gradients, "scales": scales, "unscale": unscale}


def _multiples(given):
    """The gradients before clipping, or a multiple of each by a number up to 1."""
    if "unscale" not in given:
        return given["gradients"]
    return [sparse.scaled(gradient, given["unscale"]) for gradient in given["gradients"]]

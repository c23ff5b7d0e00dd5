"""What one replica records, in the training graph, until the host reads it.

Every replica has a probe if replicas are to be compared, else the chief's first one alone. Nothing
here waits for the host, and replicas send each other nothing.
"""

import tensorflow as tf

from disttrain import kernels
from disttrain.gradients import sparse
from disttrain.gradients.clipping import global_norm
from disttrain.telemetry import statistics
from disttrain.telemetry.layers import Watch
from disttrain.telemetry.ring import Buffer, Ring
from tensorboard_plugin import metadata

#: What a replica keeps of its own part besides, for the gradient noise scale.
LOCAL = ("gradient_norm", "loss", "wait_seconds", "examples")

_STEP_COLUMNS = [s.name for s in metadata.STEP_QUANTITIES]

#: What the operation that records is told of a column that is none of the facts: it knows the norm
#: of all gradients and the number of skipped steps, and writes 0 and NaN.
_KNOWN_THERE = {"gradient_norm": -1, "skipped": -2, "own_wait": -3}
_UNKNOWN = -4


class Probe:
    """The buffers of one replica.

    Args:
        plan: The `Plan` to begin with.
        first_step: Number of steps done before.
        capacity: Rows for steps that the plan names.
        layers: The `Layers`, on the replica that records them, or `None`.
        histogram_rows: Rows of histograms.
        local: Whether the replica records its own part.
        per_variable: Number of variables whose local gradient norms are recorded.
        alone: Whether there is no other replica.
    """

    def __init__(
        self, plan, first_step, capacity, layers, histogram_rows, local, per_variable, alone
    ):
        self.ring = Ring(plan, first_step, capacity)
        self._layers = layers
        self._alone = alone
        self._per_variable = per_variable
        self._local = Buffer(self.ring.rows, [len(LOCAL) + per_variable]) if local else None
        if layers is not None:
            layers.make_buffers(self.ring.rows, histogram_rows)
            columns = len(metadata.STEP_QUANTITIES)
            self._quantities = Buffer(self.ring.rows, [columns])
            self._examples = Buffer(self.ring.rows, [1])
            with tf.init_scope(), tf.device("CPU:0"):
                self._skipped = tf.Variable(0.0, trainable=False)
        self._put_together()

    def _put_together(self):
        """Lists the buffers in the order in which one operation writes them."""
        buffers, after = [], []
        if self._local is not None:
            (buffers if self._alone else after).append(self._local)
        skipped, counts = [], []
        if self._layers is not None:
            buffers += [self._quantities, self._examples]
            after.append(self._layers.rows)
            skipped, counts = [self._skipped], self._layers.histogram_variables()
        ring = self.ring
        variables = [buffer.variable for buffer in (*buffers, *after)]
        ring.together = kernels.together([*ring.variables, *skipped, *variables, *counts])

    @property
    def records_its_own_part(self):
        """Whether the replica records its own gradient norm, loss and times."""
        return self._local is not None

    def arrived(self, record, gradients, places, to_mean, loss, examples):
        """Measures this replica's own part, before the reduction.

        Args:
            record: Whether the plan names the step, a boolean scalar.
            gradients: This replica's gradients.
            places: Of each gradient, its place among the variables that are recorded, or `None`.
            to_mean: What turns a gradient into that of the mean loss of the replica's examples.
            loss: That loss, a float32 scalar.
            examples: Their number, a float32 scalar.

        Returns:
            Name to tensor, for `Probe.reduced`.
        """
        if self._local is None or self._alone:
            # Where there is no other replica, its own part is all of it.
            return {}
        found = {"own_loss": loss, "own_examples": examples}
        shape = [1 + self._per_variable]

        def measure():
            whole = [sparse.without_repeats(g) if sparse.is_sparse(g) else g for g in gradients]
            squares = [2.0 * tf.nn.l2_loss(tf.cast(sparse.values_of(g), tf.float32)) for g in whole]
            norms = tf.sqrt(tf.stack([tf.add_n(squares), *self._each(squares, places)]))
            return norms * tf.cast(to_mean, tf.float32)

        found["own_norms"] = tf.cond(record, measure, lambda: tf.fill(shape, statistics.NAN))
        with tf.control_dependencies([*map(sparse.values_of, gradients), loss]):
            found["arrived"] = tf.timestamp()
        return found

    def _each(self, squares, places):
        by_place = {place: s for s, place in zip(squares, places, strict=True)}
        missing = tf.constant(statistics.NAN)
        return [by_place.get(place, missing) for place in range(self._per_variable)]

    def reduced(self, found, gradients):
        """Notes that the reduction is done.

        Args:
            found: What `arrived` returned.
            gradients: The reduced gradients.

        Returns:
            What goes into the facts of `write`: name to tensor.
        """
        if not found:
            return found
        with tf.control_dependencies([*map(sparse.values_of, gradients)]):
            waited = tf.cast(tf.timestamp() - found.pop("arrived"), tf.float32)
        return {**found, "own_wait": waited}

    def watch(self, variables, gradients, norms, record, with_histograms):
        """A `Watch` over the update of a step, or `None` on other replicas.

        Args:
            variables: The variables that have a gradient.
            gradients: Their gradients, or multiples of them.
            norms: The gradients' norms before clipping, float32 `[len(gradients)]`.
            record: Whether the step is recorded, a boolean scalar.
            with_histograms: Whether with histograms then, a boolean scalar.
        """
        if self._layers is None:
            return None
        return Watch(self._layers, variables, gradients, norms, record, with_histograms)

    def write(self, record, facts, norms, watch, finite=None):
        """Writes the rows of a step, if it is recorded.

        Args:
            record: Whether it is, a boolean scalar.
            facts: `loss`, `examples`, `loss_scale`, `learning_rate` and `clip_factor`, each a
                float32 scalar; with what `reduced` has returned.
            norms: The gradients' norms before clipping, float32 `[n]`.
            watch: What `watch` has returned, after the update.
            finite: Whether the update was applied, a boolean scalar; by default it was. If not,
                the step is counted as skipped, and recorded while there is room. Only where
                `writes_at_once`.
        """
        if self.writes_at_once(watch):
            applied = tf.constant(True) if finite is None else finite
            self._write_at_once(kernels.available(), record, facts, norms, watch, applied)
            return

        def write():
            row = self.ring.take()
            whole = {**facts, "gradient_norm": global_norm(norms)}
            if self._local is not None:
                self._local.write(row, self._own_part(whole))
            if self._layers is None:
                return True
            quantities = statistics.step_quantities(whole, self._skipped.read_value())
            self._quantities.write(row, quantities)
            self._examples.write(row, facts["examples"][None])
            self._skipped.assign(0.0)
            self._layers.write(row, self.ring.step.read_value(), watch)
            return True

        tf.cond(record, write, lambda: False)

    @staticmethod
    def writes_at_once(watch):
        """Whether one operation writes all rows of a step with this watch."""
        return kernels.available() is not None and (watch is None or watch.at_once)

    def _write_at_once(self, operations, record, facts, norms, watch, finite):
        """The same in one operation, which takes next to nothing where nothing is recorded."""
        # In the order of `_put_together`.
        composed, rows = [], []
        if self._local is not None and self._alone:
            composed.append(("gradient_norm", "loss", "own_wait", "examples"))
        if self._layers is not None:
            composed += [_STEP_COLUMNS, ["examples"]]
        if self._local is not None and not self._alone:
            rows.append(self._own_part(facts))
        if self._layers is not None:
            rows.append(watch.rows())
        names = [name for columns in composed for name in columns]
        places = dict(_KNOWN_THERE)
        given = [name for name in dict.fromkeys(names) if name in facts and name not in places]
        places.update((name, i) for i, name in enumerate(given))
        with tf.device("CPU:0"):
            operations.disttrain_record(
                record=record,
                finite=finite,
                ring=self.ring.together,
                skips=self._layers is not None,
                facts=[facts[name] for name in given],
                rows=rows,
                norms=norms,
                widths=[len(columns) for columns in composed],
                chosen=[places.get(name, _UNKNOWN) for name in names],
                **_histograms_of(self._layers, watch),
            )

    def skipped(self):
        """Counts a skipped step; returns whether there is room to record it, a boolean scalar."""
        counted = []
        if self._layers is not None:
            counted.append(self._skipped.assign_add(1.0))
        with tf.control_dependencies(counted):
            # The operation that records knows these variables by another name.
            return tf.identity(self.ring.has_room())

    def _own_part(self, facts):
        if self._alone:
            own = [facts["gradient_norm"], facts["loss"], tf.constant(0.0), facts["examples"]]
            return tf.stack(own)
        norms = facts["own_norms"]
        rest = [facts["own_loss"], facts["own_wait"], facts["own_examples"]]
        return tf.concat([norms[:1], tf.stack(rest), norms[1:]], 0)

    def read_local(self, rows):
        """float32 `[n, local quantities]` of the given rows; `LOCAL`, then each variable's norm."""
        return self._local.read(rows)

    def read_steps(self, rows):
        """`(quantities, examples)` of the given rows: float32 `[n, quantities]` and `[n]`."""
        return self._quantities.read(rows), self._examples.read(rows)[:, 0]


def _histograms_of(layers, watch):
    """What the operation that records is told of histograms."""
    if layers is None or not layers.histogram_bytes:
        nothing = {"histograms": tf.zeros([0]), "counts": False}
        return {"with_histograms": tf.constant(False), **nothing}
    return {
        "with_histograms": watch.with_histograms,
        "histograms": watch.histograms(),
        "counts": True,
    }

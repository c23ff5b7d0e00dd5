"""The statistics of a step, as tensors. Which they are is the schema's; how, is told here.

Compiled operations compute them in one pass where they can be had and run on the device;
TensorFlow's own operations compute the same elsewhere.
"""

import tensorflow as tf

from disttrain import kernels
from disttrain.gradients import sparse
from tensorboard_plugin import metadata

NAN = float("nan")

_KERNEL_DTYPES = (tf.float32, tf.float64, tf.float16, tf.bfloat16)


class LayerStatistics:
    """Computes the rows of `disttrain/layers` and `disttrain/histograms`, for groups of variables.

    Args:
        slot_names: Names of the slot columns; NaN where a variable has no such slot.
        histograms: Whether histograms are wanted at all.
        compiled: Whether the compiled operations may be used.

    Attributes:
        columns: Names of the statistics, in order.
        quantities: Names of the quantities of a histogram, in order.
    """

    def __init__(self, slot_names, histograms=True, compiled=True):
        self.slot_names = list(slot_names)
        self.columns = tuple(s.name for s in metadata.layer_statistics(self.slot_names))
        self.quantities = tuple(s.name for s in metadata.histogram_quantities(self.slot_names))
        self.histograms = histograms
        # The compiled operations run on the CPU.
        on_cpu = not tf.config.list_logical_devices("GPU")
        self._kernels = kernels.load() if compiled and on_cpu else None

    def settings(self, with_histograms):
        """What a compiled operation is told of columns and bins, by the names of its arguments."""
        return {
            "with_histograms": with_histograms if self.histograms else tf.constant(False),
            "slot_columns": len(self.slot_names),
            "lowest_exponent": metadata.EXPONENTS[0],
            "highest_exponent": metadata.EXPONENTS[-1],
        }

    def snapshot(self, variables, record):
        """The present values of some variables, to be handed to `measure` after their update.

        Args:
            variables: A list of `tf.Variable`, each on one device.
            record: Whether the step is recorded, a boolean scalar.

        Returns:
            A list of tensors; empty ones where the step is not recorded.
        """
        if self._compiled(variables):
            return self._kernels.disttrain_snapshot(
                variables=[v.handle for v in variables],
                record=record,
                dtypes=[v.dtype for v in variables],
            )
        return tf.nest.flatten(
            tf.cond(
                record,
                lambda: [v.read_value() for v in variables],
                lambda: [tf.zeros([0] * v.shape.rank, v.dtype) for v in variables],
            )
        )

    def measure(self, variables, before, gradients, norms, places, slots, record, with_histograms):
        """The rows of some variables.

        Args:
            variables: A list of `tf.Variable`, updated.
            before: What `snapshot` returned for them.
            gradients: Their reduced, unscaled gradients, or each of them times a number, as
                clipping leaves them; dense, or `tf.IndexedSlices` without repeated rows.
            norms: L2 norms of all gradients before clipping, float32.
            places: Of each variable, the place of its norm, a list.
            slots: Of each variable, slot name to `tf.Variable`.
            record: As for `snapshot`.
            with_histograms: Whether histograms are due, a boolean scalar.

        Returns:
            `(rows, histograms)`: float32 of shape `[n, statistics]`, in the order of
            `metadata.layer_statistics`, and float32 counts of shape `[n, quantities, bins]`. Their
            first axis is 0 where they are not due.
        """
        if self._compiled([*variables, *(slot for own in slots for slot in own.values())]):
            return self._measure_at_once(
                variables, before, gradients, norms, places, slots, record, with_histograms
            )
        counts = with_histograms if self.histograms else tf.constant(False)
        shape = [len(self.quantities), len(metadata.BINS)]

        def measure():
            each = [
                self._row(tf.ensure_shape(b, v.shape), v.read_value(), g, norms[place], own)
                for v, b, g, place, own in zip(
                    variables, before, gradients, places, slots, strict=True
                )
            ]
            rows = tf.stack([row for row, _ in each])

            def count():
                return tf.stack(
                    [
                        self._histograms(
                            tf.ensure_shape(b, v.shape), v.read_value(), g, factor, own
                        )
                        for (_, factor), v, b, g, own in zip(
                            each, variables, before, gradients, slots, strict=True
                        )
                    ]
                )

            return rows, tf.cond(counts, count, lambda: tf.zeros([0, *shape]))

        def nothing():
            return tf.zeros([0, len(self.columns)]), tf.zeros([0, *shape])

        return tf.cond(record, measure, nothing)

    def _compiled(self, variables):
        """Whether the compiled operations take these variables."""
        return self._kernels is not None and all(v.dtype in _KERNEL_DTYPES for v in variables)

    def _measure_at_once(
        self, variables, before, gradients, norms, places, slots, record, with_histograms
    ):
        sparse_places = [i for i, g in enumerate(gradients) if sparse.is_sparse(g)]
        owned = [
            (owner, name, slot) for owner, own in enumerate(slots) for name, slot in own.items()
        ]
        return self._kernels.disttrain_measure(
            variables=[v.handle for v in variables],
            before=before,
            gradients=[sparse.values_of(g) for g in gradients],
            rows=[tf.cast(gradients[i].indices, tf.int64) for i in sparse_places],
            norms=norms,
            norm_places=list(places),
            slots=[slot.handle for _, _, slot in owned],
            record=record,
            sparse=sparse_places,
            slot_owners=[owner for owner, _, _ in owned],
            slot_places=[self.slot_names.index(name) for _, name, _ in owned],
            **self.settings(with_histograms),
        )

    def _row(self, before, after, gradient, norm, slots):
        """Returns the row, and what the gradient was divided by when it was clipped."""
        values, scale = _scaled(sparse.values_of(gradient))
        update, update_scale = _scaled(_change(before, after))
        scaled_given, scaled_update_norm = _norm(values), _norm(update)
        given, update_norm = scale * scaled_given, update_scale * scaled_update_norm
        weight_norm = _scaled_norm(after)
        usable = tf.math.is_finite(norm) & tf.math.is_finite(given) & (given > 0)
        factor = tf.where(usable, norm / given, 1.0)
        # Without a clip both norms are the same but for the order of their sums, or underflow.
        factor = tf.where(factor < 1.0 + 1e-5, 1.0, factor)
        # The largest of no elements is minus infinity.
        largest = tf.maximum(tf.reduce_max(tf.abs(values)), 0.0) * scale * factor
        # Rows that a sparse gradient does not hold are zeros.
        size = tf.cast(tf.size(after), tf.float32)
        nonzero = tf.reduce_sum(tf.cast(~_is_zero(sparse.values_of(gradient)), tf.float32))
        along = tf.gather(update, gradient.indices) if sparse.is_sparse(gradient) else update
        row = {
            "weight_norm": weight_norm,
            "gradient_norm": norm,
            "update_norm": update_norm,
            "update_ratio": tf.math.divide_no_nan(update_norm, weight_norm),
            "gradient_max": tf.where(tf.math.is_nan(given), NAN, largest),
            "zero_fraction": tf.math.divide_no_nan(size - nonzero, size),
            "nonfinite": tf.reduce_sum(tf.cast(~tf.math.is_finite(values), tf.float32)),
            "update_cosine": tf.math.divide_no_nan(
                -tf.reduce_sum(along * values), scaled_update_norm * scaled_given
            ),
        }
        for name in self.slot_names:
            slot = slots.get(name)
            row[metadata.SLOT_PREFIX + name] = (
                tf.constant(NAN) if slot is None else _scaled_norm(slot)
            )
        return tf.stack([row[name] for name in self.columns]), factor

    def _histograms(self, before, after, gradient, factor, slots):
        values = tf.cast(sparse.values_of(gradient), tf.float32)
        # A processor may flush a product that is denormal to zero.
        values = tf.where(factor == 1.0, values, values * factor)
        counts = [
            log_histogram(after),
            log_histogram(values),
            log_histogram(_change(before, after)),
        ]
        if sparse.is_sparse(gradient):
            absent = tf.cast(tf.size(after) - tf.size(values), tf.float32)
            counts[1] += absent * tf.one_hot(0, len(metadata.BINS))
        for name in self.slot_names:
            slot = slots.get(name)
            counts.append(
                tf.fill([len(metadata.BINS)], NAN) if slot is None else log_histogram(slot)
            )
        return tf.stack(counts)


def log_histogram(values):
    """Counts a tensor's elements by their magnitude.

    Args:
        values: A floating tensor of any shape.

    Returns:
        float32 of shape `[bins]`, in the order of `metadata.BINS`.
    """
    values = tf.reshape(tf.cast(values, tf.float32), [-1])
    bits = tf.bitcast(values, tf.int32)
    zero = _is_zero(values)
    exponent = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 23), 255) - 127
    nan = tf.math.is_nan(values)
    infinite = tf.math.is_inf(values)
    lowest, highest = metadata.EXPONENTS[0], metadata.EXPONENTS[-1]
    places = tf.clip_by_value(exponent, lowest, highest) - lowest
    counted = ~(zero | nan | infinite)
    # Added one by one, floats would stop at 2^24.
    sums = tf.math.unsorted_segment_sum(tf.cast(counted, tf.int32), places, len(metadata.EXPONENTS))
    kinds = [zero, (bits < 0) & ~zero & ~nan, nan, infinite]
    counts = [tf.reduce_sum(tf.cast(kind, tf.float32)) for kind in kinds]
    return tf.concat([tf.stack(counts), tf.cast(sums, tf.float32)], 0)


def _change(before, after):
    """`after - before` as float32."""
    if after.dtype == tf.float64:
        # A step may be less than what float32 can tell apart.
        return tf.cast(after - before, tf.float32)
    return tf.cast(after, tf.float32) - tf.cast(before, tf.float32)


def _is_zero(values):
    """Whether elements are 0; by their bits, for a processor may take denormal numbers for it."""
    bits = tf.bitcast(tf.cast(values, tf.float32), tf.int32)
    return tf.bitwise.bitwise_and(bits, 0x7FFFFFFF) == 0


def _scaled(values):
    """`(values / scale, scale)`, so that squares neither vanish nor overflow; in float32."""
    values = tf.cast(values, tf.float32)
    largest = tf.reduce_max(tf.abs(values))
    scale = tf.where(tf.math.is_finite(largest) & (largest > 0), largest, 1.0)
    return values / scale, scale


def _norm(values):
    return tf.sqrt(2.0 * tf.nn.l2_loss(values))


def _scaled_norm(values):
    scaled, scale = _scaled(values)
    return scale * _norm(scaled)


def step_quantities(facts, skipped):
    """The row of `disttrain/steps`; what only the host knows is NaN here.

    Args:
        facts: Name of a quantity to float32 scalar.
        skipped: float32 scalar, steps skipped since the last record.

    Returns:
        float32 of shape `[quantities]`, in the order of `metadata.STEP_QUANTITIES`.
    """
    values = {**facts, "skipped": skipped}
    return tf.stack([values.get(s.name, tf.constant(NAN)) for s in metadata.STEP_QUANTITIES])

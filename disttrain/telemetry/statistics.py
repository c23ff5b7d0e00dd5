"""The statistics of a step, as tensors. Which they are is the schema's; how, is told here.

A compiled operation computes a variable's in one pass where it can be had and runs on the device;
TensorFlow's own operations compute the same elsewhere.
"""

import tensorflow as tf

from disttrain import kernels
from disttrain.gradients import sparse
from tensorboard_plugin import metadata

NAN = float("nan")

_KERNEL_DTYPES = (tf.float32, tf.float64, tf.float16, tf.bfloat16)


class LayerStatistics:
    """Computes the rows of `disttrain/layers` and `disttrain/histograms` of one variable.

    Args:
        slot_names: Names of the slot columns; NaN where a variable has no such slot.
        histograms: Whether histograms are wanted at all.
        compiled: Whether the compiled operation may be used.
    """

    def __init__(self, slot_names, histograms=True, compiled=True):
        self.slot_names = list(slot_names)
        self.columns = tuple(s.name for s in metadata.layer_statistics(self.slot_names))
        self.quantities = tuple(s.name for s in metadata.histogram_quantities(self.slot_names))
        self.histograms = histograms
        self._kernels = kernels.load() if compiled else None

    def __call__(self, before, after, gradient, norm, slots, with_histograms):
        """Computes.

        Args:
            before: The variable's value before the update, a tensor.
            after: Its value after it.
            gradient: Its reduced, unscaled gradient, or that times a number, as clipping leaves it;
                dense, or `tf.IndexedSlices` without repeated rows.
            norm: L2 norm of the gradient before clipping, a float32 scalar.
            slots: Slot name to value.
            with_histograms: Boolean scalar.

        Returns:
            `(row, histograms)`: float32 of shape `[statistics]`, in the order of
            `metadata.layer_statistics`; and float32 counts of shape `[quantities, bins]`, zeros
            where they are not wanted.
        """
        if self._fits(before, gradient, slots):
            return self._compiled(before, after, gradient, norm, slots, with_histograms)
        row, factor = self._row(before, after, gradient, norm, slots)
        shape = [len(self.quantities), len(metadata.BINS)]
        if not self.histograms:
            return row, tf.zeros(shape)

        def count():
            return self._histograms(before, after, gradient, factor, slots)

        return row, tf.cond(with_histograms, count, lambda: tf.zeros(shape))

    def _fits(self, before, gradient, slots):
        """Whether the compiled operation takes these tensors."""
        tensors = [before, sparse.values_of(gradient), *slots.values()]
        return (
            self._kernels is not None
            and all(tensor.dtype in _KERNEL_DTYPES for tensor in tensors)
            and not any("GPU" in tensor.device for tensor in tensors)
            and not _on_gpu()
        )

    def _compiled(self, before, after, gradient, norm, slots, with_histograms):
        rows, is_sparse = tf.zeros([0], tf.int64), sparse.is_sparse(gradient)
        if is_sparse:
            rows, gradient = tf.cast(gradient.indices, tf.int64), gradient.values
        kept = [name for name in self.slot_names if name in slots]
        return self._kernels.disttrain_layer_statistics(
            before=before,
            after=after,
            gradient=tf.cast(gradient, before.dtype),
            rows=rows,
            norm=norm,
            slots=[slots[name] for name in kept],
            with_histograms=with_histograms if self.histograms else tf.constant(False),
            slot_places=[self.slot_names.index(name) for name in kept],
            slot_columns=len(self.slot_names),
            sparse=is_sparse,
            lowest_exponent=metadata.EXPONENTS[0],
            highest_exponent=metadata.EXPONENTS[-1],
        )

    def _row(self, before, after, gradient, norm, slots):
        """Returns the row, and what the gradient was divided by when it was clipped."""
        after = tf.cast(after, tf.float32)
        update = after - tf.cast(before, tf.float32)
        values = tf.cast(sparse.values_of(gradient), tf.float32)
        given = tf.norm(values)
        usable = tf.math.is_finite(norm) & tf.math.is_finite(given) & (given > 0)
        factor = tf.where(usable, norm / given, 1.0)
        # Without a clip both norms are the same but for the order of their sums.
        factor = tf.where(tf.abs(factor - 1.0) < 1e-5, 1.0, factor)
        # Rows that a sparse gradient does not hold are zeros.
        size = tf.cast(tf.size(after), tf.float32)
        nonzero = tf.reduce_sum(tf.cast(values != 0, tf.float32))
        along = tf.gather(update, gradient.indices) if sparse.is_sparse(gradient) else update
        weight_norm = tf.norm(after)
        update_norm = tf.norm(update)
        row = {
            "weight_norm": weight_norm,
            "gradient_norm": norm,
            "update_norm": update_norm,
            "update_ratio": tf.math.divide_no_nan(update_norm, weight_norm),
            # The largest of no elements is minus infinity.
            "gradient_max": tf.maximum(tf.reduce_max(tf.abs(values)), 0.0) * factor,
            "zero_fraction": tf.math.divide_no_nan(size - nonzero, size),
            "nonfinite": tf.reduce_sum(tf.cast(~tf.math.is_finite(values), tf.float32)),
            "update_cosine": tf.math.divide_no_nan(
                -tf.reduce_sum(along * values), update_norm * given
            ),
        }
        for name in self.slot_names:
            slot = slots.get(name)
            row[metadata.SLOT_PREFIX + name] = (
                tf.constant(NAN) if slot is None else tf.norm(tf.cast(slot, tf.float32))
            )
        return tf.stack([row[name] for name in self.columns]), factor

    def _histograms(self, before, after, gradient, factor, slots):
        values = tf.cast(sparse.values_of(gradient), tf.float32) * factor
        counts = [
            log_histogram(after),
            log_histogram(values),
            log_histogram(tf.cast(after, tf.float32) - tf.cast(before, tf.float32)),
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
    # By its bits, since a processor may flush denormal numbers to zero.
    bits = tf.bitcast(values, tf.int32)
    zero = tf.bitwise.bitwise_and(bits, 0x7FFFFFFF) == 0
    exponent = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 23), 255) - 127
    nan = tf.math.is_nan(values)
    infinite = tf.math.is_inf(values)
    lowest, highest = metadata.EXPONENTS[0], metadata.EXPONENTS[-1]
    places = tf.clip_by_value(exponent, lowest, highest) - lowest
    counted = ~(zero | nan | infinite)
    sums = tf.math.unsorted_segment_sum(
        tf.cast(counted, tf.float32), places, len(metadata.EXPONENTS)
    )
    kinds = [zero, (bits < 0) & ~zero & ~nan, nan, infinite]
    counts = [tf.reduce_sum(tf.cast(kind, tf.float32)) for kind in kinds]
    return tf.concat([tf.stack(counts), sums], 0)


def _on_gpu():
    return bool(tf.config.list_logical_devices("GPU"))


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

"""The statistics of one step, as tensors. Which they are is the schema's; how, is told here."""

import tensorflow as tf

from disttrain.gradients import sparse
from tensorboard_plugin import metadata

NAN = float("nan")


def layer_statistics(before, variable, gradient, norm, slots, slot_names):
    """One row of `disttrain/layers`.

    Args:
        before: The variable's value before the update.
        variable: The variable, updated.
        gradient: Its reduced, unscaled gradient before clipping.
        norm: The gradient's L2 norm, a float32 scalar.
        slots: Slot name to variable.
        slot_names: Names of the slot columns; NaN where this variable has no such slot.

    Returns:
        float32 of shape `[statistics]`, in the order of `metadata.layer_statistics`.
    """
    after = tf.cast(variable, tf.float32)
    update = after - tf.cast(before, tf.float32)
    values = tf.cast(sparse.values_of(gradient), tf.float32)
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
        "gradient_max": tf.reduce_max(tf.abs(values)),
        "zero_fraction": 1.0 - tf.math.divide_no_nan(nonzero, size),
        "nonfinite": tf.reduce_sum(tf.cast(~tf.math.is_finite(values), tf.float32)),
        "update_cosine": tf.math.divide_no_nan(-tf.reduce_sum(along * values), update_norm * norm),
    }
    for name in slot_names:
        slot = slots.get(name)
        row[metadata.SLOT_PREFIX + name] = (
            tf.constant(NAN) if slot is None else tf.norm(tf.cast(slot.value, tf.float32))
        )
    return tf.stack([row[s.name] for s in metadata.layer_statistics(slot_names)])


def step_quantities(loss, step, skipped, global_norm):
    """The row of `disttrain/steps`; times are NaN here, for the host alone knows them.

    Args:
        loss: float32 scalar, loss of the global batch.
        step: A `disttrain.optimizers.distributed.Step`.
        skipped: float32 scalar, steps skipped since the last record.
        global_norm: float32 scalar.

    Returns:
        float32 of shape `[quantities]`, in the order of `metadata.STEP_QUANTITIES`.
    """
    values = {
        "loss": loss,
        "learning_rate": step.learning_rate,
        "gradient_norm": global_norm,
        "clip_factor": step.reduced.clip_factor,
        "loss_scale": step.loss_scale,
        "skipped": skipped,
    }
    return tf.stack([values.get(s.name, tf.constant(NAN)) for s in metadata.STEP_QUANTITIES])

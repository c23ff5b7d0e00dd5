"""The statistics of one step, as tensors. Which they are is the schema's; how, is told here."""

import tensorflow as tf

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
    gradient = tf.cast(gradient, tf.float32)
    weight_norm = tf.norm(after)
    update_norm = tf.norm(update)
    values = {
        "weight_norm": weight_norm,
        "gradient_norm": norm,
        "update_norm": update_norm,
        "update_ratio": tf.math.divide_no_nan(update_norm, weight_norm),
        "gradient_max": tf.reduce_max(tf.abs(gradient)),
        "zero_fraction": tf.reduce_mean(tf.cast(gradient == 0, tf.float32)),
        "nonfinite": tf.reduce_sum(tf.cast(~tf.math.is_finite(gradient), tf.float32)),
        "update_cosine": tf.math.divide_no_nan(
            -tf.reduce_sum(update * gradient), update_norm * norm
        ),
    }
    for name in slot_names:
        slot = slots.get(name)
        values[metadata.SLOT_PREFIX + name] = (
            tf.constant(NAN) if slot is None else tf.norm(tf.cast(slot.value, tf.float32))
        )
    return tf.stack([values[s.name] for s in metadata.layer_statistics(slot_names)])


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
        "clip_factor": step.clip_factor,
        "loss_scale": step.loss_scale,
        "skipped": skipped,
    }
    return tf.stack([values.get(s.name, tf.constant(NAN)) for s in metadata.STEP_QUANTITIES])

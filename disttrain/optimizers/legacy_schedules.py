"""Learning rates of Keras 2 as learning rates of Keras 3."""

import keras
import tensorflow as tf

from disttrain.optimizers import legacy_import


@keras.saving.register_keras_serializable("disttrain")
class LegacySchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of `tf_keras` or TensorFlow Addons, for Keras 3 optimizers.

    Args:
        schedule: A `tf_keras.optimizers.schedules.LearningRateSchedule`.
    """

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, step):
        # Keras 2's optimizers hand in floating steps, and Addons relies on that.
        return self.schedule(tf.cast(step, tf.float32))

    def get_config(self):
        serialize = legacy_import.tf_keras().optimizers.schedules.serialize
        return {"schedule": serialize(self.schedule)}

    @classmethod
    def from_config(cls, config):
        schedule = config["schedule"]
        if "Addons>" in f"{schedule.get('registered_name')} {schedule.get('class_name')}":
            from disttrain.optimizers.addons import import_addons

            import_addons()  # It registers its schedules.
        deserialize = legacy_import.tf_keras().optimizers.schedules.deserialize
        return cls(deserialize(schedule))


def is_legacy_schedule(value):
    """Whether `value` is a schedule of `tf_keras`, known by its class so as not to import that."""
    return any(
        base.__name__ == "LearningRateSchedule" and base.__module__.startswith("tf_keras.")
        for base in type(value).__mro__
    )


def as_keras_3(rate):
    """Turns a learning rate of any kind into one that a Keras 3 optimizer takes.

    Args:
        rate: A number, a scalar variable or tensor, a schedule of Keras 2 or 3, or a function
            without arguments.

    Returns:
        A float, a Keras 3 schedule, or a function.

    Raises:
        TypeError: It is something else.
    """
    if is_legacy_schedule(rate):
        return LegacySchedule(rate)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return rate
    if isinstance(rate, dict):
        return as_keras_3(keras.saving.deserialize_keras_object(rate))
    if callable(rate) and not isinstance(rate, (tf.Variable, keras.Variable)):
        return rate
    try:
        return float(rate.numpy() if hasattr(rate, "numpy") else rate)
    except (TypeError, ValueError):
        raise TypeError(
            "the learning rate must be a number, a LearningRateSchedule or a function without "
            f"arguments, not {rate!r}"
        ) from None


def at_step(value, iterations):
    """Turns a schedule for another hyperparameter, such as weight decay, into a function.

    Args:
        value: Anything.
        iterations: A function that returns the number of steps.

    Returns:
        A function without arguments where `value` is a Keras 3 schedule, else `value`.
    """
    if not isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return value
    return lambda: value(iterations())

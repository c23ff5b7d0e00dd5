"""An optimizer of one's own, in Keras's old API and in the style of TensorFlow's core.

python -m disttrain.examples.custom_optimizer
"""

import keras
import numpy as np
import tensorflow as tf

from disttrain.examples import lessons
from disttrain.optimizers import from_legacy
from disttrain.optimizers.legacy_import import tf_keras

RATE, MOMENTUM = 0.05, 0.9


def old_style():
    """Heavy-ball momentum as one wrote it for Keras 2: slots, and one update a variable."""

    class Momentum(tf_keras().optimizers.legacy.Optimizer):
        def __init__(self, learning_rate, momentum, name="Momentum", **options):
            super().__init__(name, **options)
            self._set_hyper("learning_rate", learning_rate)
            self._set_hyper("momentum", momentum)

        def _create_slots(self, var_list):
            for var in var_list:
                self.add_slot(var, "velocity")

        def _resource_apply_dense(self, grad, var, apply_state=None):
            velocity = self.get_slot(var, "velocity")
            rate = self._get_hyper("learning_rate", var.dtype)
            velocity.assign(self._get_hyper("momentum", var.dtype) * velocity - rate * grad)
            return var.assign_add(velocity)

        def get_config(self):
            return {
                **super().get_config(),
                "learning_rate": self._serialize_hyperparameter("learning_rate"),
                "momentum": self._serialize_hyperparameter("momentum"),
            }

    return from_legacy(Momentum(RATE, MOMENTUM))


class CoreMomentum:
    """The same on TensorFlow's core: anything with `apply_gradients(grads, vars)`."""

    def __init__(self, learning_rate, momentum):
        self.learning_rate, self.momentum = learning_rate, momentum
        self.velocities = []

    def build(self, variables):
        self.velocities = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]

    def apply_gradients(self, grads, variables):
        for grad, variable, velocity in zip(grads, variables, self.velocities, strict=True):
            velocity.assign(self.momentum * velocity - self.learning_rate * grad)
            variable.assign_add(velocity)

    def get_config(self):
        return {"learning_rate": float(self.learning_rate), "momentum": self.momentum}


def main(arguments=None):
    lesson = lessons.Lesson(__doc__, arguments, epochs=5)

    def train(optimizer):
        trainer = lesson.trainer(lessons.dense, optimizer)
        trainer.fit(*lesson.train, batch_size=32, epochs=lesson.epochs, verbose=0)
        accuracy = trainer.evaluate(*lesson.validation, batch_size=256)["accuracy"]
        return np.concatenate([w.ravel() for w in trainer.model.get_weights()]), accuracy

    keras_weights, accuracy = train(keras.optimizers.SGD(RATE, momentum=MOMENTUM))
    results = {"accuracy": accuracy}
    lesson.say(f"Keras's own momentum: validation accuracy {accuracy:.2%}")
    makers = {
        "the old API": old_style,
        "TensorFlow's core": lambda: from_legacy(CoreMomentum(RATE, MOMENTUM)),
    }
    for name, make in makers.items():
        weights, accuracy = train(make())
        distance = float(np.abs(weights - keras_weights).max())
        results[name] = distance
        lesson.say(
            f"In {name}: validation accuracy {accuracy:.2%}, weights at most {distance:.1e} from "
            "Keras's"
        )
    return results


if __name__ == "__main__":
    main()

"""The same training written in three ways: by hand, for `Model.fit`, and for `disttrain.Trainer`.

Each gives something that makes n steps when it is called. All read the same `tf.data` input, and
make the same update with the same Keras optimizer.
"""

import math

import keras
import tensorflow as tf

import disttrain
from tests.benchmarks.slices import Slices

#: Steps of the one epoch that slices are cut from.
ENDLESS = 10**9


class ByHand:
    """A loop of one's own around a `tf.function`; nothing waits for a step but the end of a call.

    Args:
        case: A `models.Case`.
        per_call: Steps of one call of the function.
    """

    def __init__(self, case, per_call=1):
        keras.utils.set_random_seed(0)
        self._model = case.build_model()
        self._optimizer = case.optimizer()
        self._optimizer.build(self._model.trainable_variables)
        self._loss = case.loss()
        self._iterator = iter(case.dataset())
        self._per_call = per_call
        self._call = tf.function(self._one if per_call == 1 else self._several, autograph=False)

    def __call__(self, steps):
        for _ in range(math.ceil(steps / self._per_call)):
            loss = self._call(self._iterator)
        float(loss)

    @property
    def iterations(self):
        """Steps so far."""
        return int(self._optimizer.iterations.numpy())

    def weights(self):
        """The weights, a list of NumPy arrays."""
        return self._model.get_weights()

    def _one(self, iterator):
        x, y = next(iterator)
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            loss = self._loss(y, self._model(x, training=True))
        self._optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def _several(self, iterator):
        def body(step, _):
            return step + 1, self._one(iterator)

        start = tf.constant(0), tf.constant(0.0)
        most = self._per_call
        return tf.while_loop(lambda step, _: step < most, body, start, parallel_iterations=1)[1]


def by_keras(case, per_execution=1, scope=None):
    """`Model.fit` as a `Slices`.

    Args:
        case: A `models.Case`.
        per_execution: Its `steps_per_execution`.
        scope: A function that returns the context in which the model is built.
    """

    def train(callback):
        keras.utils.set_random_seed(0)
        with scope() if scope else tf.init_scope():
            model = case.build_model()
            model.compile(case.optimizer(), case.loss(), steps_per_execution=per_execution)
        model.fit(
            case.dataset(), steps_per_epoch=ENDLESS, verbose=0, shuffle=False, callbacks=[callback]
        )

    return Slices(train)


def by_trainer(case, per_execution=1, **options):
    """`Trainer.fit` as a `Slices`.

    Args:
        case: A `models.Case`.
        per_execution: Its `steps_per_execution`.
        **options: Further arguments of `disttrain.Trainer`; no telemetry and one replica by
            default.
    """
    options = {"replication": "single", "telemetry": None, **options}

    def train(callback):
        made = disttrain.Trainer(
            case.build_model,
            optimizer=case.optimizer(),
            loss=case.loss(),
            steps_per_execution=per_execution,
            **options,
        )
        made.fit(
            case.dataset(), steps_per_epoch=ENDLESS, verbose=0, shuffle=False, callbacks=[callback]
        )

    return Slices(train)

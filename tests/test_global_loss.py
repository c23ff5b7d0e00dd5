"""The loss of a model with its own `compute_loss`, and what layers add, is that of one device."""

import keras
import pytest
import tensorflow as tf

from tests._support.tiny_models import (
    WEIGHTS,
    X,
    Y,
    assert_same_numbers,
    assert_same_weights,
    batches,
    compiled,
    trainer_of,
)


class OfKerassExample(keras.Model):
    """As the documentation of `compute_loss` has it, with its own metric and added losses."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.tracker = keras.metrics.Mean(name="tracked")
        self.total = keras.metrics.Sum(name="total")

    def compute_loss(self, x, y, y_pred, sample_weight, training=True):
        # Neither a mean over examples, nor a function of the outputs alone.
        ratio = keras.ops.sum(keras.ops.square(y_pred - y)) / keras.ops.sum(keras.ops.square(y))
        loss = ratio + keras.ops.max(x) * keras.ops.mean(self.layers[-1].kernel ** 2)
        loss += keras.losses.MeanSquaredError()(y, y_pred) + keras.ops.sum(self.losses)
        self.tracker.update_state(loss)
        self.total.update_state(loss)
        return loss


class UsesCompiledLoss(keras.Model):
    """Weighs what Keras computes, and has no argument `training`."""

    def compute_loss(self, x, y, y_pred, sample_weight):
        return 0.5 * super().compute_loss(x, y, y_pred, sample_weight)


def of(kind):
    def build():
        inputs = keras.Input((4,))
        dense = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))
        return kind(inputs, dense(inputs))

    return build


def two_outputs():
    inputs = keras.Input((4,))
    return UsesCompiledLoss(inputs, [keras.layers.Dense(3, name=name)(inputs) for name in "ab"])


#: Name to a model, its data and arguments of `compile`.
OWN = {
    "example": (of(OfKerassExample), (X, Y), {"loss": None, "metrics": ["mae"]}),
    "compiled": (
        of(UsesCompiledLoss),
        (X, Y, WEIGHTS),
        {"loss": "mse", "weighted_metrics": ["mae"]},
    ),
    "two_outputs": (two_outputs, (X, (Y, Y[::-1].copy())), {"loss": ["mse", "mae"]}),
}


@pytest.mark.graph
@pytest.mark.parametrize("case", OWN)
def test_a_models_own_compute_loss_gives_what_it_gives_on_one_device(case, mirrored):
    build, data, options = OWN[case]
    expected = compiled(build, **options)
    history = expected.fit(batches(*data), epochs=2, verbose=0).history
    ours = trainer_of(build, replication=mirrored(3), **options)
    found = ours.fit(batches(*data), epochs=2, verbose=0).history
    assert_same_weights(ours.model, expected)
    # Keras reports the losses of outputs that super().compute_loss has computed.
    history = {name: value for name, value in history.items() if name not in ("a_loss", "b_loss")}
    assert_same_numbers(found, history)
    theirs = expected.evaluate(batches(*data), verbose=0, return_dict=True)
    assert_same_numbers(ours.evaluate(batches(*data)), {name: theirs[name] for name in history})


class NoNumber(keras.Model):
    def compute_loss(self, x, y, y_pred, sample_weight, training=True):
        return keras.ops.square(y - y_pred)


@pytest.mark.graph
def test_a_compute_loss_must_return_a_number():
    with pytest.raises(ValueError, match=r"NoNumber\.compute_loss must return one number.*\(.*3\)"):
        trainer_of(of(NoNumber), loss=None).fit(batches(X, Y), verbose=0)


@pytest.mark.graph
def test_a_layers_loss_of_several_numbers_is_refused_on_several_replicas(mirrored):
    class Adds(keras.layers.Layer):
        def call(self, x):
            self.add_loss(keras.ops.square(x[:, 0]))
            return x

    def build():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Adds()])

    with pytest.raises(ValueError, match=r"added a loss of shape.*keras\.ops\.mean"):
        trainer_of(build, loss="mse", replication=mirrored(2)).fit(batches(X, Y), verbose=0)
    expected = compiled(build, loss="mse")
    expected.fit(batches(X, Y), verbose=0)
    alone = trainer_of(build, loss="mse")
    alone.fit(batches(X, Y), verbose=0)
    assert_same_weights(alone.model, expected)


class SumsAndMeans(keras.layers.Layer):
    """Adds a sum over the examples, as the documentation of `add_loss` does, and a mean."""

    def call(self, x):
        self.add_loss(0.01 * keras.ops.sum(keras.ops.square(x)))
        self.add_loss(keras.ops.mean(keras.ops.abs(x)))
        return x


def sums_and_means():
    dense = keras.layers.Dense(
        3,
        kernel_regularizer=keras.regularizers.L2(0.1),
        activity_regularizer=keras.regularizers.L1(0.1),
    )
    return keras.Sequential([keras.Input((4,)), dense, SumsAndMeans()])


@pytest.mark.graph
def test_added_sums_and_means_and_regularizers_are_counted_once(mirrored):
    expected = compiled(sums_and_means, loss="mse")
    history = expected.fit(batches(X, Y), epochs=2, verbose=0).history
    ours = trainer_of(sums_and_means, loss="mse", replication=mirrored(3))
    assert_same_numbers(ours.fit(batches(X, Y), epochs=2, verbose=0).history, history)
    assert_same_weights(ours.model, expected)


class AddsByItself(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.ops.square(y - y_pred)) + sum(self.losses)


@pytest.mark.graph
def test_added_losses_in_an_own_compute_loss_are_those_of_the_global_batch(mirrored):
    def build():
        layers = sums_and_means()
        return AddsByItself(layers.inputs, layers.outputs[0])

    expected = compiled(build, loss=None)
    history = expected.fit(batches(X, Y), epochs=2, verbose=0).history
    ours = trainer_of(build, loss=None, replication=mirrored(3))
    assert_same_numbers(ours.fit(batches(X, Y), epochs=2, verbose=0).history, history)
    assert_same_weights(ours.model, expected)


@pytest.mark.graph
def test_a_loss_that_needs_other_replicas_is_refused_under_xla():
    from disttrain.global_loss import _Unreachable
    from disttrain.losses import Losses, Rows

    replicas = _Unreachable(
        type("Two", (), dict.fromkeys(("replicas", "replica_index", "as_one_replica"), 2))
    )
    losses = Losses(keras.losses.Dice(), keras.KerasTensor((None, 3), name="only"), ["only"])
    rows = Rows(tf.constant(2.0), tf.constant(4.0))
    with pytest.raises(ValueError, match=r"jit_compile=True.*jit_compile='auto'"):
        losses(tf.ones([2, 3]), tf.ones([2, 3]), None, rows, replicas)

"""Metrics over the replicas are those of one device, whatever a metric returns and keeps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests._support.tiny_models import (
    X,
    Y,
    assert_same_numbers,
    assert_same_weights,
    batches,
    compiled,
    trainer_of,
)

LABELS = np.where(np.arange(10) % 3 == 0, -1, np.arange(10) % 3).astype(np.float32)
TARGETS = np.concatenate([Y, LABELS[:, None]], 1)
WEIGHTS = np.linspace(0.2, 3, 10).astype(np.float32)


def model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, activation="sigmoid")])


def one_number(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred))


def overlap(y_true, y_pred):
    """Not the mean of anything over the examples."""
    return keras.ops.sum(y_true * y_pred) / keras.ops.sum(keras.ops.abs(y_true) + y_pred)


def of_each_column(y_true, y_pred):
    return keras.ops.max(keras.ops.abs(y_true - y_pred), axis=0)


def labelled(y_true, y_pred):
    """Leaves examples out."""
    keep = y_true[:, 3] >= 0
    return tf.abs(tf.boolean_mask(y_true, keep) - tf.boolean_mask(y_pred, keep))[:, 3]


class Ends(keras.metrics.Metric):
    """Returns a dictionary, of a number and an array."""

    def __init__(self, name="ends", **options):
        super().__init__(name=name, **options)
        self.sums = self.add_variable((4,), "zeros", name="sums")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.sums.assign_add(keras.ops.sum(y_pred, axis=0))
        self.count.assign_add(keras.ops.cast(keras.ops.shape(y_pred)[0], "float32"))

    def result(self):
        means = self.sums / self.count
        return {"first_end": means[0], "means": means}


def metrics():
    loss = keras.losses.MeanSquaredError(name="a_loss")
    return [one_number, overlap, of_each_column, labelled, loss, keras.losses.Dice(), Ends()]


@pytest.mark.graph
def test_metrics_are_those_of_one_device(mirrored):
    data = batches(X, TARGETS, WEIGHTS)
    options = {"loss": "mse", "weighted_metrics": ["mae"]}
    expected = compiled(model, metrics=metrics(), **options)
    history = expected.fit(data, epochs=2, verbose=0).history
    ours = trainer_of(model, metrics=metrics, replication=mirrored(3), **options)
    found = ours.fit(data, epochs=2, verbose=0).history
    for key in history:
        np.testing.assert_allclose(found[key], np.asarray(history[key]), rtol=1e-5, err_msg=key)
    assert set(found) == set(history)
    theirs = expected.evaluate(data, verbose=0, return_dict=True)
    theirs |= theirs.pop("ends", {})
    assert_same_numbers(ours.evaluate(data), theirs)


class Largest(keras.metrics.Metric):
    """A running maximum, which is no sum."""

    def __init__(self, aggregation="sum", name="largest", **options):
        super().__init__(name=name, **options)
        self.aggregation = aggregation
        self.largest = self.add_variable((), "zeros", aggregation=aggregation, name="largest")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.largest.assign(keras.ops.maximum(self.largest, keras.ops.max(y_pred)))

    def result(self):
        return self.largest + 0.0


@pytest.mark.graph
def test_a_state_that_is_no_sum_is_refused_on_several_replicas(mirrored):
    data = batches(X, TARGETS)
    several = trainer_of(model, loss="mse", metrics=lambda: [Largest()], replication=mirrored(2))
    with pytest.raises(ValueError, match=r"'largest' is not a sum.*aggregation=.*single"):
        several.fit(data, verbose=0)
    alone = trainer_of(model, loss="mse", metrics=lambda: [Largest()])
    assert alone.evaluate(data)["largest"] == pytest.approx(alone.model(X).numpy().max())


@pytest.mark.graph
def test_a_metric_says_how_its_states_go_together(mirrored):
    metrics = lambda: [Largest("mean")]  # noqa: E731
    made = trainer_of(model, loss="mse", metrics=metrics, replication=mirrored(2))
    parts = made.evaluate(batches(X[:8], TARGETS[:8], size=8))["largest"]
    outputs = made.model(X[:8]).numpy()
    assert parts == pytest.approx((outputs[:4].max() + outputs[4:].max()) / 2)


class Watched(keras.layers.Layer):
    """Adds a loss that Keras scales for a strategy, and keeps means of it and of its input."""

    def __init__(self):
        super().__init__()
        self.added = keras.metrics.Mean(name="added")
        self.inputs = keras.metrics.Mean(name="inputs")

    def call(self, x):
        loss = keras.losses.MeanSquaredError()(keras.ops.zeros_like(x), x)
        self.add_loss(loss)
        self.added.update_state(loss)
        self.inputs.update_state(x[:, 0])
        return x


def watched():
    dense = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))
    return keras.Sequential([keras.Input((4,)), dense, Watched()])


@pytest.mark.graph
def test_metrics_and_losses_of_layers_are_those_of_one_device(mirrored):
    expected = compiled(watched, loss="mse")
    history = expected.fit(batches(X, Y), epochs=2, verbose=0).history
    ours = trainer_of(watched, loss="mse", replication=mirrored(3))
    assert_same_numbers(ours.fit(batches(X, Y), epochs=2, verbose=0).history, history)
    assert_same_weights(ours.model, expected)
    theirs = expected.evaluate(batches(X, Y), verbose=0, return_dict=True)
    assert_same_numbers(ours.evaluate(batches(X, Y)), theirs)

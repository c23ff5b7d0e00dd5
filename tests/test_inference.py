"""`evaluate`, `predict` and the methods for one batch do what those of Keras do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain import fingerprints
from tests._support.threaded_processes import together
from tests._support.tiny_models import (
    CLOSE,
    LABELS,
    WEIGHTS,
    X,
    Y,
    assert_same_numbers,
    assert_same_weights,
    batches,
    compiled,
    dense,
    sgd,
    trainer_of,
)

pytestmark = pytest.mark.graph


def two_outputs():
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(3, name="b")(inputs), keras.layers.Dense(3, name="a")(inputs)]
    return keras.Model(inputs, outputs)


class Note(keras.callbacks.Callback):
    """Notes what a callback is told."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.seen, self._stop_after = [], stop_after

    def on_test_begin(self, logs=None):
        self.seen.append(("test begins", {}))

    def on_test_batch_begin(self, batch, logs=None):
        self.seen.append((f"begin {batch}", {}))

    def on_test_batch_end(self, batch, logs=None):
        self.seen.append((f"end {batch}", dict(logs)))
        self.model.stop_evaluating = batch == self._stop_after

    def on_test_end(self, logs=None):
        self.seen.append(("test ends", dict(logs)))

    def on_predict_begin(self, logs=None):
        self.seen.append(("predict begins", {}))

    def on_predict_batch_begin(self, batch, logs=None):
        self.seen.append((f"begin {batch}", {}))

    def on_predict_batch_end(self, batch, logs=None):
        self.seen.append((f"end {batch}", dict(logs)))
        self.model.stop_predicting = batch == self._stop_after

    def on_predict_end(self, logs=None):
        self.seen.append(("predict ends", {}))


def assert_same_notes(ours, theirs):
    assert [what for what, _ in ours.seen] == [what for what, _ in theirs.seen]
    for (_, logs), (_, expected) in zip(ours.seen, theirs.seen, strict=True):
        assert_same_numbers(logs, expected)


@pytest.mark.parametrize(
    ("stop_after", "replicas"), [(None, 1), (1, 2)], ids=["to the end", "stopped, 2 replicas"]
)
def test_callbacks_see_in_each_batch_what_keras_shows_them(stop_after, replicas, mirrored):
    replication = "single" if replicas == 1 else mirrored(2)
    model, theirs = compiled(metrics=["accuracy"]), Note(stop_after)
    trainer, ours = trainer_of(metrics=["accuracy"], replication=replication), Note(stop_after)
    options = {"batch_size": 4, "verbose": 0}
    expected = model.evaluate(X, LABELS, callbacks=[theirs], return_dict=True, **options)
    assert_same_numbers(trainer.evaluate(X, LABELS, callbacks=[ours], **options), expected)
    expected = model.predict(X, callbacks=[theirs], **options)
    found = trainer.predict(X, callbacks=ours, **options)
    np.testing.assert_allclose(found, expected, **CLOSE)
    assert_same_notes(ours, theirs)


def test_a_validation_shows_its_batches_to_the_callbacks_of_fit():
    model, theirs = compiled(metrics=["accuracy"]), Note()
    trainer, ours = trainer_of(metrics=["accuracy"]), Note()
    options = {"validation_data": (X, LABELS), "batch_size": 4, "shuffle": False, "verbose": 0}
    model.fit(X, LABELS, callbacks=[theirs], **options)
    trainer.fit(X, LABELS, callbacks=[ours], **options)
    assert_same_notes(ours, theirs)


def test_evaluate_returns_a_list_in_the_order_of_keras():
    loss, metrics = ["mse", "mae"], [["mse", "mae"], ["mae"]]
    y = [Y, Y + 1]
    model = compiled(two_outputs, loss=loss, metrics=metrics)
    trainer = trainer_of(two_outputs, loss=loss, metrics=metrics)
    found = trainer.evaluate(X, y, return_dict=False)
    np.testing.assert_allclose(found, model.evaluate(X, y, verbose=0), **CLOSE)
    alone, plain = trainer_of(), compiled()
    expected = plain.evaluate(X, LABELS, verbose=0)
    np.testing.assert_allclose(alone.evaluate(X, LABELS, return_dict=False), expected, **CLOSE)


@pytest.mark.parametrize("replicas", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_batches_by_hand_train_and_evaluate_as_in_keras(replicas, mirrored):
    replication = "single" if replicas == 1 else mirrored(2)
    options = {"loss": "mse", "metrics": ["mae"], "optimizer": lambda: sgd(0.1, momentum=0.9)}
    model = compiled(**{**options, "optimizer": options["optimizer"]()})
    trainer = trainer_of(
        replication=replication, **{**options, "optimizer": sgd(0.1, momentum=0.9)}
    )
    for rows in (slice(0, 4), slice(4, 10), slice(3, 6)):
        x, y, w = X[rows], Y[rows], WEIGHTS[rows]
        found = trainer.train_on_batch(x, y, sample_weight=w)
        np.testing.assert_allclose(found, model.train_on_batch(x, y, sample_weight=w), **CLOSE)
        found = trainer.test_on_batch(x, y, return_dict=True)
        assert_same_numbers(found, model.test_on_batch(x, y, return_dict=True))
        np.testing.assert_allclose(trainer.predict_on_batch(x), model.predict_on_batch(x), **CLOSE)
    assert_same_weights(trainer.model, model)
    assert trainer._log.steps_done == 3


def test_a_batch_by_hand_takes_class_weights():
    model, trainer = compiled(), trainer_of()
    weight = {0: 2.0, 2: 0.5}
    expected = model.train_on_batch(X, LABELS, class_weight=weight)
    assert trainer.train_on_batch(X, LABELS, class_weight=weight) == pytest.approx(expected)
    assert_same_weights(trainer.model, model)


def test_a_batch_by_hand_does_not_accumulate():
    with pytest.raises(ValueError, match=r"accumulate_steps=2; use fit"):
        trainer_of(accumulate_steps=2).train_on_batch(X, LABELS)


def sequences():
    rng = np.random.default_rng(1)
    data = [rng.normal(size=(rows, steps, 4)).astype("f4") for rows, steps in [(3, 2), (2, 5)]]
    spec = tf.TensorSpec([None, None, 4])
    return tf.data.Dataset.from_generator(lambda: iter(data), output_signature=spec)


def any_length():
    return keras.Sequential([keras.Input((None, 4)), keras.layers.Dense(3)])


def test_predictions_of_different_lengths_are_ragged_as_in_keras(one_or_two):
    model = compiled(any_length)
    trainer = trainer_of(any_length, replication=one_or_two)
    found, expected = trainer.predict(sequences()), model.predict(sequences(), verbose=0)
    assert isinstance(found, tf.RaggedTensor)
    assert found.shape.as_list() == expected.shape.as_list()
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE)


def test_a_prediction_of_fixed_batches_follows_one_of_arrays(mirrored):
    trainer = trainer_of(replication=mirrored(2))
    fixed = tf.data.Dataset.from_tensor_slices(X[:8]).batch(4, drop_remainder=True)
    np.testing.assert_allclose(trainer.predict(X)[:8], trainer.predict(fixed), **CLOSE)


@pytest.mark.parametrize("work", ["evaluate", "predict"])
@pytest.mark.parametrize(("verbose", "lines"), [("auto", 0), (0, 0), (1, 1), (2, 1)])
def test_verbose_chooses_what_is_printed(work, verbose, lines, capsys):
    trainer = trainer_of(metrics=["accuracy"])
    data = (X, LABELS) if work == "evaluate" else (X,)
    capsys.readouterr()
    getattr(trainer, work)(*data, verbose=verbose)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    assert not lines or ("accuracy" in printed[0]) == (work == "evaluate")


def test_a_wrong_verbose_is_named():
    with pytest.raises(ValueError, match=r"verbose must be 'auto', 0, 1 or 2, not 7"):
        trainer_of().evaluate(X, LABELS, verbose=7)


def test_processes_that_evaluate_different_batches_are_found():
    orders = [[3.0, 4.0, 5.0], [4.0, 3.0, 5.0]]

    class Process:
        def __init__(self, one):
            self.topology, self._one = one.topology, one

        def agree(self, array):
            gathered = self._one.all_gather(array)
            return bool((gathered == gathered[:1]).all())

    def read(one, numbers):
        order = fingerprints.ReadOrder(Process(one), shared=True)
        for number in numbers:
            order.note({"fingerprint": tf.constant(number)})
        try:
            order.check()
        except RuntimeError as error:
            return str(error)
        return ""

    for error in together(2, lambda one: read(one, orders[one.topology.process])):
        assert "different batches" in error
    assert together(2, lambda one: read(one, orders[0])) == ["", ""]


def test_a_data_set_may_hold_targets_where_it_is_predicted():
    trainer = trainer_of(dense)
    np.testing.assert_allclose(trainer.predict(batches(X, LABELS)), trainer.predict(X), **CLOSE)

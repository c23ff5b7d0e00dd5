"""Epochs and trainings are as long as Keras's, which warns where the data end."""

import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain.data import limits, make_feed
from disttrain.replication import Topology
from tests._support.covering import product
from tests._support.tiny_models import (
    LABELS,
    X,
    assert_same_numbers,
    assert_same_weights,
    batches,
    compiled,
    trainer_of,
)

#: 10 examples in batches of 4: three batches, the last one of two examples.
DATA = {
    "arrays": lambda: ((X, LABELS), {"batch_size": 4}),
    "dataset": lambda: ((batches(X, LABELS),), {}),
    "unknown length": lambda: ((batches(X, LABELS).filter(lambda x, y: True),), {}),
}


def fit(model, kind, **options):
    given, more = DATA[kind]()
    return model.fit(*given, shuffle=False, verbose=0, **more, **options)


@pytest.fixture
def keras_limits():
    yield
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


@pytest.mark.graph
@pytest.mark.parametrize(
    ("kind", "steps", "replicas"), product(kind=DATA, steps=[2, 5], replicas=[1, 2])
)
def test_finite_data_are_not_repeated_for_steps_per_epoch(kind, steps, replicas, mirrored):
    trainer = trainer_of(replication=mirrored(2) if replicas == 2 else "single")
    ended = {2: 1, 5: 3}[steps]
    with pytest.warns(UserWarning, match=rf"ended after {ended} of steps_per_epoch={steps} "):
        ours = fit(trainer, kind, epochs=3, steps_per_epoch=steps)
    model = compiled()
    with pytest.warns(UserWarning, match="ran out of data"):
        theirs = fit(model, kind, epochs=3, steps_per_epoch=steps)
    expected = {2: 5, 5: 9}[steps]
    assert int(trainer.optimizer.iterations.numpy()) == expected
    # Where Keras does not know the length, it ends an epoch with an update without data.
    assert kind == "unknown length" or int(model.optimizer.iterations.numpy()) == expected
    assert_same_weights(trainer.model, model)
    assert_same_numbers(ours.history, theirs.history)


@pytest.mark.graph
@pytest.mark.parametrize("kind", DATA)
def test_steps_that_divide_the_data_start_the_next_pass_without_a_warning(kind, recwarn):
    trainer = trainer_of()
    fit(trainer, kind, epochs=2, steps_per_epoch=3)
    model = compiled()
    fit(model, "arrays", epochs=2)
    assert_same_weights(trainer.model, model)
    assert not [w for w in recwarn if "ended" in str(w.message)]


@pytest.mark.graph
def test_a_pass_that_continues_over_epochs_is_shuffled_again_when_the_data_begin_again():
    seen = []

    def build():
        layer = keras.layers.Lambda(
            lambda x: tf.ensure_shape(tf.numpy_function(note, [x], tf.float32), [None, 1]),
            output_shape=(1,),
        )
        return keras.Sequential([keras.Input((1,)), layer, keras.layers.Dense(1)])

    def note(x):
        seen.append(x[:, 0].astype(int).tolist())
        return x

    rows = np.arange(8, dtype=np.float32)[:, None]
    trainer = trainer_of(build, loss="mse")
    trainer.fit(rows, rows, batch_size=2, steps_per_epoch=2, epochs=4, verbose=0)
    first, second = (list(itertools.chain(*half)) for half in (seen[:4], seen[4:]))
    assert sorted(first) == sorted(second) == list(range(8))
    assert first != second


@pytest.mark.graph
def test_an_evaluation_and_a_prediction_end_with_the_data(one_or_two):
    trainer = trainer_of(replication=one_or_two, metrics=["accuracy"])
    whole, outputs = trainer.evaluate(batches(X, LABELS)), trainer.predict(batches(X))
    with pytest.warns(UserWarning, match=r"ended after 3 of steps=7 batches.*at least steps batch"):
        assert_same_numbers(trainer.evaluate(batches(X, LABELS), steps=7), whole)
    with pytest.warns(UserWarning, match=r"ended after 3 of steps=7"):
        np.testing.assert_array_equal(trainer.predict(batches(X), steps=7), outputs)
    data = batches(X, LABELS)
    with pytest.warns(UserWarning, match=r"ended after 3 of validation_steps=4"):
        trainer.fit(data, validation_data=data, validation_steps=4, verbose=0)


@pytest.mark.graph
def test_keras_s_limits_are_kept(keras_limits):
    model, trainer = compiled(), trainer_of()
    whole = trainer.evaluate(batches(X[:8], LABELS[:8]))
    keras.config.set_max_epochs(2)
    keras.config.set_max_steps_per_epoch(2)
    with pytest.warns(UserWarning, match=r"max_epochs\(\) limits epochs=3 to 2"):
        ours = fit(trainer_of(), "dataset", epochs=3)
    with pytest.warns(UserWarning, match="Limiting"):
        theirs = fit(model, "dataset", epochs=3)
    assert ours.epoch == theirs.epoch == [0, 1]
    assert_same_numbers(ours.history, theirs.history)
    with pytest.warns(UserWarning, match=r"max_steps_per_epoch\(\) limits an epoch to 2 steps"):
        assert_same_numbers(trainer.evaluate(batches(X, LABELS)), whole)
    with pytest.warns(UserWarning, match="limits"):
        assert len(trainer.predict(batches(X))) == 8


@pytest.mark.graph
def test_limits_above_what_is_there_change_nothing(keras_limits):
    keras.config.set_max_epochs(9)
    keras.config.set_max_steps_per_epoch(9)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert limits.limit_epochs(3) == 3
        feed = limits.limit_steps(
            lambda steps: make_feed(X, Topology(), batch_size=4, steps=steps), None
        )
    assert (feed.steps, feed.endless) == (3, False)


@pytest.mark.unit
@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_a_number_of_steps_that_is_none_is_named(steps):
    with pytest.raises(ValueError, match=rf"validation_steps must be.*not {steps}"):
        limits.check_steps(steps, "validation_steps")


@pytest.mark.graph
def test_parts_of_unknown_length_are_repeated_with_a_warning_where_processes_cannot_agree():
    def read(context):
        return batches(X, LABELS).filter(lambda x, y: True)

    topology = Topology(processes=2)
    with pytest.warns(UserWarning, match=r"does not report its length.*assert_cardinality"):
        feed = make_feed(read, topology, steps=5, all_gather=lambda own: np.stack([own, own]))
    assert len(list(feed.dataset(0).take(5))) == 5
    alone = make_feed(read, Topology(), steps=5)
    assert len(list(alone.dataset(0).take(5))) == 3


@pytest.mark.graph
def test_parts_of_known_length_end_together():
    codes = lambda own: np.asarray([int(own), 4])  # noqa: E731
    read = lambda context: batches(X, LABELS)  # noqa: E731
    feed = make_feed(read, Topology(processes=2), steps=9, all_gather=codes)
    assert feed.length == len(list(feed.dataset(0))) == 4
    assert len(list(feed.dataset(0, 3))) == 1
    assert list(feed.steps_of(2)) == [4, 4]


@pytest.mark.graph
def test_the_steps_of_epochs_follow_from_the_length_of_the_data():
    feed = make_feed(X, Topology(), batch_size=4, steps=2)
    assert list(feed.steps_of(5)) == [2, 1, 2, 1, 2]
    assert list(make_feed(X, Topology(), batch_size=4).steps_of(2)) == [3, 3]
    unknown = make_feed(DATA["unknown length"]()[0][0], Topology(), steps=2)
    assert list(unknown.steps_of(2)) == [2, 2]

"""A `PyDataset` trains as in Keras, in an order that a resumed training finds again."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.data import make_feed
from disttrain.replication import Topology
from tests._support.tiny_models import (
    LABELS,
    WEIGHTS,
    X,
    assert_same_numbers,
    assert_same_weights,
    compiled,
    trainer_of,
)

pytestmark = pytest.mark.graph


class Rows(keras.utils.PyDataset):
    """Ten examples in batches of 4."""

    def __init__(self, *arrays, **options):
        super().__init__(**options)
        self.arrays, self.hooks, self.first = arrays or (X, LABELS), [], 0

    def __len__(self):
        return 3

    def __getitem__(self, number):
        rows = (np.arange(4 * number, min(4 * number + 4, 10)) + self.first) % 10
        return tuple(array[rows] for array in self.arrays)

    def on_epoch_begin(self):
        self.hooks.append("begin")

    def on_epoch_end(self):
        self.hooks.append("end")
        self.first += 3


class Endless(Rows):
    __len__ = None

    @property
    def num_batches(self):
        return None

    def __getitem__(self, number):
        return super().__getitem__(number % 3)


def numbers_read(feed, epoch, taken=0):
    """The first example of each batch."""
    elements = map(feed.divide, feed.dataset(epoch, taken))
    return [int(element["parts"][0][0][0]) for element in elements]


@pytest.mark.parametrize(
    ("arrays", "replicas"),
    [pytest.param((X, LABELS), 1, marks=pytest.mark.exhaustive), ((X, LABELS, WEIGHTS), 2)],
    ids=["plain", "weighted"],
)
def test_batches_and_hooks_come_as_in_keras(arrays, replicas, mirrored):
    replication = mirrored(2) if replicas == 2 else "single"
    options = {"epochs": 3, "shuffle": False, "verbose": 0}
    theirs, model = Rows(*arrays), compiled(metrics=["accuracy"])
    expected = model.fit(theirs, validation_data=Rows(*arrays), **options)
    ours, trainer = Rows(*arrays), trainer_of(metrics=["accuracy"], replication=replication)
    found = trainer.fit(ours, validation_data=Rows(*arrays), **options)
    assert ours.hooks == theirs.hooks
    assert_same_weights(trainer.model, model)
    assert_same_numbers(found.history, expected.history)


def test_evaluate_and_predict_read_in_order():
    trainer, arrays = trainer_of(), (X, LABELS)
    expected = trainer.evaluate(*arrays, batch_size=4), trainer.predict(X, batch_size=4)
    assert_same_numbers(trainer.evaluate(Rows(workers=2)), expected[0])
    read = Rows(X, LABELS)
    read.first = 7  # What Keras calls before the first epoch makes it 10.
    np.testing.assert_allclose(trainer.predict(read), expected[1], rtol=1e-6)


def test_class_weights_are_those_of_keras():
    options = {"shuffle": False, "verbose": 0, "class_weight": {0: 3.0}}
    model, trainer = compiled(), trainer_of()
    model.fit(Rows(), **options)
    trainer.fit(Rows(), **options)
    assert_same_weights(trainer.model, model)


@pytest.mark.parametrize(
    "options",
    [{}, {"workers": 3}, {"workers": 2, "max_queue_size": 1}],
    ids=["alone", "threads", "short queue"],
)
def test_the_order_follows_from_the_seed_and_the_epoch(options):
    rows = np.arange(10, dtype=np.int32)
    feed = make_feed(Rows(rows, **options), Topology(), shuffle=True, seed=5)
    for epoch in (0, 3, 0):
        order = np.random.default_rng([5, epoch]).permutation(3)
        assert numbers_read(feed, epoch) == (4 * order).tolist()
        assert numbers_read(feed, epoch, 2) == (4 * order[2:]).tolist()
    assert (feed.length, feed.numbered) == (3, True)


def test_an_endless_one_needs_steps_and_continues():
    with pytest.raises(ValueError, match=r"no end.*steps_per_epoch"):
        trainer_of().fit(Endless())
    feed = make_feed(Endless(np.arange(10)), Topology(), shuffle=True, steps=2)
    taken = [int(element[0][0]) for element in feed.dataset(0, 1).take(4)]
    assert taken == [4, 8, 0, 4]


def test_a_step_of_several_processes_compares_what_they_read():
    feed = make_feed(Rows(), Topology(processes=2))
    prints = [float(feed.divide(element)["fingerprint"]) for element in feed.dataset(0)]
    assert len(set(prints)) == 3


def test_a_resumed_training_is_the_one_that_would_have_been(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if len(data.hooks) >= 4 and batch == 2:
                raise KeyboardInterrupt

    def fit(made, data, callbacks=()):
        made.fit(data, epochs=3, verbose=0, callbacks=list(callbacks))
        return made.model

    whole = fit(trainer_of(), Rows())
    kept = {"checkpoint": disttrain.Checkpoint(tmp_path, every_steps=1)}
    data = Rows()
    with pytest.raises(KeyboardInterrupt):
        fit(trainer_of(**kept), data, [Stop()])
    resumed = trainer_of(**kept)
    assert_same_weights(fit(resumed, Rows()), whole)
    assert int(resumed.optimizer.iterations.numpy()) == 9


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((1.0, 2.0), ValueError, r"Wrong does not yield batches.*axis of examples"),
        ((X, X, X, X), ValueError, r"Wrong yields 4 parts"),
        (({"a": X, "b": object()},), TypeError, r"Wrong yields a object, which is no array"),
    ],
    ids=["scalars", "four", "object"],
)
def test_batches_that_are_none_are_named(batch, error, message):
    class Wrong(Rows):
        def __getitem__(self, number):
            return batch

    with pytest.raises(error, match=message):
        make_feed(Wrong(), Topology())


def test_a_changed_number_of_batches_is_named():
    class Growing(Rows):
        def __len__(self):
            return 3 + len(self.hooks)

    with pytest.raises(ValueError, match=r"Growing had 3 batches and now has 5"):
        trainer_of().fit(Growing(), verbose=0)


def test_an_empty_one_is_named():
    class Empty(Rows):
        def __len__(self):
            return 0

    with pytest.raises(ValueError, match=r"Empty is empty"):
        make_feed(Empty(), Topology())


def test_targets_come_from_the_data_set_itself():
    for options in ({"y": LABELS}, {"batch_size": 2}):
        with pytest.raises(ValueError, match=r"PyDataset itself"):
            make_feed(Rows(), Topology(), **options)


def test_batches_may_be_dictionaries_lists_and_tensors():
    class Mixed(Rows):
        def __getitem__(self, number):
            return [{"a": tf.constant(X[:4]), "b": X[:4]}, LABELS[:4], None]

    feed = make_feed(Mixed(), Topology())
    assert tf.nest.map_structure(lambda leaf: leaf.shape.as_list(), feed.spec) == (
        {"a": [None, 4], "b": [None, 4]},
        [None],
    )

"""Generators and objects such as a PyTorch `DataLoader` train as in Keras."""

import gc
import warnings
import weakref

import numpy as np
import pytest

import disttrain
from disttrain.data import iterables, make_feed
from disttrain.replication import Topology
from tests._support.tiny_models import (
    LABELS,
    WEIGHTS,
    X,
    assert_same_numbers,
    assert_same_weights,
    batches,
    compiled,
    trainer_of,
)

pytestmark = pytest.mark.graph

ROWS = [slice(0, 4), slice(4, 8), slice(8, 10)]


def generator(passes=1, arrays=(X, LABELS)):
    for _ in range(passes):
        for rows in ROWS:
            yield tuple(array[rows] for array in arrays)


class Loader:
    """What a PyTorch `DataLoader` looks like from outside."""

    class Tensor:
        def __init__(self, array):
            self._array = array

        def detach(self):
            return self

        cpu = detach

        def numpy(self):
            return self._array

    def __init__(self, length=3):
        self._length = length

    def __len__(self):
        if self._length is None:
            raise TypeError("object of type 'Stream' has no len()")
        return self._length

    def __iter__(self):
        return ([self.Tensor(array[rows]) for array in (X, LABELS)] for rows in ROWS)


@pytest.fixture(scope="module")
def two_epochs():
    """`(model, history)` of Keras."""
    model = compiled(metrics=["accuracy"])
    options = {"epochs": 2, "shuffle": False, "verbose": 0}
    return model, model.fit(X, LABELS, batch_size=4, validation_data=(X, LABELS), **options)


FEEDS = {
    "generator": lambda: (generator(2), {"steps_per_epoch": 3}),
    "loader": lambda: (Loader(), {}),
    "stream": lambda: (Loader(None), {}),
}


@pytest.mark.parametrize(("kind", "replicas"), [("generator", 2), ("loader", 2), ("stream", 1)])
def test_they_train_and_validate_like_the_same_arrays(kind, replicas, two_epochs, mirrored):
    replication = mirrored(2) if replicas == 2 else "single"
    trainer = trainer_of(metrics=["accuracy"], replication=replication)
    data, options = FEEDS[kind]()
    validation, _ = FEEDS[kind]()
    if kind == "generator":
        options["validation_steps"] = 3
    history = trainer.fit(data, epochs=2, validation_data=validation, verbose=0, **options)
    model, expected = two_epochs
    assert_same_weights(trainer.model, model)
    assert_same_numbers(history.history, expected.history)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_generator_is_read_no_further_than_it_is_used(replicas, mirrored):
    trainer = trainer_of(replication=mirrored(2) if replicas == 2 else "single")
    one_by_one = generator()
    for rows in ROWS:
        found = trainer.evaluate(one_by_one, steps=1)
        assert_same_numbers(found, trainer.evaluate(X[rows], LABELS[rows]))
    with pytest.raises(ValueError, match="generator is empty"):
        trainer.evaluate(one_by_one, steps=1)


def test_what_was_peeked_at_is_forgotten_with_its_generator():
    made = generator()
    reader = iterables._OnePass(made)
    assert len(reader.peek(2)) == len(iterables._OnePass(made).peek(2)) == 2
    gone, before = weakref.ref(made), len(iterables._peeked)
    del made, reader
    gc.collect()
    assert gone() is None
    assert len(iterables._peeked) == before - 1


@pytest.mark.parametrize(("batches", "epochs"), [(5, 2), (3, 1), (6, 2)])
def test_a_generator_that_ends_ends_the_training(batches, epochs):
    trainer = trainer_of()
    data = (one for one, _ in zip(generator(3), range(batches), strict=False))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        history = trainer.fit(data, steps_per_epoch=3, epochs=4, verbose=0)
    assert int(trainer.optimizer.iterations.numpy()) == batches
    assert history.epoch == list(range(epochs))
    assert any("data ended after" in str(one.message) for one in warned)


def test_a_generator_without_steps_is_read_once():
    trainer = trainer_of()
    trainer.fit(generator(), verbose=0)
    assert int(trainer.optimizer.iterations.numpy()) == 3
    with pytest.raises(ValueError, match=r"several epochs reads the data 2 times.*steps_per_epoch"):
        trainer.fit(generator(2), epochs=2)
    with pytest.raises(ValueError, match=r"validation.*2 times.*validation_steps"):
        trainer.fit(batches(X, LABELS), validation_data=generator(2), epochs=2)
    with pytest.raises(ValueError, match=r"range test.*generator can be read only once"):
        trainer.lr_range(generator())


def test_weights_come_with_the_batches_or_from_the_classes():
    model = compiled()
    model.fit(X, LABELS, sample_weight=WEIGHTS, batch_size=4, shuffle=False, verbose=0)
    trainer = trainer_of()
    trainer.fit(generator(arrays=(X, LABELS, WEIGHTS)), verbose=0)
    assert_same_weights(trainer.model, model)
    model = compiled()
    options = {"class_weight": {1: 4.0}, "verbose": 0}
    model.fit(X, LABELS, batch_size=4, shuffle=False, **options)
    trainer = trainer_of()
    trainer.fit(generator(), **options)
    assert_same_weights(trainer.model, model)


def test_a_resumed_training_reads_up_to_its_place_and_warns(tmp_path):
    def fit(passes, epochs, **kept):
        made = trainer_of(**kept)
        made.fit(generator(passes), steps_per_epoch=2, epochs=epochs, verbose=0)
        return made

    kept = {"checkpoint": disttrain.Checkpoint(tmp_path, every_steps=1)}
    fit(2, 2, **kept)
    with pytest.warns(UserWarning, match=r"generator, whose position cannot be restored"):
        resumed = fit(2, 3, **kept)
    assert_same_weights(resumed.model, fit(2, 3).model)


def test_processes_compare_what_they_have_read():
    feed = make_feed(generator(), Topology(processes=2))
    prints = [float(feed.divide(element)["fingerprint"]) for element in feed.dataset(0)]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(4, 2), (4, 2), (4, 3)], r"shape \(4, 3\) where the first two batches have \(None, 2\)"),
        ([(4, 2), (4, 2, 1)], r"different ranks"),
    ],
)
def test_batches_that_do_not_fit_are_named(shapes, message):
    with pytest.raises(Exception, match=message):
        list(make_feed((np.zeros(shape) for shape in shapes), Topology()).dataset(0))


def test_axes_on_which_the_first_two_batches_differ_may_have_any_size():
    shapes = [(4, 2), (3, 5), (1, 7)]
    feed = make_feed((np.zeros(shape) for shape in shapes), Topology())
    assert [tuple(element[0].shape) for element in feed.dataset(0)] == shapes


def test_structures_that_change_are_named():
    given = iter([(X[:4], LABELS[:4]), (X[:4],)])
    with pytest.raises(ValueError, match=r"different structures: .*\(4, 4\)"):
        make_feed(given, Topology())


def test_validation_split_goes_with_arrays_alone():
    with pytest.raises(ValueError, match=r"validation_split=0\.2 goes with arrays.*generator"):
        trainer_of().fit(generator(), validation_split=0.2)

"""Iterators end where nobody waits for them."""

import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain import Trainer, batches
from tests._support.timeouts import TIMEOUT

#: Seconds after which a test that would hang goes on, and fails.


class Slow:
    """Batches for ever, from a generator whose end waits until it is told to go on."""

    def __init__(self):
        self.may_end = threading.Event()
        self.ended = threading.Event()
        spec = (tf.TensorSpec([4, 3]), tf.TensorSpec([4, 1]))
        self.dataset = tf.data.Dataset.from_generator(self._generate, output_signature=spec)

    def _generate(self):
        try:
            while True:
                yield np.ones([4, 3], np.float32), np.ones([4, 1], np.float32)
        finally:
            self.may_end.wait(TIMEOUT)
            self.ended.set()


@pytest.fixture
def slow():
    made = Slow()
    yield made
    made.may_end.set()
    assert made.ended.wait(TIMEOUT), "the iterator has never ended"


def model():
    return keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])


@pytest.mark.graph
def test_the_end_of_an_iterator_holds_nobody_up(slow):
    held = [iter(slow.dataset)]
    next(held[0])
    batches.let_go(held)
    assert not slow.ended.is_set()
    slow.may_end.set()
    assert slow.ended.wait(TIMEOUT)


@pytest.mark.unit
def test_an_iterator_that_ends_at_once_has_ended_when_it_is_let_go():
    class Iterator:
        pass

    held = [Iterator()]
    gone = weakref.ref(held[0])
    batches.let_go(held)
    assert gone() is None


@pytest.mark.graph
@pytest.mark.parametrize(
    "work",
    [
        lambda trainer, data: trainer.fit(data, steps_per_epoch=2, epochs=2, verbose=0),
        lambda trainer, data: trainer.evaluate(data, steps=2),
        lambda trainer, data: trainer.predict(data, steps=2),
        lambda trainer, data: trainer.lr_range(data, steps_per_epoch=2, steps=10),
    ],
    ids=["fit", "evaluate", "predict", "lr_range"],
)
def test_what_reads_data_does_not_wait_for_the_end_of_its_iterator(slow, work):
    trainer = Trainer(model, optimizer="adam", loss="mse", replication="single", telemetry=None)
    work(trainer, slow.dataset)
    assert not slow.ended.is_set()


@pytest.mark.unit
def test_an_epoch_does_not_wait_for_the_iterator_of_the_last():
    """Each epoch reads a new pass here, and the end of the first pass takes for ever."""
    ending, may_end, ended = threading.Event(), threading.Event(), threading.Event()
    made = []

    class Iterator:
        def __iter__(self):
            return self

        def __next__(self):
            raise StopIteration

        def __del__(self):
            ending.set()
            may_end.wait(TIMEOUT)
            ended.set()

    class Feed:
        endless = is_finite = False

        def begin_epoch(self):
            pass

        end_epoch = begin_epoch

        def dataset(self, epoch, taken=0):
            iterator = Iterator()
            made.append(weakref.ref(iterator))
            return iterator

    passes = batches.Batches(Feed())
    try:
        passes.begin(0)
        passes.begin(1)
        assert ending.is_set()
        assert not ended.is_set()
        assert passes.iterator is made[1]()
    finally:
        may_end.set()

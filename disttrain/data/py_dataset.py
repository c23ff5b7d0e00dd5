"""Feeds of a `keras.utils.PyDataset`: batches by their number, read by threads or processes.

Keras shuffles the numbers of the batches with Python's global generator. Here the order follows
from the trainer's seed and the epoch, so that all processes have the same one and a resumed
training finds it again.
"""

import collections
import concurrent.futures
import itertools
import math
import multiprocessing

import numpy as np

from disttrain.data.elements import Elements
from disttrain.data.feed import from_batches

#: In a worker process: the PyDataset that it reads.
_own = []


def from_py_dataset(data, shuffle, seed, steps, training, topology, class_weights=None):
    """The `Feed` of a PyDataset; for the arguments see `disttrain.data.make_feed`."""
    length = data.num_batches
    length = math.inf if length is None else int(length)
    if length == 0:
        raise ValueError(f"the {type(data).__name__} is empty: its num_batches is 0")
    peeked = [data[number] for number in range(min(length, 2))]
    elements = Elements(peeked, type(data).__name__, class_weights)
    reader = _Reader(data, length, shuffle, seed)
    dataset = elements.dataset(reader.batches)

    def read(epoch, taken):
        reader.begin(epoch, taken)
        return dataset

    return from_batches(
        read,
        elements.spec,
        length,
        topology,
        steps,
        training,
        numbered=True,
        begin_epoch=data.on_epoch_begin,
        end_epoch=data.on_epoch_end,
    )


class _Reader:
    """Reads the batches of one pass after another.

    Args:
        data: A `keras.utils.PyDataset`.
        length: Its batches, or infinity.
        shuffle: Whether the batches of a finite one come in another order in each pass.
        seed: Seed of that order.
    """

    def __init__(self, data, length, shuffle, seed):
        self._data = data
        self._length = length
        self._shuffle = shuffle and length != math.inf
        self._seed = seed or 0
        self._place = (0, 0)

    def begin(self, epoch, taken):
        """Sets what the next iterator reads: the pass of an epoch, without its first batches.

        Raises:
            ValueError: The data have another number of batches than before.
        """
        now, name = self._data.num_batches, type(self._data).__name__
        if self._length != (math.inf if now is None else int(now)):
            raise ValueError(
                f"the {name} had {self._length} batches and now has {now}. Its num_batches must "
                "not change while it is read."
            )
        self._place = (epoch, taken)

    def batches(self):
        """A generator of the batches."""
        epoch, taken = self._place
        if self._length == math.inf:
            numbers = itertools.count(taken)
        elif self._shuffle:
            order = np.random.default_rng([self._seed, epoch]).permutation(self._length)
            numbers = iter(order[taken:].tolist())
        else:
            numbers = iter(range(taken, self._length))
        data = self._data
        if data.workers > 1 or (data.workers > 0 and data.use_multiprocessing):
            return _read_ahead(data, numbers)
        return map(data.__getitem__, numbers)


def _read_ahead(data, numbers):
    """The batches of these numbers in order, read by the workers of a PyDataset."""
    if data.use_multiprocessing:
        # As in Keras: forked, so that the data need not be importable.
        pool, get = (
            concurrent.futures.ProcessPoolExecutor(
                data.workers, multiprocessing.get_context("fork"), _own.append, (data,)
            ),
            _get,
        )
    else:
        pool, get = concurrent.futures.ThreadPoolExecutor(data.workers), data.__getitem__
    pending = collections.deque()
    try:
        for number in numbers:
            pending.append(pool.submit(get, number))
            if len(pending) > max(data.max_queue_size, data.workers):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _get(number):
    return _own[-1][number]

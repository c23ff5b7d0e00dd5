"""Finds out what kind of data a user gives, and makes the feeds of one trainer from it."""

import dataclasses
import itertools

import keras

from disttrain.batches import let_go
from disttrain.data import limits
from disttrain.data.arrays import from_arrays
from disttrain.data.class_weights import ClassWeights
from disttrain.data.feed import from_dataset, has_no_end, pipeline_errors
from disttrain.data.input_functions import from_function
from disttrain.data.iterables import from_iterable
from disttrain.data.kinds import ARRAYS, DATASET, FUNCTION, ITERABLE, PY_DATASET, kind_of
from disttrain.data.py_dataset import from_py_dataset


def make_feed(
    data,
    topology,
    *,
    y=None,
    sample_weight=None,
    batch_size=None,
    shuffle=False,
    seed=0,
    steps=None,
    training=False,
    all_gather=None,
    class_weight=None,
):
    """Builds the `Feed` of a process.

    Args:
        data: A batched `tf.data.Dataset`, a function of a `tf.distribute.InputContext` that returns
            one, a `keras.utils.PyDataset`, a generator or another iterable of batches, or arrays
            (NumPy, TensorFlow, pandas; nested in dictionaries or tuples).
        topology: The process's `disttrain.replication.Topology`.
        y: Targets, where `data` is arrays.
        sample_weight: Weights, where `data` is arrays.
        batch_size: Global batch size for arrays, 32 by default.
        shuffle: Whether arrays, and the batches of a `PyDataset`, are shuffled in each epoch.
        seed: Seed of that order.
        steps: Steps of an epoch; by default the whole dataset.
        training: Whether the first batch must fill every replica.
        all_gather: Gathers a NumPy array over processes.
        class_weight: Class number to weight, or `None`.

    Raises:
        TypeError: `data` is none of these.
        ValueError: It is not batched, has no end, is empty, or its batch is smaller than the
            number of replicas.
    """
    class_weights = None if class_weight is None else ClassWeights(class_weight)
    kind = kind_of(data)
    if kind != ARRAYS:
        if y is not None or sample_weight is not None:
            raise ValueError(
                f"y and sample_weight come from the {kind} itself; let it yield (x, y) or "
                "(x, y, sample_weight)"
            )
        if batch_size is not None:
            raise ValueError(
                f"batch_size goes with arrays; batch the {kind} itself, for example with "
                "ds.batch(64)"
            )
    if kind == DATASET:
        return from_dataset(data, topology, steps, training, class_weights)
    if kind == PY_DATASET:
        return from_py_dataset(data, shuffle, seed, steps, training, topology, class_weights)
    if kind == FUNCTION:
        return from_function(data, topology, steps, training, all_gather, class_weights)
    if kind == ITERABLE:
        return from_iterable(data, steps, training, topology, class_weights)
    return from_arrays(
        data,
        y,
        sample_weight,
        32 if batch_size is None else batch_size,
        shuffle,
        seed,
        steps,
        training,
        topology,
        class_weights,
    )


class Feeds:
    """Makes `Feed`s for a replication.

    Args:
        replication: A `disttrain.replication.Replication`.
        seed: Seed of the order of arrays.
    """

    def __init__(self, replication, seed):
        self._replication = replication
        self._seed = seed

    def of(
        self,
        x,
        y,
        sample_weight,
        batch_size,
        steps,
        *,
        shuffle=False,
        training=False,
        steps_name="steps",
        class_weight=None,
    ):
        """A feed of at most as many steps as Keras's limit; for the arguments see `make_feed`."""

        def feed_of(steps):
            return make_feed(
                x,
                self._replication.topology,
                y=y,
                sample_weight=sample_weight,
                batch_size=batch_size,
                shuffle=shuffle,
                seed=self._seed,
                steps=steps,
                training=training,
                all_gather=self._replication.all_gather,
                class_weight=class_weight,
            )

        feed = limits.limit_steps(feed_of, limits.check_steps(steps, steps_name))
        return dataclasses.replace(feed, steps_name=steps_name)

    def one_batch(self, x, y, sample_weight, training=False, class_weight=None):
        """A feed of arrays that are one global batch."""
        first = keras.tree.flatten(x)[:1]
        rows = max(len(first[0]), 1) if first and hasattr(first[0], "__len__") else 1
        return self.of(
            x, y, sample_weight, rows, None, training=training, class_weight=class_weight
        )

    def trial(self, x, y, sample_weight, batch_size, steps, shuffle, class_weight=None):
        """A feed of the training's data for a range test, which ends with them if they end."""
        if hasattr(x, "__next__"):
            raise ValueError(
                "a range test reads data that the training reads again, and a "
                f"{type(x).__name__} can be read only once; give a tf.data.Dataset, a PyDataset or "
                "arrays"
            )
        steps = steps if kind_of(x) == FUNCTION or has_no_end(x) else None
        return self.of(
            x,
            y,
            sample_weight,
            batch_size,
            steps,
            shuffle=shuffle,
            training=True,
            class_weight=class_weight,
        )

    def validation(self, data, batch_size, steps):
        """A feed of what a user gives as `validation_data`."""
        name = "validation_steps"
        if isinstance(data, (tuple, list)):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            return self.of(x, y, sample_weight, batch_size, steps, steps_name=name)
        return self.of(data, None, None, None, steps, steps_name=name)

    def elements(self, feed):
        """The elements of one pass; warns where there are fewer than the steps that were wanted.

        Args:
            feed: A `Feed`.

        Raises:
            ValueError: There is none.
        """
        feed.end_epoch()  # As Keras does: one call for the time before the first epoch.
        feed.begin_epoch()
        iterator = iter(feed.dataset(0))
        count = 0
        try:
            with pipeline_errors():
                for element in itertools.islice(iterator, feed.steps if feed.endless else None):
                    count += 1
                    yield element
        finally:
            held = [iterator]
            del iterator
            let_go(held)
            feed.end_epoch()
        if count == 0:
            raise ValueError("the dataset gave no batch; is it empty?")
        if feed.endless and count < feed.steps and self._replication.is_chief:
            limits.warn_of_the_end(count, feed)

"""From batches to elements that hold one part for each local replica.

Every process reads the same global batches and keeps its own rows of each, so that any number of
replicas sees the same data in the same order. A function of a `tf.distribute.InputContext` may read
a process's part by itself instead. `feeds.py` finds out which kind of data it was given.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable

import keras
import tensorflow as tf

from disttrain.data import parts


def _nothing():
    """Does nothing."""


@dataclasses.dataclass(frozen=True)
class Feed:
    """Batches for one pass, split over replicas.

    Attributes:
        dataset: A function of the epoch, and of how many batches of the pass are left out at its
            beginning (0 by default), that returns a `tf.data.Dataset` of elements. An iterator of
            it is to be used up before the function is called again.
        divide: A function of an element, for a step to call, that returns a dictionary with
            `parts`, a tuple with one `(x,)`, `(x, y)` or `(x, y, sample_weight)` for each local
            replica; `rows`, float32 `[local replicas]`, how many of a part's rows count; `total`,
            float32, the rows of the global batch, negative where a process knows only its own; and
            `fingerprint`, float32, a number that tells one batch from another.
        spec: Structure of one part, of `tf.TensorSpec`.
        steps: Steps of an epoch, or `None` if that shows only at its end.
        steps_name: The argument in which the user gives them.
        length: Batches of a pass; `math.inf` for data without an end, `None` if only the end shows.
        endless: Whether one pass continues over epochs, because the user has set their steps.
        shared: Whether all processes read the same global batches.
        numbered: Whether the order is a function of the epoch alone; else a pass follows on the
            passes before it, as those of `tf.data.Dataset.shuffle` do.
        batch: Examples of a global batch, or `None` if only the batches themselves tell.
        one_pass: Whether the data can be read only once, as those of a generator.
        not_resumable: Why another process may not find the same order again, or `None`.
        begin_epoch: Called before each epoch.
        end_epoch: Called after each epoch and, as in Keras, once before the first one.
    """

    dataset: Callable
    divide: Callable
    spec: tuple
    steps: int | None
    endless: bool
    shared: bool
    length: float | None = None
    steps_name: str = "steps_per_epoch"
    numbered: bool = False
    batch: int | None = None
    one_pass: bool = False
    not_resumable: str | None = None
    begin_epoch: Callable = _nothing
    end_epoch: Callable = _nothing

    @property
    def is_finite(self):
        """Whether the number of batches of a pass is known."""
        return self.length is not None and self.length != math.inf

    def steps_of(self, epochs):
        """The number of steps of each epoch, if the first one begins a pass.

        Args:
            epochs: Number of epochs.

        Yields:
            For each epoch a whole number, or `None` if only the end of the data shows it.
        """
        left = self.length
        for _ in range(epochs):
            if not self.endless or not self.is_finite:
                yield self.steps
                continue
            yield min(self.steps, left)
            left = left - self.steps if left > self.steps else self.length


def from_batches(read, spec, length, topology, steps, training, **facts):
    """The `Feed` of global batches that every process reads.

    Args:
        read: A function of the epoch, and of how many batches of the pass are left out, that
            returns a `tf.data.Dataset` of global batches.
        spec: What its `element_spec` is.
        length: As `Feed.length`.
        topology: The process's `disttrain.replication.Topology`.
        steps: Steps of an epoch, or `None` for the whole pass.
        training: Whether the first batch must fill every replica.
        **facts: Further attributes of the `Feed`.

    Raises:
        TypeError: An element holds something that cannot be cut.
        ValueError: The data are empty, not batched or without an end, or batches are too small.
    """
    batch = parts.check_batched(spec, topology, training)
    if length == 0:
        raise ValueError("the dataset is empty")
    if length == math.inf and steps is None:
        raise ValueError("the dataset has no end; say how many steps an epoch has: steps_per_epoch")
    alone = topology.replicas == 1
    in_step = alone or batch is not None

    # An evaluation takes no more from a generator than it uses; a training may.
    read_ahead = training or not facts.get("one_pass")

    def divided(dataset, checked):
        if not in_step:
            dataset = dataset.map(
                lambda *element: parts.split(parts.as_tuple(element), topology, None),
                num_parallel_calls=tf.data.AUTOTUNE if read_ahead else None,
            )
            if training and checked:
                check = lambda i, element: parts.check_first(i, element, topology)  # noqa: E731
                dataset = dataset.enumerate().map(check)
        if read_ahead:
            return dataset.prefetch(2)
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        options.experimental_optimization.map_parallelization = False
        return dataset.with_options(options)

    # One dataset for all passes, so that its shuffle operations continue from pass to pass.
    whole = divided(read(0, 0), True)

    def dataset(epoch, taken=0):
        # Also where the result is not used, `read` may have to know the epoch.
        batches = read(epoch, taken)
        return divided(batches, False) if taken else whole

    divide = parts.cut(topology, batch) if in_step else parts.already
    return Feed(
        dataset=dataset,
        divide=parts.whole if alone else divide,
        spec=parts.spec(whole.element_spec, topology.replicas if in_step else None),
        steps=steps if steps is not None else length,
        endless=steps is not None,
        shared=True,
        length=length,
        batch=parts.static_batch(spec),
        **facts,
    )


def from_dataset(dataset, topology, steps, training, class_weights=None):
    """The `Feed` of a `tf.data.Dataset`; for the arguments see `disttrain.data.make_feed`."""
    if class_weights is not None:
        dataset = dataset.map(class_weights.weigh, num_parallel_calls=tf.data.AUTOTUNE)

    def read(epoch, taken):
        return dataset.skip(taken) if taken else dataset

    length = length_of(dataset)
    return from_batches(read, dataset.element_spec, length, topology, steps, training)


def has_no_end(data):
    """Whether data are a `tf.data.Dataset` or a `PyDataset` that never ends."""
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    return isinstance(data, tf.data.Dataset) and length_of(data) == math.inf


def length_of(dataset):
    """The elements of a `tf.data.Dataset`: their number, infinity, or `None` if unknown."""
    cardinality = int(dataset.cardinality())
    if cardinality == tf.data.INFINITE_CARDINALITY:
        return math.inf
    return None if cardinality == tf.data.UNKNOWN_CARDINALITY else cardinality


@contextlib.contextmanager
def pipeline_errors():
    """Turns what the input pipeline raises for the user into a `ValueError`."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        pattern = rf"(a global batch {parts.SMALL_BATCH} \(\d+\))[^\]]*\] \[(\d+)\]"
        found = re.search(pattern, str(error))
        if found is None:
            raise
        raise ValueError(
            f"{found[1]}: it has {found[2]} rows; use a batch of at least as many examples as "
            "there are replicas, or fewer replicas"
        ) from None

"""From what a user hands to `fit` to elements that hold one part for each local replica.

Every process reads the same global batches and keeps its own rows of each, so that any number of
replicas sees the same data in the same order. A function of a `tf.distribute.InputContext` may read
a process's part by itself instead.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from disttrain.batches import without
from disttrain.data import parts


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
        endless: Whether one iterator goes on over epochs.
        shared: Whether all processes read the same global batches.
        numbered: Whether the order is a function of the epoch alone; else a pass follows on the
            passes before it, as those of `tf.data.Dataset.shuffle` do.
        batch: Examples of a global batch, or `None` if only the batches themselves tell.
    """

    dataset: Callable
    divide: Callable
    spec: tuple
    steps: int | None
    endless: bool
    shared: bool
    numbered: bool = False
    batch: int | None = None


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
):
    """Builds the `Feed` of a process.

    Args:
        data: A batched `tf.data.Dataset`, a function of a `tf.distribute.InputContext` that returns
            one, or arrays (NumPy, TensorFlow, pandas; nested in dictionaries or tuples).
        topology: The process's `disttrain.replication.Topology`.
        y: Targets, where `data` is arrays.
        sample_weight: Weights, where `data` is arrays.
        batch_size: Global batch size for arrays, 32 by default.
        shuffle: Whether arrays are shuffled anew in each epoch.
        seed: Seed of that order.
        steps: Steps of an epoch; by default the whole dataset.
        training: Whether the first batch must fill every replica.
        all_gather: Gathers a NumPy array over processes.

    Raises:
        TypeError: `data` is none of these.
        ValueError: It is not batched, has no end, is empty, or its batch is smaller than the
            number of replicas.
    """
    if isinstance(data, tf.data.Dataset) or callable(data):
        if y is not None or sample_weight is not None:
            raise ValueError(
                "y and sample_weight come from the dataset itself; let it yield (x, y) or "
                "(x, y, sample_weight)"
            )
        if batch_size is not None:
            raise ValueError("batch_size goes with arrays; batch the dataset itself: ds.batch(64)")
    if isinstance(data, tf.data.Dataset):
        return _from_dataset(data, topology, steps, training)
    if isinstance(data, (keras.utils.PyDataset, tf.distribute.DistributedDataset)) or (
        hasattr(data, "__next__")
    ):
        raise TypeError(
            f"a {type(data).__name__} is not supported, because every process has to read the same "
            "batches; give a tf.data.Dataset, a function of a tf.distribute.InputContext, or arrays"
        )
    if callable(data):
        return _from_function(data, topology, steps, training, all_gather)
    return _from_arrays(
        data,
        y,
        sample_weight,
        32 if batch_size is None else batch_size,
        shuffle,
        seed,
        steps,
        training,
        topology,
    )


def _from_dataset(dataset, topology, steps, training):
    batch = parts.check_batched(dataset.element_spec, topology, training)
    length = _length(dataset)
    if length == 0:
        raise ValueError("the dataset is empty")
    if length == math.inf and steps is None:
        raise ValueError("the dataset has no end; say how many steps an epoch has: steps_per_epoch")

    alone = topology.replicas == 1
    in_step = alone or batch is not None

    def divided(dataset):
        if in_step:
            return dataset
        return dataset.map(
            lambda *element: parts.split(parts.as_tuple(element), topology, None),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    split = divided(dataset)
    if training and not in_step:
        split = split.enumerate().map(lambda i, element: parts.check_first(i, element, topology))
    if steps is not None:
        split = split.repeat()
    split = split.prefetch(2)

    def from_batch(epoch, taken=0):
        if not taken:
            return split
        return divided(without(dataset, taken, length, steps is not None)).prefetch(2)

    divide = parts.cut(topology, batch) if in_step else parts.already
    return Feed(
        dataset=from_batch,
        divide=parts.whole if alone else divide,
        spec=parts.spec(split.element_spec, topology.replicas if in_step else None),
        steps=steps if steps is not None else length,
        endless=steps is not None,
        shared=True,
        batch=parts.static_batch(dataset.element_spec),
    )


def _from_arrays(x, y, sample_weight, batch_size, shuffle, seed, steps, training, topology):
    if y is None and sample_weight is not None:
        raise ValueError("sample_weight needs targets: give y as well")
    # tf.data takes lists for tensors, and tuples for structure.
    present = keras.tree.lists_to_tuples(tuple(a for a in (x, y, sample_weight) if a is not None))
    arrays = keras.tree.map_structure(_tensor, present)
    lengths = {int(leaf.shape[0]) for leaf in keras.tree.flatten(arrays)}
    if len(lengths) != 1:
        raise ValueError(f"the arrays have different numbers of examples: {sorted(lengths)}")
    count = lengths.pop()
    if count == 0:
        raise ValueError("the arrays are empty")
    if int(batch_size) != batch_size or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number from 1, not {batch_size!r}")
    if training and min(batch_size, count) < topology.replicas:
        raise ValueError(parts.small(min(batch_size, count), topology))

    alone = topology.replicas == 1
    order = _order(count) if shuffle else None

    def take(rows):
        return keras.tree.map_structure(lambda leaf: tf.gather(leaf, rows), arrays)

    def gathered(rows):
        if order is not None:
            rows = tf.gather(order, rows)
        return take(rows) if alone else parts.split_rows(rows, take, topology)

    def mapped(taken):
        batches = tf.data.Dataset.range(count).batch(batch_size)
        batches = without(batches, taken, math.ceil(count / batch_size), steps is not None)
        return batches.map(gathered, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)

    # To map takes ten times as long as to put an order into a variable.
    whole = mapped(0)

    def dataset(epoch, taken=0):
        if order is not None:
            order.assign(np.random.default_rng([seed or 0, epoch]).permutation(count))
        return mapped(taken) if taken else whole

    return Feed(
        dataset=dataset,
        divide=parts.whole if alone else parts.already,
        spec=parts.spec(whole.element_spec, 1 if alone else None),
        steps=steps if steps is not None else math.ceil(count / batch_size),
        endless=steps is not None,
        shared=True,
        numbered=True,
        batch=int(batch_size),
    )


def _from_function(function, topology, steps, training, all_gather):
    alone = dataclasses.replace(topology, processes=1, process=0)
    # A pipeline per process: the "replica" of this context is the process, so that
    # get_per_replica_batch_size gives the size of the process's part.
    context = tf.distribute.InputContext(
        num_input_pipelines=topology.processes,
        input_pipeline_id=topology.process,
        num_replicas_in_sync=topology.processes,
    )
    dataset = function(context)
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            "the function of the InputContext must return a tf.data.Dataset, not "
            f"{type(dataset).__name__}"
        )
    batch = parts.check_batched(dataset.element_spec, alone, training)
    own = parts.static_batch(dataset.element_spec)
    length = _length(dataset)
    code = {None: -1, math.inf: -2}.get(length, length)
    codes = all_gather(np.asarray(code, np.int64)) if all_gather else np.asarray([code])
    if steps is None:
        if (codes < 0).any():
            raise ValueError(
                "the dataset of the function does not tell its length, so processes cannot agree "
                "when an epoch ends; give steps_per_epoch, or apply "
                "tf.data.experimental.assert_cardinality(n)"
            )
        if not codes.any():
            raise ValueError("the datasets of the function are empty on every process")

    def divided(dataset):
        return dataset.map(
            lambda *element: {
                **parts.split(parts.as_tuple(element), alone, None),
                "total": tf.constant(-1.0),
            },
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def filled(split, taken=0):
        # A process whose part ends early takes part with examples that do not count.
        nothing = tf.data.Dataset.from_tensors(parts.nothing(split.element_spec)).repeat()
        return split.concatenate(nothing).take(int(codes.max()) - taken)

    split = divided(dataset)
    if training and batch is None:
        split = split.enumerate().map(lambda i, element: parts.check_first(i, element, alone))
    split = (split.repeat() if steps is not None else filled(split)).prefetch(2)

    def from_batch(epoch, taken=0):
        if not taken:
            return split
        rest = divided(without(dataset, taken, length, steps is not None))
        return (rest if steps is not None else filled(rest, taken)).prefetch(2)

    return Feed(
        dataset=from_batch,
        divide=parts.already,
        spec=parts.spec(split.element_spec, None),
        steps=steps if steps is not None else int(codes.max()),
        endless=steps is not None,
        shared=False,
        batch=None if own is None else own * topology.processes,
    )


def _order(count):
    """A variable for the order of so many examples."""
    with tf.init_scope(), tf.device("CPU:0"):  # where tf.data reads it
        return tf.Variable(tf.range(count, dtype=tf.int64), trainable=False)


def has_no_end(data):
    """Whether data are a `tf.data.Dataset` that is repeated for ever."""
    return isinstance(data, tf.data.Dataset) and _length(data) == math.inf


def _length(dataset):
    cardinality = int(dataset.cardinality())
    if cardinality == tf.data.INFINITE_CARDINALITY:
        return math.inf
    return None if cardinality == tf.data.UNKNOWN_CARDINALITY else cardinality


def _tensor(array):
    array = array if tf.is_tensor(array) else np.asarray(array)
    if array.dtype in (np.dtype("float64"), tf.float64):
        array = tf.cast(array, keras.config.floatx())
    tensor = tf.convert_to_tensor(array)
    if tensor.shape.rank == 0:
        raise ValueError("fit, evaluate and predict need arrays with a first axis of examples")
    return tensor


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


def split_off(x, y, sample_weight, part, validation_data):
    """Keeps the last part of arrays for validation, as Keras does."""
    if validation_data is not None:
        raise ValueError("give validation_split or validation_data, not both")
    if isinstance(x, tf.data.Dataset) or callable(x):
        raise ValueError("validation_split goes with arrays; split a dataset with take and skip")
    if not 0 < part < 1:
        raise ValueError(f"validation_split must lie between 0 and 1, not {part!r}")
    arrays = (x, y, sample_weight)
    count = len(keras.tree.flatten(x)[0])
    kept = math.floor(count * (1 - part))
    if kept in (0, count):
        raise ValueError(f"validation_split={part!r} of {count} examples leaves one side empty")

    def cut(rows):
        return tuple(
            None if a is None else keras.tree.map_structure(lambda leaf: leaf[rows], a)
            for a in arrays
        )

    return cut(slice(0, kept)), cut(slice(kept, None))

"""Feeds of arrays: NumPy, TensorFlow, pandas, or lists; nested in dictionaries or tuples."""

import math

import keras
import numpy as np
import tensorflow as tf

from disttrain.data import parts
from disttrain.data.feed import Feed
from disttrain.data.kinds import ARRAYS, kind_of


def from_arrays(
    x,
    y,
    sample_weight,
    batch_size,
    shuffle,
    seed,
    steps,
    training,
    topology,
    class_weights=None,
):
    """The `Feed` of arrays; for the arguments see `disttrain.data.make_feed`."""
    if y is None and sample_weight is not None:
        raise ValueError("sample_weight needs targets: give y as well")
    if class_weights is not None:
        present = [one for one in (x, y, sample_weight) if one is not None]
        *_, sample_weight = class_weights.weigh(*present)
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
    length = math.ceil(count / batch_size)
    order = _order(count) if shuffle else None

    def take(rows):
        return keras.tree.map_structure(lambda leaf: tf.gather(leaf, rows), arrays)

    def gathered(rows):
        if order is not None:
            rows = tf.gather(order, rows)
        return take(rows) if alone else parts.split_rows(rows, take, topology)

    def mapped(taken):
        batches = tf.data.Dataset.range(count).batch(batch_size).skip(taken)
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
        steps=steps if steps is not None else length,
        endless=steps is not None,
        shared=True,
        length=length,
        numbered=True,
        batch=int(batch_size),
    )


def _order(count):
    """A variable that holds the order of the examples; `count` is their number."""
    with tf.init_scope(), tf.device("CPU:0"):  # where tf.data reads it
        return tf.Variable(tf.range(count, dtype=tf.int64), trainable=False)


def _tensor(array):
    if hasattr(array, "tocsr") or isinstance(array, tf.SparseTensor):
        raise TypeError(
            f"a {type(array).__module__.partition('.')[0]} {type(array).__name__} is not taken as "
            "an array. Make it dense, with toarray() or tf.sparse.to_dense, or let a "
            "tf.data.Dataset yield batches that are tf.SparseTensor."
        )
    if isinstance(array, tf.RaggedTensor):
        return array
    if hasattr(array, "detach"):  # a PyTorch tensor, which may be on another device
        array = array.detach().cpu().numpy()
    array = array if tf.is_tensor(array) else _numpy(array)
    if array.dtype in (np.dtype("float64"), tf.float64):
        array = tf.cast(array, keras.config.floatx())
    tensor = tf.convert_to_tensor(array)
    if tensor.shape.rank == 0:
        raise ValueError(
            "fit, evaluate and predict need arrays with a first axis of examples, not "
            f"{array!r}; lists are a structure of arrays, so turn nested lists into an array with "
            "np.asarray, and rows of different lengths into a tf.RaggedTensor"
        )
    return tensor


def _numpy(array):
    try:
        made = np.asarray(array)
    except ValueError as error:
        raise ValueError(
            f"a {type(array).__name__} is no array ({error}); rows of different lengths go into a "
            "tf.RaggedTensor, or are padded with keras.utils.pad_sequences"
        ) from error
    if made.dtype != object or all(isinstance(one, (str, bytes)) for one in made.ravel()):
        return made
    raise TypeError(
        f"a {type(array).__name__} is no array of numbers or strings: {str(array)[:80]}. Give a "
        "NumPy array, a tensor, a tf.data.Dataset, a PyDataset or a generator of batches."
    )


def split_off(x, y, sample_weight, part, validation_data):
    """Keeps the last part of arrays for validation, as Keras does."""
    if validation_data is not None:
        raise ValueError("give validation_split or validation_data, not both")
    kind = kind_of(x)
    if kind != ARRAYS:
        raise ValueError(
            f"validation_split={part!r} goes with arrays, and x is a {kind} "
            f"({type(x).__name__}). Split the data yourself, a tf.data.Dataset with take and skip, "
            "and give the rest as validation_data."
        )
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

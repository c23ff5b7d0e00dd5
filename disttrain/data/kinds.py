"""The kinds of data that `fit`, `evaluate` and `predict` take."""

import keras
import tensorflow as tf

#: Kinds of data, as messages name them.
DATASET, PY_DATASET, FUNCTION = "dataset", "PyDataset", "function"
ITERABLE, ARRAYS = "iterable", "arrays"

#: What Python can iterate over and is an array, or a structure of them.
_ARRAYS = (list, tuple, dict, range, str, bytes, tf.RaggedTensor, tf.SparseTensor)


def kind_of(data):
    """What a user has given: `DATASET`, `PY_DATASET`, `FUNCTION`, `ITERABLE` or `ARRAYS`.

    Raises:
        TypeError: It is a dataset that TensorFlow has distributed already.
    """
    if isinstance(data, tf.data.Dataset):
        return DATASET
    if isinstance(data, tf.distribute.DistributedDataset):
        raise TypeError(
            f"a {type(data).__name__} is not supported, because the trainer distributes data "
            "itself; give the tf.data.Dataset from which it was made"
        )
    if isinstance(data, keras.utils.PyDataset):
        return PY_DATASET
    if is_iterable(data):
        return ITERABLE
    return FUNCTION if callable(data) else ARRAYS


def is_iterable(data):
    """Whether data are batches one after another, and no arrays."""
    if not hasattr(data, "__iter__") or hasattr(data, "__array__") or hasattr(data, "tocsr"):
        return False
    return not isinstance(data, _ARRAYS)

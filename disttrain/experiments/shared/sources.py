"""From what a user gives as data to what each seed trains on."""

import inspect
import numbers
from collections.abc import Sequence

import keras
import tensorflow as tf


def source(data, validation_data=None):
    """A function from a seed to `(train, validation)`.

    Args:
        data: Arrays `(x, y)` or `(x, y, sample_weight)`, a `tf.data.Dataset`, or a function of the
            seed, or of nothing, that returns one of these or a pair `(train, validation)` of them.
        validation_data: As `disttrain.Trainer.fit` takes it; none where `data` brings it.

    Raises:
        TypeError: `data` is none of these.
        ValueError: A function takes more than the seed.
    """
    if isinstance(data, tf.data.Dataset) or _arrays(data):
        return lambda seed: (data, validation_data)
    if not callable(data):
        raise TypeError(
            "data must be arrays (x, y), a tf.data.Dataset, or a function of the seed that returns "
            f"(train, validation), not a {type(data).__name__}"
        )
    call = _taking_seed(data)

    def made(seed):
        found = call(seed)
        if isinstance(found, tf.data.Dataset) or _arrays(found):
            return found, validation_data
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise TypeError(
                "the function of data must return (x, y), a tf.data.Dataset, or a pair (train, "
                f"validation) of them, not a {type(found).__name__}"
            )
        train, validation = found
        if validation is not None and validation_data is not None:
            raise ValueError(
                "the function of data returns validation data, and validation_data is given, too; "
                "leave one out"
            )
        return train, validation if validation is not None else validation_data

    return made


def _taking_seed(function):
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # Some functions of C have no signature.
        return function
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = [p for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]
    if len(wanted) > 1:
        names = ", ".join(p.name for p in wanted)
        raise ValueError(f"the function of data gets the seed alone, but takes {names}")
    takes = wanted or any(p.kind in (*kinds, inspect.Parameter.VAR_POSITIONAL) for p in parameters)
    return function if takes else lambda seed: function()


def _arrays(data):
    """Whether it is `(x, y)` or `(x, y, sample_weight)`, and not a pair of such or of datasets."""
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        return False
    leaves = keras.tree.flatten(data[1])
    if isinstance(data[1], tuple) and len(data[1]) in (2, 3) and isinstance(data[0], tuple):
        return False  # ((x, y), (x, y))
    return all(
        hasattr(leaf, "shape") or isinstance(leaf, numbers.Number) for leaf in leaves
    ) and not any(isinstance(part, tf.data.Dataset) for part in data)


def fit_arguments(train):
    """Training data as the arguments of `Trainer.fit`, a dictionary."""
    if isinstance(train, Sequence):
        return dict(zip(("x", "y", "sample_weight"), train, strict=False))
    return {"x": train}

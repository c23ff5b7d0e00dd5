"""Finds out what a function of targets and outputs returns, before it is called on a batch."""

import math

import numpy as np
import tensorflow as tf

#: A trial with more would take long, and much memory.
_MOST_NUMBERS = 1_000_000


def returned_shape(function, y_true, y_pred, dtype=None):
    """Traces a function with a number of examples that no axis of its arguments has.

    Args:
        function: A function `(y_true, y_pred)`.
        y_true: A tensor or a symbolic one, whose first axis are the examples.
        y_pred: The same.
        dtype: Of the arguments; their own by default.

    Returns:
        `(shape, examples)`: the `tf.TensorShape` of what it returns, and the number of examples.
        The shape is `None` where it returns no tensor, or cannot be traced.
    """
    arguments = [argument for argument in (y_true, y_pred) if argument is not None]
    shapes = [tuple(argument.shape) for argument in arguments]
    if len(shapes) < 2 or any(not shape for shape in shapes):
        return None, 0
    taken = {size for shape in shapes for size in shape}
    examples = next(size for size in (97, 89, 83, 79, 73, 71, 67) if size not in taken)
    specs = [
        tf.TensorSpec([examples, *shape[1:]], dtype or argument.dtype)
        for argument, shape in zip(arguments, shapes, strict=True)
    ]
    try:
        returned = tf.function(function, autograph=False).get_concrete_function(*specs).outputs
    except Exception:  # It may be anything.
        return None, examples
    return (returned[0].shape if len(returned) == 1 else None), examples


def mixes_examples(function, y_true, y_pred, dtype):
    """Whether a value that a function returns for an example depends on other examples.

    Computes the values of random examples with and without others beside them.

    Args:
        function: A function `(y_true, y_pred)` that returns a value for each example.
        y_true: A tensor or a symbolic one, whose first axis are the examples.
        y_pred: The same.
        dtype: Of the arguments.

    Returns:
        `False` also where the function does not take such examples, or they are large.
    """
    rng = np.random.default_rng(0)
    shapes = [[6, *(size or 3 for size in tensor.shape[1:])] for tensor in (y_true, y_pred)]
    if max(map(math.prod, shapes)) > _MOST_NUMBERS:
        return False

    with tf.init_scope():
        labels = tf.constant(rng.integers(0, 2, shapes[0]), dtype)
        outputs = tf.constant(rng.uniform(0.1, 0.9, shapes[1]), dtype)
        try:
            whole = tf.convert_to_tensor(function(labels, outputs)).numpy()
            part = tf.convert_to_tensor(function(labels[:2], outputs[:2])).numpy()
        except Exception:  # It may be anything.
            return False
    same = part.shape == whole[:2].shape
    return not (same and np.allclose(part, whole[:2], rtol=1e-4, atol=1e-5, equal_nan=True))

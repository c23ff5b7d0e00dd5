"""What shape a user's function of targets and outputs returns, before it is called on a batch."""

import tensorflow as tf


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

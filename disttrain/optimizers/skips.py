"""Stops a training in which one step after another is skipped, and names the culprits.

The check stands in the graph, where the counter is, so that it costs no look from the host.
"""

import contextlib
import re

import tensorflow as tf

#: After so many skipped steps in a row training stops, by default.
MOST = 100

_TEXT = "steps in a row were skipped"


def check(most):
    """Raises a `ValueError` unless `most` is `None` or a whole number from 1."""
    if most is not None and (isinstance(most, bool) or int(most) != most or most < 1):
        raise ValueError(f"max_skipped must be a whole number from 1 or None, not {most!r}")


def stop_after(most, skipped, norms, variables):
    """Adds the check to the graph of a skipped step.

    Args:
        most: Skipped steps in a row that stop the training, or `None`.
        skipped: How many there are now, an integer scalar.
        norms: The gradients' norms, float32 of shape `[len(variables)]`.
        variables: The variables.
    """
    if most is None:
        return
    paths = tf.constant([getattr(v, "path", v.name) for v in variables])
    troubled = tf.boolean_mask(paths, ~tf.math.is_finite(norms))
    message = f"{most} {_TEXT}, because these gradients were not finite:"
    names = tf.strings.reduce_join(troubled, separator=", ")
    tf.debugging.Assert(skipped < most, [message, names])


@contextlib.contextmanager
def readable_errors():
    """Turns the graph's error into a `RuntimeError` with the same words.

    Raises:
        RuntimeError: The check has stopped the training.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(rf"\[(\d+ {_TEXT}[^\]]*)\] \[([^\]]*)\]", str(error))
        if found is None:
            raise
        raise RuntimeError(
            f"{found[1]} {found[2]}; look for NaN in the data, lower the learning rate, or clip"
        ) from None

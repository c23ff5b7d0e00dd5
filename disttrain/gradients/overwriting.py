"""Variables whose "gradient" is their next value, as Keras's float8 scales have it.

Keras marks them by `variable.overwrite_with_gradient`. Such a value is no gradient: it is neither
scaled nor clipped nor averaged. Replicas and micro-batches keep the largest of theirs, as Keras
does with micro-batches: a scale is made for the largest number of the whole batch.
"""

import tensorflow as tf


def is_overwritten(variable):
    """Whether the gradient of a variable is its next value."""
    return getattr(variable, "overwrite_with_gradient", False)


def separate(gradients, variables):
    """Takes next values out of lists of gradients.

    Args:
        gradients: Gradients and next values, none of them `None`.
        variables: Their variables.

    Returns:
        `(gradients, variables, values, targets)`: four lists; the last two are the next values and
        the variables that take them.
    """
    pairs = list(zip(gradients, variables, strict=True))
    rest = [pair for pair in pairs if not is_overwritten(pair[1])]
    taken = [pair for pair in pairs if is_overwritten(pair[1])]
    return (*_unzipped(rest), *_unzipped(taken))


def without(compute, variables):
    """A function that returns gradients, without those that are next values; or `None`."""
    if compute is None or not any(map(is_overwritten, variables)):
        return compute
    return lambda: separate(compute(), variables)[0]


def largest(replication, values, targets, is_local):
    """The largest of the replicas' next values, element by element; in replica context.

    Args:
        replication: A `disttrain.replication.Replication`.
        values: What `separate` returned.
        targets: Their variables.
        is_local: Says of a variable whether each replica keeps it for itself.

    Returns:
        `(values, finite)`: a list, and whether all of them are finite, a boolean scalar.
    """
    values = [tf.convert_to_tensor(value) for value in values]
    shared = [i for i, target in enumerate(targets) if not is_local(target)]
    if replication.replicas > 1 and shared:
        parts = [tf.cast(tf.reshape(values[i], [-1]), tf.float32) for i in shared]
        sizes = [part.shape.num_elements() for part in parts]
        # Each replica adds its row to zeros: there is a collective for sums in every replication.
        index = replication.replica_index()
        rows = tf.pad(
            tf.concat(parts, 0)[None], [[index, replication.replicas - 1 - index], [0, 0]]
        )
        (rows,) = replication.reduce_sum([rows], "next_values")
        for i, part in zip(shared, tf.split(tf.reduce_max(rows, 0), sizes), strict=True):
            values[i] = tf.cast(tf.reshape(part, values[i].shape), values[i].dtype)
    finite = [tf.reduce_all(tf.math.is_finite(value)) for value in values]
    return values, tf.reduce_all(tf.stack(finite))


def _unzipped(pairs):
    return [one for one, _ in pairs], [other for _, other in pairs]

"""Outputs of a model, batch by batch: brought together over processes, and put in order.

An output is a NumPy array, or a `tf.RaggedTensor` where the model returns one.
"""

import numpy as np
import tensorflow as tf


def to_host(parts):
    """The outputs of the replicas of a process for one batch, below one another.

    Args:
        parts: Tensors or ragged tensors `[rows, ...]`, in the order of the replicas.
    """
    if any(isinstance(part, tf.RaggedTensor) for part in parts):
        return tf.concat(parts, 0)
    return concatenated([part.numpy() for part in parts])


def concatenated(outputs):
    """Outputs below one another.

    Args:
        outputs: A list of arrays or ragged tensors `[rows, ...]`.

    Returns:
        An array; a `tf.RaggedTensor`, as in Keras, where axes behind the first one differ.
    """
    if len(outputs) == 1:
        return outputs[0]
    if any(isinstance(one, tf.RaggedTensor) for one in outputs):
        return tf.concat(outputs, 0)
    shapes = np.asarray([one.shape[1:] for one in outputs])
    differ = np.flatnonzero((shapes != shapes[0]).any(axis=0))
    if not len(differ):
        return np.concatenate(outputs)
    rank = int(differ[-1]) + 1
    return tf.concat([tf.RaggedTensor.from_tensor(one, ragged_rank=rank) for one in outputs], 0)


def gathered(replication, batches):
    """The outputs of all processes for each batch.

    Args:
        replication: A `Replication`; all processes call this.
        batches: A list with this process's output for each batch, as many on all processes.

    Returns:
        A list with the whole output of each batch, its rows in the order of the replicas.
    """
    if replication.topology.processes == 1 or not batches:
        return batches
    components = [_components(batch) for batch in batches]
    # One list for each component of an output, and in it for each batch a list over processes.
    parts = [_gather_arrays(replication, list(of_all)) for of_all in zip(*components, strict=True)]
    return [
        concatenated([_composed(pieces) for pieces in zip(*of_batch, strict=True)])
        for of_batch in zip(*parts, strict=True)
    ]


def _components(output):
    if isinstance(output, tf.RaggedTensor):
        lengths = [row.numpy() for row in output.nested_row_lengths()]
        return [output.flat_values.numpy(), *lengths]
    return [output]


def _composed(components):
    flat, *lengths = components
    return tf.RaggedTensor.from_nested_row_lengths(flat, lengths) if lengths else flat


def _gather_arrays(replication, arrays):
    """For each array a list of those of all processes; shapes may differ, dtype and rank not."""
    shapes = replication.all_gather(np.asarray([array.shape for array in arrays], np.int64))
    sizes = shapes.prod(axis=2)
    own = np.concatenate([array.ravel() for array in arrays])
    padded = np.zeros(int(sizes.sum(axis=1).max()), own.dtype)
    padded[: len(own)] = own
    found = []
    for process, flat in enumerate(replication.all_gather(padded)):
        ends = np.cumsum(sizes[process])
        pieces = np.split(flat[: ends[-1]], ends[:-1])
        found.append([p.reshape(s) for p, s in zip(pieces, shapes[process], strict=True)])
    return [list(of_all) for of_all in zip(*found, strict=True)]

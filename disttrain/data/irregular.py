"""Ragged and sparse batches, which some models and losses take and others do not."""

import contextlib

import tensorflow as tf

#: Kind of tensor to its name and to what makes it dense.
_KINDS = {
    tf.RaggedTensor: ("ragged", "x.to_tensor()"),
    tf.SparseTensor: ("sparse", "tf.sparse.to_dense(x)"),
}


@contextlib.contextmanager
def readable_errors(tensors, taker):
    """Names what raises on ragged or sparse tensors; other errors stay as they are.

    Args:
        tensors: A nested structure of tensors that the code inside gets.
        taker: What gets them, such as `"the model"`.

    Raises:
        TypeError: The code inside raised, and a tensor is ragged or sparse.
    """
    try:
        yield
    except Exception as error:
        found = [_KINDS[type(leaf)] for leaf in tf.nest.flatten(tensors) if type(leaf) in _KINDS]
        if not found:
            raise
        kind, dense = found[0]
        raise TypeError(
            f"{taker} does not take {kind} tensors: it raised the {type(error).__name__} above. "
            f"Make the batches dense, for example with dataset.map and {dense}; a Masking layer or "
            "sample weights leave out what was filled in."
        ) from error

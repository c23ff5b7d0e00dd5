"""What Python code yields as batches, as elements of a `tf.data.Dataset`.

`py_dataset.py` and `iterables.py` read the batches; here they become tensors of one structure.
"""

import keras
import numpy as np
import tensorflow as tf


class Elements:
    """Turns batches of NumPy arrays, tensors, PyTorch tensors or lists into tensors.

    Args:
        peeked: The first batches, which show the structure. An axis on which they differ may have
            any size, and so may the axis of the examples.
        source: What yields them, for messages.
        class_weights: A `ClassWeights`, or `None`.

    Raises:
        TypeError: A batch holds something that is no array.
        ValueError: Batches have different structures, or there is no axis of examples.
    """

    def __init__(self, peeked, source, class_weights=None):
        self._source = source
        self._class_weights = class_weights
        batches = [self._batch(batch) for batch in peeked]
        for batch in batches[1:]:
            self._check_structure(batches[0], batch)
        self._own_spec = tf.nest.map_structure(self._leaf_spec, *batches)

    @property
    def spec(self):
        """Of a batch, `(x,)`, `(x, y)` or `(x, y, sample_weight)`; `tf.TensorSpec`."""
        return self.dataset(lambda: iter(())).element_spec

    def dataset(self, generate):
        """A `tf.data.Dataset` of batches.

        Args:
            generate: A function that returns an iterator of batches; called for each pass.
        """

        def batches():
            for batch in generate():
                yield self._checked(self._batch(batch))

        made = tf.data.Dataset.from_generator(batches, output_signature=self._own_spec)
        if self._class_weights is not None:
            made = made.map(self._class_weights.weigh)
        return made

    def _batch(self, batch):
        """A batch as a tuple of arrays."""
        if isinstance(batch, list):
            batch = tuple(batch)
        if not isinstance(batch, tuple):
            batch = (batch,)
        while len(batch) > 1 and batch[-1] is None:
            batch = batch[:-1]
        if not 1 <= len(batch) <= 3:
            raise ValueError(
                f"{self._source} yields {len(batch)} parts; it should yield (x,), (x, y) or "
                "(x, y, sample_weight), with several inputs in a dictionary or tuple of their own"
            )
        # tf.data takes lists for tensors.
        return tf.nest.map_structure(self._array, keras.tree.lists_to_tuples(batch))

    def _array(self, leaf):
        if hasattr(leaf, "detach"):  # a PyTorch tensor, which may be on another device
            leaf = leaf.detach().cpu().numpy()
        array = leaf if isinstance(leaf, np.ndarray) else np.asarray(leaf)
        if array.dtype == object:
            raise TypeError(
                f"{self._source} yields a {type(leaf).__name__}, which is no array; yield NumPy "
                "arrays, or tensors"
            )
        if array.dtype == np.float64:
            array = array.astype(keras.config.floatx())
        return array

    def _leaf_spec(self, *leaves):
        first = leaves[0]
        if first.ndim == 0:
            raise ValueError(
                f"{self._source} does not yield batches: {first!r} has no axis of examples. Yield "
                "arrays with the global batch as the first axis."
            )
        sizes = [leaf.shape for leaf in leaves]
        if len({len(one) for one in sizes}) > 1:
            raise ValueError(f"{self._source} yields arrays of different ranks: {sizes}")
        shape = [own[0] if len(set(own)) == 1 else None for own in zip(*sizes, strict=True)]
        return tf.TensorSpec([None, *shape[1:]], tf.as_dtype(first.dtype))

    def _check_structure(self, first, other):
        try:
            tf.nest.assert_same_structure(first, other)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self._source} yields batches of different structures: {_described(first)} and "
                f"{_described(other)}"
            ) from error

    def _checked(self, batch):
        self._check_structure(self._own_spec, batch)
        for spec, leaf in zip(tf.nest.flatten(self._own_spec), tf.nest.flatten(batch), strict=True):
            if not spec.shape.is_compatible_with(leaf.shape):
                raise ValueError(
                    f"{self._source} yields an array of shape {leaf.shape} where the first two "
                    f"batches have {spec.shape}. If an axis has no fixed size, let the first two "
                    "batches differ on it, or give a tf.data.Dataset with an output_signature."
                )
        return batch


def _described(batch):
    return tf.nest.map_structure(lambda leaf: tuple(leaf.shape), batch)

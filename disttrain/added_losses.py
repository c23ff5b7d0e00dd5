"""Tells losses of layers that are sums over the examples of a batch from those that are means.

`add_loss` takes either. Replicas count a mean by their part of the examples, and a sum as it is.
"""

import math

import keras
import numpy as np
import tensorflow as tf

#: A trial with more would take long, and much memory.
_MOST_NUMBERS = 1_000_000


def find_sums(model, x):
    """Tries a model on a few random examples, and on two halves of them.

    The model's variables stay as they are.

    Args:
        model: A built `keras.Model`.
        x: The structure of the inputs, of `tf.TensorSpec` whose first axis are the examples.

    Returns:
        A list with a boolean for each of `model.losses`, or `None` if the model cannot be tried.
    """
    rng = np.random.default_rng(0)

    def random(spec):
        shape = [4, *(size or 3 for size in spec.shape[1:])]
        if math.prod(shape) > _MOST_NUMBERS:
            raise ValueError("too large for a trial")
        values = rng.normal(size=shape) if spec.dtype.is_floating else rng.integers(0, 2, shape)
        return tf.constant(values, spec.dtype)

    def losses(examples):
        # Keras finds a layer's losses by the numbers of objects, of which some are gone.
        for layer in model._flatten_layers():
            layer._loss_ids.clear()
        _, _, found = model.stateless_call(
            [tf.convert_to_tensor(v.value) for v in model.trainable_variables],
            [tf.convert_to_tensor(v.value) for v in model.non_trainable_variables],
            examples,
            return_losses=True,
        )
        return [float(loss) for loss in found]

    with tf.init_scope():
        try:
            examples = keras.tree.map_structure(random, x)
            whole, first, second = (
                losses(keras.tree.map_structure(lambda leaf, rows=rows: leaf[rows], examples))
                for rows in (slice(0, 4), slice(0, 2), slice(2, 4))
            )
        except Exception:  # A model may need other examples.
            return None
    if not len(whole) == len(first) == len(second):
        return None
    # A regularizer's loss is the same for all; so is one that is 0.
    return [
        abs(all_ - (a + b)) <= 1e-4 * abs(all_) and abs(all_) > 1e-6
        for all_, a, b in zip(whole, first, second, strict=True)
    ]

"""Sample weights from the classes of the targets, as Keras computes them for `class_weight`."""

import numbers

import keras
import numpy as np
import tensorflow as tf

#: Classes for which a table of weights is kept.
_MOST_CLASSES = 10_000_000


class ClassWeights:
    """Turns targets into sample weights.

    Args:
        class_weight: Class number to weight; classes that it does not name have weight 1.

    Raises:
        TypeError: It is no dictionary of numbers.
        ValueError: It is empty, or a class or a weight is out of range.
    """

    def __init__(self, class_weight):
        if not isinstance(class_weight, dict):
            raise TypeError(
                f"class_weight must be a dictionary from class number to weight, such as "
                f"{{0: 1.0, 1: 5.0}}, not {class_weight!r}"
            )
        if not class_weight:
            raise ValueError("class_weight is empty; name a class, such as {0: 1.0, 1: 5.0}")
        for label, weight in class_weight.items():
            whole = isinstance(label, numbers.Integral) and not isinstance(label, bool)
            if not whole or not 0 <= label < _MOST_CLASSES:
                raise ValueError(
                    f"class_weight has the class {label!r}; classes are whole numbers from 0, the "
                    "positions in a one-hot target"
                )
            if isinstance(weight, bool) or not isinstance(weight, numbers.Real):
                raise TypeError(f"class_weight[{label}] must be a number, not {weight!r}")
            if not 0 <= weight < float("inf"):
                raise ValueError(
                    f"class_weight[{label}] must be a finite number from 0, not {weight!r}"
                )
        # The last place is for all classes that are not named.
        self._table = np.ones(max(class_weight) + 2, keras.config.floatx())
        self._table[list(class_weight)] = list(class_weight.values())

    def of(self, y):
        """The weights of targets.

        Args:
            y: Class numbers `[batch]` or `[batch, 1]`, or one-hot targets `[batch, classes]`.

        Returns:
            A tensor `[batch]`; more axes before the last one of the targets stay.

        Raises:
            ValueError: There are several targets.
        """
        if keras.tree.is_nested(y):
            raise ValueError(
                "class_weight needs a single target; for several outputs compute sample_weight "
                "for each of them"
            )
        y = tf.convert_to_tensor(y)
        if y.shape.rank is None or y.shape.rank < 2:
            classes = _rounded(y)
        elif y.shape[-1] is not None:
            classes = tf.argmax(y, axis=-1) if y.shape[-1] > 1 else _rounded(tf.squeeze(y, -1))
        else:
            classes = tf.cond(
                tf.shape(y)[-1] > 1,
                lambda: tf.argmax(y, axis=-1),
                lambda: _rounded(y[..., 0]),
            )
        last = len(self._table) - 1
        known = (classes >= 0) & (classes < last)
        return tf.gather(self._table, tf.where(known, classes, last))

    def weigh(self, *batch):
        """A batch `(x, y)` as `(x, y, sample_weight)`.

        Raises:
            ValueError: It has no targets, or weights already.
        """
        if len(batch) == 3:
            raise ValueError(
                "both class_weight and sample weights are given; multiply them yourself, and leave "
                "class_weight out"
            )
        if len(batch) != 2:
            raise ValueError("class_weight needs targets: the data have to be (x, y)")
        x, y = batch
        return x, y, self.of(y)


def _rounded(y):
    return tf.cast(tf.round(y) if y.dtype.is_floating else y, tf.int64)

"""Stops a training in which one step after another is skipped, and names the variables.

The steps count on the device. The host looks where it reads rows or logs anyway, so that no step
waits for it.
"""

import keras
import numpy as np
import tensorflow as tf

from disttrain.optimizers.missing import some

#: After so many skipped steps in a row training stops, by default.
MOST = 100


def check(most):
    """Raises a `ValueError` unless `most` is `None` or a whole number from 1."""
    if most is not None and (isinstance(most, bool) or int(most) != most or most < 1):
        raise ValueError(f"max_skipped must be a whole number from 1 or None, not {most!r}")


class SkipCounter:
    """Counts how many steps in a row were skipped, and why.

    Args:
        most: Skipped steps in a row that stop the training, or `None`.
    """

    def __init__(self, most):
        check(most)
        self.most = most
        self._longest = None

    def build(self, add_state, variables):
        """Makes the counters, in the optimizer's scope.

        Args:
            add_state: Makes a saved variable from a name, a dtype and a value.
            variables: All trainable variables.
        """
        self._now = add_state("skipped_in_a_row", "int64", 0)
        self._variables = list(variables)
        if self.most is not None:
            # What stops this training does not belong to its checkpoint.
            self._longest = _variable((), "int64", "longest_skipped")
            self._norms = _variable((len(self._variables),), "float32", "skipped_norms")

    def applied(self):
        """Counts an update; in replica context."""
        self._now.assign(0)

    def skipped(self, norms, variables):
        """Counts a skipped step; in replica context.

        Args:
            norms: The gradients' norms, float32 of shape `[len(variables)]`.
            variables: The variables that have gradients.
        """
        now = self._now.value + 1
        self._now.assign(now)
        if self.most is None:
            return
        self._longest.assign(tf.maximum(self._longest.value, now))
        if len(variables) < len(self._variables):
            places = {id(variable): place for place, variable in enumerate(self._variables)}
            indices = [[places[id(variable)]] for variable in variables]
            norms = tf.scatter_nd(indices, norms, [len(self._variables)])
        self._norms.assign(norms)

    def raise_if_too_many(self):
        """Looks at the counters; on the host.

        Raises:
            RuntimeError: So many steps in a row were skipped since the last look.
        """
        if self._longest is None or int(self._longest.numpy()) < self.most:
            return
        self._longest.assign(0)
        finite = np.isfinite(self._norms.numpy())
        pairs = zip(self._variables, finite, strict=True)
        names = [getattr(v, "path", v.name) for v, is_finite in pairs if not is_finite]
        raise RuntimeError(
            f"{self.most} steps in a row were skipped, because these gradients were not finite: "
            f"{some(names)}; look for NaN in the data, lower the learning rate, or clip"
        )


def _variable(shape, dtype, name):
    return keras.Variable(
        keras.initializers.Zeros(), shape=shape, dtype=dtype, trainable=False, name=name
    )

"""One way to call optimizers of every kind on a single variable, for `path.py`."""

import inspect

import keras
import tensorflow as tf

from disttrain import optimizers
from disttrain.optimizers.distributed import DistributedOptimizer
from disttrain.optimizers.legacy import is_legacy


class Update:
    """Updates a variable by an optimizer.

    Args:
        optimizer: A Keras optimizer, which is copied, or its name; an optimizer of Keras 2's old
            API; or any object with `apply_gradients(grads, vars)` or
            `apply_gradients(grads_and_vars)`, which is used as it is.
        start: The first value of the variable, float32 `[n]`.

    Attributes:
        name: Name of the optimizer.
        learning_rate: That of the first step, or `None`.
        variable: The `tf.Variable`.
        in_graph: Whether `step` may be traced. Objects that are no Keras optimizers may keep
            their state in Python numbers and tensors, so they run step by step.

    Raises:
        TypeError: `optimizer` is none of these.
        ValueError: Keras has no optimizer of that name.
    """

    def __init__(self, optimizer, start):
        if isinstance(optimizer, str):
            optimizer = keras.optimizers.get(optimizer)
        elif isinstance(optimizer, keras.optimizers.Optimizer):
            # One that has made steps would begin in the middle of another path.
            optimizer = type(optimizer).from_config(optimizer.get_config())
        elif not isinstance(optimizer, type) and is_legacy(optimizer):
            optimizer = optimizers.from_legacy(optimizer)
        self._optimizer = optimizer
        self.name = type(getattr(optimizer, "wrapped", optimizer)).__name__
        rate = getattr(optimizer, "learning_rate", getattr(optimizer, "lr", None))
        try:
            self.learning_rate = None if rate is None else float(rate)
        except (TypeError, ValueError):
            self.learning_rate = None
        self.in_graph = isinstance(optimizer, keras.optimizers.Optimizer)
        if self.in_graph:
            own = keras.Variable(start, dtype="float32", name="position")
            optimizer.build([own])
            self.variable = own.value
            self.step = lambda gradient, again: self._keras(own, gradient, again)
            return
        self.variable = tf.Variable(start, dtype=tf.float32, name="position")
        takes = _arguments(optimizer)
        if takes == 2:
            self.step = lambda gradient, again: optimizer.apply_gradients(
                [gradient], [self.variable]
            )
        elif takes == 1:
            self.step = lambda gradient, again: optimizer.apply_gradients(
                [(gradient, self.variable)]
            )
        else:
            raise TypeError(
                "the optimizer must be a Keras optimizer, its name, or an object with a method "
                f"apply_gradients(grads, vars), not {optimizer!r}"
            )

    def _keras(self, variable, gradient, again):
        optimizer = self._optimizer
        if isinstance(optimizer, DistributedOptimizer):
            scale = optimizer.current_loss_scale()
            recompute = (lambda: [again() * scale]) if optimizer.two_gradients else None
            optimizer.apply([gradient * scale], [variable], recompute=recompute)
            return
        if getattr(optimizer, "two_gradients", False):
            saved = optimizer.perturb([gradient], [variable])
            gradient = again()
            optimizer.restore([variable], saved)
        optimizer.apply([gradient], [variable])


def _arguments(optimizer):
    """How many arguments `apply_gradients` needs, 1 or 2; `None` where it cannot be called."""
    method = getattr(optimizer, "apply_gradients", None)
    if isinstance(optimizer, type) or not callable(method):
        return None
    signature = inspect.signature(method)
    for count in (1, 2):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count
    return None

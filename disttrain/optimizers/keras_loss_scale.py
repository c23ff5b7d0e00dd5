"""Keras's automatic loss scale around a `DistributedOptimizer`.

Under a `mixed_float16` policy `Model.compile` puts its optimizer into a `LossScaleOptimizer`. That
one looks for overflow on each replica by itself, before the reduction, and does not call the
`scale_loss` of the optimizer inside. So a `LossScaleOptimizer` of a `DistributedOptimizer` is the
`DistributedOptimizer` itself, with a dynamic loss scale. This file alone changes a class of Keras.
"""

import keras

from disttrain.gradients.loss_scale import DynamicLossScale


def replace_around(kind):
    """Makes Keras's `LossScaleOptimizer(optimizer)` return optimizers of `kind` as they are.

    Such an optimizer keeps the loss scale that it has, and gets a dynamic one where it has none.

    Args:
        kind: A class with a method `use_loss_scale(loss_scale)`.
    """
    scaling = keras.optimizers.LossScaleOptimizer
    make, some_optimizer = scaling.__new__, keras.optimizers.SGD

    def new(cls, inner_optimizer=None, *args, **kwargs):
        if isinstance(inner_optimizer, kind):
            # Not an instance of `cls`, so Python does not call `__init__`.
            # Keras itself reads, and refuses, the arguments.
            wanted = cls(some_optimizer(), *args, **kwargs)
            inner_optimizer.use_loss_scale(
                DynamicLossScale(wanted.initial_scale, growth_interval=wanted.dynamic_growth_steps)
            )
            return inner_optimizer
        if make is object.__new__:
            return make(cls)
        return make(cls, inner_optimizer, *args, **kwargs)

    scaling.__new__ = staticmethod(new)


def is_mixed_float16(model):
    """Whether a layer of a `keras.Model`, or the model itself, computes in `mixed_float16`."""
    return any(layer.dtype_policy.name == "mixed_float16" for layer in model._flatten_layers())

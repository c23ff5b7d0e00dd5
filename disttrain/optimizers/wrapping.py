"""Puts what a user gives for an optimizer into a `DistributedOptimizer` of a replication."""

import keras

from disttrain.optimizers.distributed import DistributedOptimizer
from disttrain.optimizers.keras_loss_scale import is_mixed_float16


def wrapped(optimizer, replication, settings):
    """The optimizer in a wrapper that belongs to the replication, in its scope.

    Args:
        optimizer: A `DistributedOptimizer`, or what it takes as `inner`.
        replication: A `disttrain.replication.Replication`.
        settings: Arguments of `DistributedOptimizer`, for one that is not wrapped yet.

    Raises:
        TypeError: `optimizer` is no optimizer.
        ValueError: It is wrapped, and there are settings that would have to go into the wrapper.
    """
    if isinstance(optimizer, DistributedOptimizer):
        unset = {"accumulate_steps": 1}
        given = [name for name, value in settings.items() if value != unset.get(name)]
        if given:
            raise ValueError(
                f"the optimizer is a DistributedOptimizer, which has its own "
                f"{', '.join(given)}; give it there, not to the trainer"
            )
        inner = replication.adopt(optimizer.inner)
        with replication.scope():
            return optimizer.rewrapped(inner, replication)
    with replication.scope():
        if isinstance(optimizer, (str, dict)):
            optimizer = keras.optimizers.get(optimizer)
    made = DistributedOptimizer(optimizer, replication=replication, **settings)
    inner = replication.adopt(made.inner)
    with replication.scope():
        return made.rewrapped(inner, replication)


def scale_loss_of(model, optimizer):
    """Gives an optimizer a dynamic loss scale if the model computes in `mixed_float16`.

    Args:
        model: A `keras.Model`.
        optimizer: A `DistributedOptimizer`; one that scales the loss already stays as it is.
    """
    if is_mixed_float16(model):
        optimizer.use_loss_scale("dynamic")

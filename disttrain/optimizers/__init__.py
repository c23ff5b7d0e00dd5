"""The optimizer wrapper, and optimizers that Keras lacks."""

from disttrain.optimizers.distributed import DistributedOptimizer

__all__ = ["DistributedOptimizer"]

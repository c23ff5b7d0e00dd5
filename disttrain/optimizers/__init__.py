"""The optimizer wrapper, and optimizers that Keras lacks."""

from disttrain.optimizers.distributed import DistributedOptimizer
from disttrain.optimizers.groups import Group, Grouped, layer_decay
from disttrain.optimizers.lars import LARS
from disttrain.optimizers.lookahead import Lookahead
from disttrain.optimizers.sam import SAM

__all__ = [
    "LARS",
    "SAM",
    "DistributedOptimizer",
    "Group",
    "Grouped",
    "Lookahead",
    "layer_decay",
]

"""The optimizer wrapper, and optimizers that Keras lacks."""

from disttrain.optimizers.addons import from_addons
from disttrain.optimizers.distributed import DistributedOptimizer
from disttrain.optimizers.groups import Group, Grouped, layer_decay
from disttrain.optimizers.lars import LARS
from disttrain.optimizers.legacy import from_legacy
from disttrain.optimizers.lookahead import Lookahead
from disttrain.optimizers.sam import SAM

__all__ = [
    "LARS",
    "SAM",
    "DistributedOptimizer",
    "Group",
    "Grouped",
    "Lookahead",
    "from_addons",
    "from_legacy",
    "layer_decay",
]

"""Learning rate schedules that Keras lacks; they work beside and around Keras's own.

Each is a `keras.optimizers.schedules.LearningRateSchedule` of the optimizer's `iterations`, which
skipped steps do not advance.
"""

from disttrain.schedules.composition import (
    ByEpoch,
    Scaled,
    Sequence,
    Warmup,
    scaled_learning_rate,
)
from disttrain.schedules.plateau import Plateau, ReduceOnPlateau
from disttrain.schedules.plot import plot
from disttrain.schedules.shapes import Cyclical, InverseSqrt, OneCycle

__all__ = [
    "ByEpoch",
    "Cyclical",
    "InverseSqrt",
    "OneCycle",
    "Plateau",
    "ReduceOnPlateau",
    "Scaled",
    "Sequence",
    "Warmup",
    "plot",
    "scaled_learning_rate",
]

"""Remembers which learning rates `scaled_learning_rate` has made, so that none is scaled twice."""

import dataclasses
import struct

from disttrain.schedules.base import KerasSchedule

#: By the rate in float32, for an optimizer keeps nothing but that of a number.
_made = {}


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How a learning rate was scaled.

    Attributes:
        factor: What it was multiplied by.
        replicas: For how many replicas.
        rule: `"linear"` or `"sqrt"`.
    """

    factor: float
    replicas: int
    rule: str


class ScaledRate(float):
    """A learning rate that was scaled; a number like any other.

    Attributes:
        scaling: Its `Scaling`.
    """

    def __new__(cls, value, scaling):
        made = super().__new__(cls, value)
        made.scaling = scaling
        _made[_float32(value)] = scaling
        return made

    def __reduce__(self):
        return float, (float(self),)


def scaling_of(rate):
    """The `Scaling` of a schedule or of an optimizer's learning rate, or `None`."""
    if isinstance(rate, KerasSchedule):
        seen = rate
        while seen is not None and not hasattr(seen, "scaling"):
            seen = getattr(seen, "schedule", None)
        return getattr(seen, "scaling", None)
    return getattr(rate, "scaling", None) or _made.get(_float32(rate))


def refuse_twice(rate):
    """Refuses to scale what was scaled.

    Raises:
        ValueError: It was.
    """
    scaling = scaling_of(rate) if isinstance(rate, (ScaledRate, KerasSchedule)) else None
    if scaling is not None:
        raise ValueError(
            f"the learning rate {rate!r} was scaled for {scaling.replicas} replicas already, "
            f"{scaling.factor:g} times; hand in the rate that is right for one replica's batch"
        )


def _float32(value):
    return struct.pack("f", float(value))

"""What a search may choose from: lists, and ranges of numbers."""

import dataclasses
import itertools
import math
import numbers

import numpy as np

#: Whole numbers of a range that a grid goes through at most.
_MOST = 1000


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A number between two others, each equally likely.

    Attributes:
        low: The smallest.
        high: The largest.

    Raises:
        ValueError: They are not finite, or `high` is not above `low`.
    """

    low: float
    high: float

    def __post_init__(self):
        _check(self, numbers.Real)

    def draw(self, rng):
        """A value from a `numpy.random.Generator`."""
        return float(rng.uniform(self.low, self.high))


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """A number above 0 whose logarithm is uniform, as suits learning rates.

    Attributes:
        low: The smallest, above 0.
        high: The largest.

    Raises:
        ValueError: They are not finite, not above 0, or `high` is not above `low`.
    """

    low: float
    high: float

    def __post_init__(self):
        _check(self, numbers.Real)
        if not self.low > 0:
            raise ValueError(f"LogUniform(low=...) must be above 0, not {self.low!r}")

    def draw(self, rng):
        """A value from a `numpy.random.Generator`."""
        value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return float(min(max(value, self.low), self.high))


@dataclasses.dataclass(frozen=True)
class Integer:
    """A whole number, both ends included.

    Attributes:
        low: The smallest.
        high: The largest.

    Raises:
        ValueError: They are no whole numbers, or `high` is not above `low`.
    """

    low: int
    high: int

    def __post_init__(self):
        _check(self, numbers.Integral)

    def draw(self, rng):
        """A value from a `numpy.random.Generator`."""
        return int(rng.integers(self.low, self.high, endpoint=True))


def checked(space):
    """A space as a dictionary whose values are ranges, or lists of JSON values.

    Args:
        space: Name of a parameter to a list, `Uniform`, `LogUniform` or `Integer`.

    Raises:
        TypeError: It is something else.
        ValueError: It is empty, or a list is.
    """
    if not isinstance(space, dict):
        raise TypeError(
            "space must be a dictionary from parameters to what they may be, such as "
            f"{{'learning_rate': LogUniform(1e-4, 1e-1)}}, not {space!r}"
        )
    if not space:
        raise ValueError("space is empty; name at least one parameter")
    return {name: _checked(name, choice) for name, choice in space.items()}


def draw(space, seed, number):
    """The parameters of a trial of a random search, a function of the seed and its number alone."""
    rng = np.random.default_rng([seed, number])
    return {
        name: choice[rng.integers(len(choice))] if isinstance(choice, list) else choice.draw(rng)
        for name, choice in space.items()
    }


def grid(space):
    """All combinations of a space, a list of parameters; the last one changes fastest.

    Raises:
        ValueError: A parameter has no list of values.
    """
    values = {}
    for name, choice in space.items():
        if isinstance(choice, Integer) and choice.high - choice.low < _MOST:
            choice = list(range(choice.low, choice.high + 1))
        if not isinstance(choice, list):
            raise ValueError(
                f"a grid needs a list of values, but {name!r} is {choice!r}; give a list, or take "
                "method='random'"
            )
        values[name] = choice
    return [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]


def _check(space, kind):
    name = type(space).__name__
    for end in (space.low, space.high):
        if not isinstance(end, kind) or isinstance(end, bool) or not math.isfinite(end):
            what = "whole" if kind is numbers.Integral else "finite"
            raise ValueError(f"{name}(low, high) needs two {what} numbers, not {end!r}")
    if not space.high > space.low:
        raise ValueError(f"{name}({space.low!r}, {space.high!r}): high must be above low")


def _checked(name, choice):
    if not isinstance(name, str) or not name.isidentifier():
        raise TypeError(f"a parameter's name must be that of an argument, not {name!r}")
    if isinstance(choice, (Uniform, LogUniform, Integer)):
        return choice
    if isinstance(choice, (list, tuple)):
        values = [value.item() if isinstance(value, np.generic) else value for value in choice]
        if not values:
            raise ValueError(f"the list of {name!r} is empty; give at least one value")
        for value in values:
            if value is not None and not isinstance(value, (bool, int, float, str)):
                raise TypeError(
                    f"the values of {name!r} must be numbers, texts, True, False or None, for they "
                    f"are kept in files, not {value!r}; make what you need of a name"
                )
        return values
    raise TypeError(
        f"{name!r} must be a list of values, Uniform, LogUniform or Integer, not {choice!r}"
    )

"""What a user chooses about telemetry."""

import collections.abc
import dataclasses
import fnmatch
import math
import numbers


@dataclasses.dataclass(frozen=True)
class Telemetry:
    """What is recorded, and how often.

    The first and the last step, and each step that was skipped, are recorded in any case. Numbers
    of steps count from 1.

    Attributes:
        every: Each step whose number it divides is recorded.
        histograms_every: As `every`, for the histograms of weights, gradients, updates and slots;
            `None` for none at all.
        include: Patterns of the paths of variables to record, with `*`, `?` and `[]` as in
            `fnmatch`, where `*` also stands for slashes: a string or a list. `None` for all.
        exclude: Patterns of variables to leave out.
        per_replica: Whether each replica's own gradient norm, loss and times are recorded, from
            which the gradient noise scale follows; `"variables"` adds the local gradient norm of
            each variable.
        divergence_every: After every so many steps the weights of all replicas are compared, and a
            difference beyond rounding is an error; `None` never compares.
        budget: Bytes that the records of a run may take. A run that would need more is recorded
            ever more seldom.
        warnings: Whether a training warns of what the health rules find in its last records, of
            each finding once. Notes, which are no fault, are on the page alone.

    Raises:
        ValueError: An attribute is outside of its range.
    """

    every: int = 10
    histograms_every: int | None = 500
    include: str | tuple | None = None
    exclude: str | tuple | None = None
    per_replica: bool | str = True
    divergence_every: int | None = 1000
    budget: int = 200_000_000
    warnings: bool = True

    def __post_init__(self):
        self._set("every", _whole("every", self.every, "use telemetry=None to record nothing"))
        for name in ("histograms_every", "divergence_every"):
            if getattr(self, name) is not None:
                self._set(name, _whole(name, getattr(self, name), "use None for never"))
        for name in ("include", "exclude"):
            self._set(name, _patterns(name, getattr(self, name)))
        if self.per_replica not in (True, False, "variables"):
            raise ValueError(
                "Telemetry(per_replica=...) must be True, False or 'variables', not "
                f"{self.per_replica!r}"
            )
        if not _is_number(self.budget) or self.budget < 2**20:
            raise ValueError(
                f"Telemetry(budget=...) is a number of bytes, 1048576 or more, not {self.budget!r}"
            )
        self._set("budget", int(self.budget))
        if not isinstance(self.warnings, bool):
            raise ValueError(
                f"Telemetry(warnings=...) must be True or False, not {self.warnings!r}"
            )

    def _set(self, name, value):
        # The way of dataclasses that are frozen.
        object.__setattr__(self, name, value)

    def chosen(self, variables):
        """The variables that are recorded.

        Args:
            variables: Objects with a `path`.

        Returns:
            A list, in the same order.

        Raises:
            ValueError: None is left.
        """
        paths = [variable.path for variable in variables]
        chosen = [
            variable
            for variable, path in zip(variables, paths, strict=True)
            if (self.include is None or _matches(path, self.include))
            and not (self.exclude and _matches(path, self.exclude))
        ]
        if variables and not chosen:
            shown = ", ".join(map(repr, paths[:5])) + (" and more" if len(paths) > 5 else "")
            raise ValueError(
                f"Telemetry(include={self.include!r}, exclude={self.exclude!r}) leaves no variable "
                f"to record; their paths are {shown}"
            )
        return chosen


def _is_number(value):
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


def _whole(name, value, advice):
    if not _is_number(value) or int(value) != value or value < 1:
        raise ValueError(
            f"Telemetry({name}=...) must be a whole number from 1, not {value!r}; {advice}"
        )
    return int(value)


def _patterns(name, value):
    if value is None:
        return None
    listed = isinstance(value, collections.abc.Iterable) and not isinstance(value, str)
    patterns = tuple(value) if listed else (value,)
    if not patterns or not all(pattern and isinstance(pattern, str) for pattern in patterns):
        raise ValueError(
            f"Telemetry({name}=...) takes patterns of variable paths such as 'encoder/*', not "
            f"{value!r}"
        )
    return patterns


def _matches(path, patterns):
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)

"""The records of one run over all of its parts, as if they had been written as one.

Parts may differ in variables and columns. Joined, they have the union of both, in model order, and
where a part lacks one its values are NaN and not recorded.
"""

import dataclasses
import itertools
import math

import numpy as np

from tensorboard_plugin import metadata
from tensorboard_plugin.parts import current


@dataclasses.dataclass(frozen=True)
class Variable:
    """One variable of a run.

    Attributes:
        path: Its path, made unique with `#2`, `#3` where a model repeats one.
        shape: List of int.
        dtype: Name of its type, such as `"float32"`.
        trainable: Whether training changes it.
        slots: By slot name, an object with `dtype` and `bytes`.
        parameters: Number of elements.
    """

    path: str
    shape: list
    dtype: str
    trainable: bool
    slots: dict
    parameters: int


def describe_variables(part):
    """The `Variable`s of one part, in model order. Fields of the wrong type become empty ones."""
    seen = {}
    variables = []
    for entry in part.variables:
        path = entry["path"]
        seen[path] = seen.get(path, 0) + 1
        if seen[path] > 1:
            path = f"{path}#{seen[path]}"
        shape = entry.get("shape")
        if not isinstance(shape, list) or not all(type(size) is int for size in shape):
            shape = []
        slots = entry.get("slots")
        variables.append(
            Variable(
                path,
                shape,
                str(entry.get("dtype", "")),
                bool(entry.get("trainable", True)),
                slots if isinstance(slots, dict) else {},
                math.prod(shape),
            )
        )
    return variables


def merge(lists):
    """The union of lists of names; a name that is new goes behind the one it followed.

    >>> merge([["a", "c"], ["a", "b", "c", "d"]])
    ['a', 'b', 'c', 'd']
    """
    merged = []
    known = set()
    for names in lists:
        at = 0
        for name in names:
            if name in known:
                at = merged.index(name) + 1
            else:
                merged.insert(at, name)
                known.add(name)
                at += 1
    return merged


def merge_variables(parts):
    """The union of the variables of several `metadata.Part`s; the latest description wins."""
    described = [describe_variables(part) for part in parts]
    latest = {variable.path: variable for variables in described for variable in variables}
    return [latest[path] for path in merge([[v.path for v in vs] for vs in described])]


def merge_columns(parts):
    """The union of the columns of several `metadata.Part`s, in order."""
    return merge([part.columns for part in parts])


class Joined:
    """Records of one run, over parts and a range of steps.

    Attributes:
        steps: `[records]` int64, strictly increasing.
        wall_times: `[records]` float64, seconds since the epoch.
    """

    def __init__(self, parts, records, start=None, end=None):
        """Joins.

        Args:
            parts: `metadata.Part`s in order.
            records: `parts.Records` of each.
            start: First step wanted, or `None`.
            end: Last step wanted, or `None`.
        """
        self._parts = parts
        self._records = records
        steps = np.concatenate([np.empty(0, np.int64), *(r.steps for r in records)])
        wall_times = np.concatenate([np.empty(0), *(r.wall_times for r in records)])
        chosen = current(steps, wall_times)
        low = 0 if start is None else np.searchsorted(steps[chosen], start, "left")
        high = len(chosen) if end is None else np.searchsorted(steps[chosen], end, "right")
        chosen = chosen[low:high]
        self.steps = steps[chosen]
        self.wall_times = wall_times[chosen]
        # For each part: rows of its own array, and where they go in the joined one.
        offsets = np.cumsum([0, *(len(r.steps) for r in records)])
        self._rows = []
        for first, last in itertools.pairwise(offsets):
            to = np.flatnonzero((chosen >= first) & (chosen < last))
            self._rows.append((chosen[to] - first, to))

    def layers(self, statistic, paths):
        """One statistic of some variables.

        Args:
            statistic: A column's name.
            paths: Paths of variables.

        Returns:
            `(values, recorded)`: `[records, variables]` float32 and bool. NaN counts as not
            recorded where the statistic does not apply: a variable that is not trained, or one
            that lacks the slot.
        """
        values = np.full((len(self.steps), len(paths)), np.nan, np.float32)
        recorded = np.zeros(values.shape, bool)
        place = {path: index for index, path in enumerate(paths)}
        for part, records, (rows, to) in zip(self._parts, self._records, self._rows, strict=True):
            if statistic not in part.columns or not len(rows):
                continue
            column = part.columns.index(statistic)
            wanted = [
                (index, place[variable.path], variable)
                for index, variable in enumerate(describe_variables(part))
                if variable.path in place
            ]
            if not wanted:
                continue
            source, target, variables = zip(*wanted, strict=True)
            source, target = np.array(source), np.array(target)
            block = records.values[rows[:, None], source[None, :], column]
            applies = np.array([_applies(variable, statistic) for variable in variables])
            values[to[:, None], target[None, :]] = block
            recorded[to[:, None], target[None, :]] = applies | ~np.isnan(block)
        return values, recorded

    def quantities(self, names):
        """Columns of parts without a variable axis.

        Returns:
            `(values, recorded)`: `[records, names]` float32 and bool.
        """
        values = np.full((len(self.steps), len(names)), np.nan, np.float32)
        recorded = np.zeros(values.shape, bool)
        for part, records, (rows, to) in zip(self._parts, self._records, self._rows, strict=True):
            for target, name in enumerate(names):
                if name in part.columns:
                    values[to, target] = records.values[rows, part.columns.index(name)]
                    recorded[to, target] = True
        return values, recorded


def _applies(variable, statistic):
    slot = statistic.removeprefix(metadata.SLOT_PREFIX)
    return variable.trainable and (slot == statistic or slot in variable.slots)

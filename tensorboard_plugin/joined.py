"""The records of one run over all of its parts, as if they had been written as one.

Parts may differ in variables, columns, replicas and bins. Joined, they have the union of each, and
where a part lacks one its values are NaN and not recorded. Values come a part at a time, so that
a run of any length takes the memory of one part.
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
    for names in dict.fromkeys(map(tuple, lists)):  # Nearly all parts of a run name the same.
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


def merge_bins(parts):
    """The union of the bins of several `metadata.Part`s: counts in order, then exponents, rising.

    The lowest and the highest bin of a part take what lies beyond, also where another part has
    bins for it.
    """
    counts = merge([[name for name in part.bins if isinstance(name, str)] for part in parts])
    exponents = {bin_ for part in parts for bin_ in part.bins if not isinstance(bin_, str)}
    return [*counts, *sorted(exponents)]


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
            records: `parts.Records` or `parts.Opened` of each.
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

    def spans(self):
        """The first and last step of each part's records, `None` for a part without any here."""
        places = [to for _, to in self._rows]
        return [
            (int(self.steps[to[0]]), int(self.steps[to[-1]])) if len(to) else None for to in places
        ]

    def layers(self, statistic, paths):
        """One statistic of some variables, over all parts at once.

        Args:
            statistic: A column's name.
            paths: Paths of variables.

        Returns:
            `(values, recorded)`: `[records, variables]` float32 and bool, as `layer_portions`.
        """
        whole = self._gather(self.layer_portions([statistic], paths), (len(paths), 1))
        return tuple(array[..., 0] for array in whole)

    def quantities(self, names):
        """Columns of parts without a variable axis, over all parts at once.

        Returns:
            `(values, recorded)`: `[records, names]` float32 and bool.
        """
        return self._gather(self.quantity_portions(names), (len(names),))

    def layer_portions(self, statistics, paths):
        """Some statistics of some variables, a part at a time.

        Args:
            statistics: Names of columns.
            paths: Paths of variables.

        Yields:
            `(places, values, recorded)` of each part, for `buckets.collect`: `[n]` indices into
            `steps`, `[n, variables, statistics]` float32 and bool. NaN counts as not recorded
            where the statistic does not apply: a variable that is not trained, or one that lacks
            the slot.
        """
        for part, places, values, recorded in self._portions(_layer_axes, (paths, statistics)):
            variables = {variable.path: variable for variable in describe_variables(part)}
            applies = [
                [path in variables and _applies(variables[path], name) for name in statistics]
                for path in paths
            ]
            yield places, values, recorded & (np.array(applies) | ~np.isnan(values))

    def quantity_portions(self, names):
        """Columns of parts without a variable axis: as `layer_portions`, `[n, names]`."""
        for _, *portion in self._portions(_step_axes, (names,)):
            yield portion

    def replica_portions(self, names, replicas):
        """Columns of the first `replicas` replicas: as `layer_portions`, `[n, replicas, names]`."""
        for _, *portion in self._portions(_replica_axes, (range(replicas), names)):
            yield portion

    def histogram_portions(self, quantity, paths, bins):
        """Counts of some variables' elements: as `layer_portions`, `[n, variables, bins]`.

        A count that is not finite is none, as of a slot that the variable lacks: not recorded.
        """
        wanted = (paths, [quantity], bins)
        for _, places, values, _ in self._portions(_histogram_axes, wanted):
            values = values[:, :, 0]
            finite = np.isfinite(values)
            yield places, np.where(finite, values, np.float32(np.nan)), finite

    def _gather(self, portions, shape):
        values = np.full((len(self.steps), *shape), np.nan, np.float32)
        recorded = np.zeros(values.shape, bool)
        for places, *portion in portions:
            values[places], recorded[places] = portion
        return values, recorded

    def _portions(self, axes, wanted):
        """What parts have of the wanted names.

        Args:
            axes: Function from a `metadata.Part` to the names along each axis of its records.
            wanted: The names wanted along each axis.

        Yields:
            `(part, places, values, recorded)` of each part that has some; what it lacks is NaN and
            not recorded.
        """
        portions = list(zip(self._parts, self._records, self._rows, strict=True))
        # What is in memory first: in order, each part would push out one that is still to come.
        portions.sort(key=lambda portion: not portion[1].held())
        for part, records, (rows, places) in portions:
            matches = [_match(*names) for names in zip(axes(part), wanted, strict=True)]
            sources, targets = zip(*matches, strict=True)
            if not len(rows) or not all(map(len, sources)):
                continue
            read, rows, kept = records.locate(rows)
            values = np.full((len(rows), *map(len, wanted)), np.nan, np.float32)
            recorded = np.zeros(values.shape, bool)
            at = np.ix_(np.arange(len(rows)), *targets)
            values[at] = read[np.ix_(rows, *sources)]
            recorded[at] = True
            del read  # Else it would stay in memory while the next part is read.
            yield part, places[kept], values, recorded


def _layer_axes(part):
    return [variable.path for variable in describe_variables(part)], part.columns


def _step_axes(part):
    return (part.columns,)


def _replica_axes(part):
    return range(part.replicas), part.columns


def _histogram_axes(part):
    return [variable.path for variable in describe_variables(part)], part.columns, part.bins


def _match(have, wanted):
    """Indices of the names in both: where they are, and where they are wanted."""
    at = {name: index for index, name in reversed(list(enumerate(have)))}
    pairs = [(at[name], target) for target, name in enumerate(wanted) if name in at]
    return np.array(pairs, np.int64).reshape(-1, 2).T


def _applies(variable, statistic):
    slot = statistic.removeprefix(metadata.SLOT_PREFIX)
    return variable.trainable and (slot == statistic or slot in variable.slots)

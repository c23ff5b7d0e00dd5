"""The records of one run over all of its parts, as if they had been written as one.

Parts may differ in variables, columns, replicas and bins. Joined, they have the union of each, and
where a part lacks one its values are NaN and not recorded. Values come a part at a time, so that
a run of any length takes the memory of one part.
"""

import itertools

import numpy as np

from tensorboard_plugin import axes, metadata
from tensorboard_plugin.parts import current


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
            records: `parts.Records` or `partreader.Opened` of each.
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
            `steps`, `[n, variables, statistics]` float32 and bool, or `None` where all values are
            recorded. NaN counts as not recorded where the statistic does not apply: a variable
            that is not trained, or one that lacks the slot.
        """
        known = _Memory(lambda part: _applying(part, paths, statistics))
        portions = self._portions(metadata.LAYERS, (paths, statistics))
        for part, places, values, recorded in portions:
            applies = known[part]
            if recorded is not None:
                recorded &= applies | ~np.isnan(values)
            elif not applies.all():
                recorded = applies | ~np.isnan(values)
            yield places, values, recorded
            del values

    def quantity_portions(self, names):
        """Columns of parts without a variable axis: as `layer_portions`, `[n, names]`."""
        for _, *portion in self._portions(metadata.STEPS, (names,)):
            yield portion

    def replica_portions(self, names, replicas):
        """Columns of the first `replicas` replicas: as `layer_portions`, `[n, replicas, names]`."""
        for _, *portion in self._portions(metadata.REPLICAS, (range(replicas), names)):
            yield portion

    def histogram_portions(self, quantity, paths, bins):
        """Counts of some variables' elements: as `layer_portions`, `[n, variables, bins]`.

        A count that is not finite is none, as of a slot that the variable lacks: not recorded.
        """
        wanted = (paths, [quantity], bins)
        for _, places, values, _ in self._portions(metadata.HISTOGRAMS, wanted):
            values = values[:, :, 0]
            finite = np.isfinite(values)
            yield places, np.where(finite, values, np.float32(np.nan)), finite

    def _gather(self, portions, shape):
        values = np.full((len(self.steps), *shape), np.nan, np.float32)
        recorded = np.zeros(values.shape, bool)
        for places, portion, there in portions:
            values[places], recorded[places] = portion, True if there is None else there
        return values, recorded

    def _portions(self, tag, wanted):
        """What parts have of the wanted names.

        Args:
            tag: That of the parts, one of `metadata.TAGS`.
            wanted: The names wanted along each axis of `axes.names`.

        Yields:
            `(part, places, values, recorded)` of each part that has some; what it lacks is NaN and
            not recorded. `recorded` is `None` where it lacks nothing.
        """
        known = _Memory(lambda part: axes.match(tag, part, wanted))
        sizes = tuple(map(len, wanted))
        portions = []
        for part, records, (rows, places) in zip(
            self._parts, self._records, self._rows, strict=True
        ):
            sources, targets = known[part]
            if len(rows) and all(map(len, sources)):
                held = records.holds(sources)
                portions.append((held, part, records, rows, places, sources, targets))
        # What is in memory first: in order, each part would push out one that is still to come.
        portions.sort(key=lambda portion: not portion[0])
        for _, part, records, rows, places, sources, targets in portions:
            values, kept = records.select(rows, sources)
            recorded = None
            whole = map(np.arange, sizes)
            if not all(map(np.array_equal, targets, whole)):
                read = values
                values = np.full((len(read), *sizes), np.nan, np.float32)
                recorded = np.zeros(values.shape, bool)
                at = np.ix_(np.arange(len(read)), *targets)
                values[at] = read
                recorded[at] = True
                del read
            yield part, places[kept], values, recorded
            # Else they would stay in memory while the next part is read.
            del values, recorded


class _Memory:
    """What a function gives for a `metadata.Part`, of which nearly all in a run are the same."""

    def __init__(self, function):
        self._function = function
        self._known = {}

    def __getitem__(self, part):
        if id(part) not in self._known:
            # The part is kept with it: another could take its place in memory, and so its number.
            self._known[id(part)] = part, self._function(part)
        return self._known[id(part)][1]


def _applying(part, paths, statistics):
    """`[paths, statistics]` bool: whether a statistic says something of a variable of a part."""
    variables = {variable.path: variable for variable in axes.describe_variables(part)}
    found = np.zeros((len(paths), len(statistics)), bool)
    for row, path in zip(found, paths, strict=True):
        if path in variables:
            row[:] = [_applies(variables[path], name) for name in statistics]
    return found


def _applies(variable, statistic):
    slot = statistic.removeprefix(metadata.SLOT_PREFIX)
    return variable.trainable and (slot == statistic or slot in variable.slots)

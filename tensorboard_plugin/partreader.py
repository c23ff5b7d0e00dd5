"""Reads parts through the data provider, and keeps of them what will be asked again.

The provider reads a part whole, at about 400 MB/s, or a random sample of it. Small parts are kept
whole. Of a large one only planes are: all records of one statistic, or of one variable, which are
what an answer is made of, so that the next range of steps of it needs no reading.
"""

import collections.abc
import dataclasses
import functools
import threading

import numpy as np
from tensorboard.data import provider

from tensorboard_plugin import axes, cache, metadata, parts

#: The provider samples at random above this many records, so it is above any part's number.
EVERY_RECORD = 2**31 - 1

#: How many bytes are kept of whole parts, of planes, and of steps and wall times, which say what
#: to read again.
CACHE_BYTES = 2**26
PLANE_BYTES = 5 * 2**25
INDEX_BYTES = 2**25

#: Above so many bytes a part is large.
LARGE_PART = 2**24

#: What the provider raises for a tensor that is not what it claims to be.
_DAMAGE = (ArithmeticError, LookupError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A part whose steps and wall times are known, and whose values are read when wanted.

    Many parts can be open while the values of one are in memory.

    Attributes:
        steps: `[n]` int64.
        wall_times: `[n]` float64 seconds.
        problems: `parts.Problem`s of the part.
        read: Function from `sources`, as of `select`, to what `PartReader.select` returns.
        holds: Function from `sources` that tells whether they are in memory.
    """

    steps: np.ndarray
    wall_times: np.ndarray
    problems: tuple
    read: collections.abc.Callable
    holds: collections.abc.Callable

    def select(self, rows, sources):
        """Some names of some records.

        Args:
            rows: `[k]` int64, indices into `steps`, increasing.
            sources: Along each axis of the values, int64 indices of the names, as of `axes.match`.

        Returns:
            `(values, kept)`: `[m, ...]` float32, the records that are there, and `[k]` bool, false
            for the `k - m` that are gone. Only a part that changed between two reads, as it does
            while a training writes it, has its records elsewhere.
        """
        (steps, wall_times, _), values = self.read(sources)
        everything = [np.arange(size) for size in values.shape[1:]]
        if np.array_equal(steps, self.steps) and np.array_equal(wall_times, self.wall_times):
            taken, kept = parts.take(values, rows, *everything), np.ones(len(rows), bool)
            return np.ascontiguousarray(taken), kept
        now = {stamp: row for row, stamp in enumerate(_stamps(steps, wall_times))}
        wanted = _stamps(self.steps[rows], self.wall_times[rows])
        found = np.array([now.get(stamp, -1) for stamp in wanted], np.int64)
        return parts.take(values, found[found >= 0], *everything), found >= 0


def _stamps(steps, wall_times):
    return zip(steps.tolist(), wall_times.tolist(), strict=True)


class PartReader:
    """Reads parts; safe to call from several threads.

    Args:
        data_provider: TensorBoard's data provider.
        cache_bytes: As `CACHE_BYTES`.
        plane_bytes: As `PLANE_BYTES`.
        large: As `LARGE_PART`.

    Attributes:
        planes: The `cache.Cache` of planes, which others may share that keep parts of records.
    """

    def __init__(
        self, data_provider, cache_bytes=CACHE_BYTES, plane_bytes=PLANE_BYTES, large=LARGE_PART
    ):
        self._provider = data_provider
        self._records = cache.Cache(cache_bytes)
        self._indices = cache.Cache(INDEX_BYTES)
        self.planes = cache.Cache(plane_bytes)
        self._large = large
        self._reading = threading.Lock()

    def read(self, ctx, experiment, run, listed, keep=True):
        """All `parts.Records` of a `parts.ListedPart`, in the order written.

        Args:
            ctx: The request's context.
            experiment: The experiment's identifier.
            run: The run's name.
            listed: The `parts.ListedPart`.
            keep: Whether a large part is kept, too.
        """
        key, stamp = parts.cache_key(experiment, run, listed)
        records = self._records.get(key, stamp)
        if records is not None:
            return records
        # Requests come on many threads. One at a time reads, so that no part is read by two.
        with self._reading:
            records = self._records.get(key, stamp)
            if records is None:
                records = self._fetch(ctx, experiment, run, listed)
                if keep or records.values.nbytes <= self._large:
                    self._records.put(key, stamp, records, records.values.nbytes)
        return records

    def select(self, ctx, experiment, run, listed, sources):
        """Some names of all records of a part.

        Args:
            ctx: The request's context.
            experiment: The experiment's identifier.
            run: The run's name.
            listed: The `parts.ListedPart`.
            sources: As for `Opened.select`.

        Returns:
            `(index, values)`: `(steps, wall_times, problems)`, and `[n, ...]` float32.
        """
        found = self._held(experiment, run, listed, sources)
        if found is not None:
            return found
        axis = _narrow(listed.shape, sources)
        if axis is None:
            records = self.read(ctx, experiment, run, listed)
            return records.index, _names(records.values, sources)
        with self._reading:
            found = self._held(experiment, run, listed, sources)
            if found is not None:
                return found
            records = self._fetch(ctx, experiment, run, listed)
            key, stamp = parts.cache_key(experiment, run, listed)
            if records.values.nbytes <= self._large:
                self._records.put(key, stamp, records, records.values.nbytes)
            else:
                for name in sources[axis].tolist():
                    # A copy, else all of the part would stay.
                    plane = np.ascontiguousarray(np.take(records.values, name, axis + 1))
                    size = plane.nbytes + records.steps.nbytes + records.wall_times.nbytes
                    self.planes.put((*key, axis, name), stamp, (records.index, plane), size)
        chosen = _names(records.values, sources)
        return records.index, np.ascontiguousarray(chosen)

    def open(self, ctx, experiment, run, listed, wanted=None):
        """A `parts.ListedPart` as `Opened`; it is read here only if its steps are not known yet.

        Args:
            ctx: The request's context.
            experiment: The experiment's identifier.
            run: The run's name.
            listed: The `parts.ListedPart`.
            wanted: Names along each axis that will be asked for, as for `axes.match`. A part that
                is read here keeps them.
        """
        key = parts.cache_key(experiment, run, listed)
        index = self._indices.get(*key)
        if index is None:
            sources = _sources(listed, wanted)
            if sources is None:
                # Without anything wanted of it, its values are not asked for next.
                index = self.read(ctx, experiment, run, listed, keep=wanted is None).index
            else:
                index, _ = self.select(ctx, experiment, run, listed, sources)
        read = functools.partial(self.select, ctx, experiment, run, listed)
        holds = functools.partial(self._holds, experiment, run, listed)
        return Opened(*index, read, holds)

    def sample(self, ctx, experiment, run, listed, count):
        """At most so many `parts.Records` of a part, chosen at random, the last among them."""
        return self._ask(ctx, experiment, run, listed, count)

    def must_read(self, experiment, run, listed, wanted, start=None, end=None):
        """Whether a part has to be read for an answer.

        Args:
            experiment: The experiment's identifier.
            run: The run's name.
            listed: The `parts.ListedPart`.
            wanted: Names along each axis, as for `axes.match`.
            start: First step wanted, or `None`.
            end: Last step wanted, or `None`.
        """
        index = self._indices.get(*parts.cache_key(experiment, run, listed))
        if index is None:
            return True
        inside = np.ones(len(index[0]), bool)
        if start is not None:
            inside &= index[0] >= start
        if end is not None:
            inside &= index[0] <= end
        sources = _sources(listed, wanted)
        if sources is None or not inside.any():
            return False
        return not self._holds(experiment, run, listed, sources)

    def _holds(self, experiment, run, listed, sources):
        key, stamp = parts.cache_key(experiment, run, listed)
        if self._records.get(key, stamp) is not None:
            return True
        return self._planes(key, stamp, _narrow(listed.shape, sources), sources) is not None

    def _held(self, experiment, run, listed, sources):
        """What `select` returns, or `None` where the part has to be read for it."""
        key, stamp = parts.cache_key(experiment, run, listed)
        records = self._records.get(key, stamp)
        if records is not None:
            return records.index, _names(records.values, sources)
        axis = _narrow(listed.shape, sources)
        found = self._planes(key, stamp, axis, sources)
        if found is None:
            return None
        index, planes = found
        # One plane is not copied.
        joined = np.stack(planes, axis + 1) if planes[1:] else np.expand_dims(planes[0], axis + 1)
        others = [s if a != axis else np.arange(len(s)) for a, s in enumerate(sources)]
        return index, _names(joined, others)

    def _planes(self, key, stamp, axis, sources):
        """`(index, planes)` along an axis where all of them are kept, or `None`."""
        if axis is None:
            return None
        found = [self.planes.get((*key, axis, name), stamp) for name in sources[axis].tolist()]
        if any(one is None for one in found):
            return None
        index = found[0][0]
        # Of a part that is written, two readings may find other records.
        for other, _ in found:
            if other is not index and not all(map(np.array_equal, other[:2], index[:2])):
                return None
        return index, [plane for _, plane in found]

    def _fetch(self, ctx, experiment, run, listed):
        records = self._ask(ctx, experiment, run, listed, EVERY_RECORD)
        key, stamp = parts.cache_key(experiment, run, listed)
        size = records.steps.nbytes + records.wall_times.nbytes
        self._indices.put(key, stamp, records.index, size)
        return records

    def _ask(self, ctx, experiment, run, listed, count):
        try:
            answer = self._provider.read_tensors(
                ctx,
                experiment_id=experiment,
                plugin_name=metadata.PLUGIN_NAME,
                downsample=count,
                run_tag_filter=provider.RunTagFilter(runs=[run], tags=[listed.tag]),
            )
        except _DAMAGE as error:
            return parts.nothing(listed, error)
        return parts.stack(listed, answer.get(run, {}).get(listed.tag, []))


def _names(values, sources):
    return parts.take(values, np.arange(len(values)), *sources)


def _sources(listed, wanted):
    """Where a part has wanted names, or `None` where it lacks those of an axis."""
    if wanted is None:
        return None
    sources, _ = axes.match(metadata.parse_tag(listed.tag)[0], listed.part, wanted)
    return sources if all(map(len, sources)) else None


def _narrow(shape, sources):
    """The axis along which the smallest share is wanted, or `None` where that is over a half."""
    shares = [len(names) / size for names, size in zip(sources, shape, strict=True)]
    axis = int(np.argmin(shares))
    return axis if shares[axis] <= 0.5 else None

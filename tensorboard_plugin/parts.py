"""From the data provider's numbered parts to the records of one run, joined over all its parts.

Parts are read whole, one at a time, since the provider can read no range of steps; a small cache
keeps them. What cannot be read is left out and reported. Bucketing and answers live elsewhere.
"""

import collections
import collections.abc
import dataclasses
import functools
import logging
import math
import threading

import numpy as np
from tensorboard.data import provider

from tensorboard_plugin import cache, metadata

logger = logging.getLogger(__name__)

#: The provider samples at random above this many records, so it is above any part's number.
EVERY_RECORD = 2**31 - 1

#: How many bytes of values are kept, and of steps and wall times, which say what to read again.
CACHE_BYTES = 2**28
INDEX_BYTES = 2**26

#: What the provider raises for a tensor that is not what it claims to be.
_DAMAGE = (ArithmeticError, LookupError, TypeError, ValueError)

#: Metadata that claims more replicas is damaged; the axis would outgrow any answer.
MAX_REPLICAS = 2**16


@dataclasses.dataclass(frozen=True)
class Problem:
    """A tag that cannot be read in full, and why, in words for a person."""

    tag: str
    message: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """What the provider lists of one run, without reading any record.

    Attributes:
        parts: By `metadata.LAYERS` and so on, the readable parts in order of their numbers.
        problems: One `Problem` for each part whose metadata cannot be read.
        last_step: The newest step of any part, or -1.
        last_wall_time: The newest wall time of any part, in seconds since the epoch, or 0.
    """

    parts: dict
    problems: tuple
    last_step: int
    last_wall_time: float


@dataclasses.dataclass(frozen=True)
class ListedPart:
    """One part: its tag, its metadata, and the newest step and wall time it holds."""

    tag: str
    part: metadata.Part
    max_step: int
    max_wall_time: float


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of one part: steps `[n]`, wall times `[n]`, float32 values `[n, ...]`."""

    steps: np.ndarray
    wall_times: np.ndarray
    values: np.ndarray
    problems: tuple = ()

    def held(self):
        """Whether the values are in memory: they are here."""
        return True

    def locate(self, rows):
        """Where some records are; see `Opened.locate`."""
        return self.values, rows, np.ones(len(rows), bool)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A part whose steps and wall times are known, and whose values are read when wanted.

    Many parts can be open while the values of one are in memory.

    Attributes:
        steps: `[n]` int64.
        wall_times: `[n]` float64 seconds.
        problems: `Problem`s of the part.
        read: Function without arguments that gives its `Records`.
        held: Function without arguments that tells whether they are in memory.
    """

    steps: np.ndarray
    wall_times: np.ndarray
    problems: tuple
    read: collections.abc.Callable
    held: collections.abc.Callable

    def locate(self, rows):
        """Reads the values, and finds some of the records among them.

        Args:
            rows: `[k]` int64, indices into `steps`.

        Returns:
            `(values, found, kept)`: the values of the whole part, the rows of it where the
            records are, and `[k]` bool, false for a record that is gone. Only a part that changed
            between two reads, as it does while a training writes it, has its records elsewhere.
        """
        records = self.read()
        if np.array_equal(records.steps, self.steps) and np.array_equal(
            records.wall_times, self.wall_times
        ):
            return records.locate(rows)
        now = {stamp: row for row, stamp in enumerate(_stamps(records, slice(None)))}
        found = np.array([now.get(stamp, -1) for stamp in _stamps(self, rows)], np.int64)
        return records.values, found[found >= 0], found >= 0


def _stamps(records, rows):
    steps, wall_times = records.steps[rows], records.wall_times[rows]
    return zip(steps.tolist(), wall_times.tolist(), strict=True)


def list_runs(data_provider, ctx, experiment, runs=None):
    """Lists runs that hold our data.

    Args:
        data_provider: TensorBoard's data provider.
        ctx: The request's context.
        experiment: The experiment's identifier.
        runs: Names to look at, or `None` for all.

    Returns:
        `{run name: Listing}`.
    """
    listed = data_provider.list_tensors(
        ctx,
        experiment_id=experiment,
        plugin_name=metadata.PLUGIN_NAME,
        run_tag_filter=provider.RunTagFilter(runs=runs),
    )
    return {run: _listing(tags) for run, tags in listed.items() if tags}


def _listing(tags):
    parts = collections.defaultdict(list)
    problems = []
    for tag, series in tags.items():
        parsed = metadata.parse_tag(tag)
        if parsed is None:
            problems.append(Problem(tag, "this version of the plugin does not know the tag"))
            continue
        kind, number = parsed
        try:
            part = metadata.decode(series.plugin_content)
            _check_replicas(kind, part)
        except ValueError as error:
            problems.append(Problem(tag, str(error)))
            continue
        listed = ListedPart(tag, part, _or(series.max_step, -1), _or(series.max_wall_time, 0.0))
        parts[kind].append((number, listed))
    return Listing(
        {kind: [part for _, part in sorted(items, key=_number)] for kind, items in parts.items()},
        tuple(problems),
        max((_or(series.max_step, -1) for series in tags.values()), default=-1),
        max((_or(series.max_wall_time, 0.0) for series in tags.values()), default=0.0),
    )


def _check_replicas(kind, part):
    if kind == metadata.REPLICAS and not 1 <= part.replicas <= MAX_REPLICAS:
        raise ValueError(f"the metadata of a disttrain part claims {part.replicas} replicas")


def _number(item):
    return item[0]


def _or(value, default):
    return default if value is None else value


def from_step(parts, start):
    """The parts that can hold a record of step `start` or later.

    Leading parts that end before `start` are left out, unless one was written after a part that is
    kept: then a resumed run wrote it, and it still decides which older records count.
    """
    kept = [part for part in parts if part.max_step >= start]
    first_written = min((part.max_wall_time for part in kept), default=math.inf)
    return [p for p in parts if p.max_step >= start or p.max_wall_time > first_written]


class PartReader:
    """Reads parts through the data provider and keeps the last ones used, up to `cache_bytes`."""

    def __init__(self, data_provider, cache_bytes=CACHE_BYTES):
        self._provider = data_provider
        self._records = cache.Cache(cache_bytes)
        self._indices = cache.Cache(INDEX_BYTES)
        self._reading = threading.Lock()

    def read(self, ctx, experiment, run, listed):
        """All `Records` of a `ListedPart`, in the order written."""
        key, stamp = cache_key(experiment, run, listed)
        records = self._records.get(key, stamp)
        if records is not None:
            return records
        # Requests come on many threads. One at a time reads, so that no part is read by two.
        with self._reading:
            records = self._records.get(key, stamp)
            if records is not None:
                return records
            try:
                answer = self._provider.read_tensors(
                    ctx,
                    experiment_id=experiment,
                    plugin_name=metadata.PLUGIN_NAME,
                    downsample=EVERY_RECORD,
                    run_tag_filter=provider.RunTagFilter(runs=[run], tags=[listed.tag]),
                )
            except _DAMAGE as error:
                records = _nothing(listed, error)
            else:
                records = _stack(listed, answer.get(run, {}).get(listed.tag, []))
            index = (records.steps, records.wall_times, records.problems)
            self._records.put(key, stamp, records, records.values.nbytes)
            self._indices.put(key, stamp, index, records.steps.nbytes + records.wall_times.nbytes)
        return records

    def open(self, ctx, experiment, run, listed):
        """A `ListedPart` as `Opened`; it is read here only if its steps are not known yet."""
        index = self._indices.get(*cache_key(experiment, run, listed))
        if index is None:
            records = self.read(ctx, experiment, run, listed)
            index = (records.steps, records.wall_times, records.problems)
        key = cache_key(experiment, run, listed)
        read = functools.partial(self.read, ctx, experiment, run, listed)
        return Opened(*index, read, lambda: self._records.get(*key) is not None)


def cache_key(experiment, run, listed):
    """What a part is cached under, and what differs once it has other records."""
    shape = listed.part.shape(metadata.parse_tag(listed.tag)[0])
    stamp = (listed.max_step, listed.max_wall_time, listed.part.columns, shape)
    return (experiment, run, listed.tag), stamp


def _nothing(listed, error):
    message = f"the records cannot be read, one of them is damaged ({str(error)[:200]!r})"
    logger.warning("%s: %s", listed.tag, message)
    values = np.empty((0, *listed.part.shape(metadata.parse_tag(listed.tag)[0])), np.float32)
    problems = (Problem(listed.tag, message),)
    return Records(np.empty(0, np.int64), np.empty(0), values, problems)


def _stack(listed, data):
    part = listed.part
    shape = part.shape(metadata.parse_tag(listed.tag)[0])
    fits = [d for d in data if d.numpy.shape == shape and d.numpy.dtype.kind in "fiu"]
    problems = ()
    if len(fits) < len(data):
        message = (
            f"{len(data) - len(fits)} of {len(data)} records have another shape or type than the "
            f"metadata's float32 {list(shape)}; two writers in one run directory do this"
        )
        problems = (Problem(listed.tag, message),)
        logger.warning("%s: %s", listed.tag, message)
    values = np.empty((len(fits), *shape), np.float32)
    with np.errstate(over="ignore"):  # A float64 beyond float32 becomes an infinity, which shows.
        for row, datum in zip(values, fits, strict=True):
            row[...] = datum.numpy
    steps = np.array([datum.step for datum in fits], np.int64)
    wall_times = np.array([datum.wall_time for datum in fits], np.float64)
    return Records(steps, wall_times, values, problems)


def current(steps, wall_times):
    """Which records count where a resumed run wrote some steps again.

    A record is superseded by any record of the same or an earlier step that was written after it:
    the run went back there. The provider keeps no order of writing, hence the wall times.

    Args:
        steps: `[n]` int64, in the order of parts.
        wall_times: `[n]` float64 seconds.

    Returns:
        Indices into both, by increasing step; each step appears once.
    """
    order = np.lexsort((np.arange(len(steps)), wall_times, steps))
    newest = np.maximum.accumulate(wall_times[order]) if len(order) else wall_times
    order = order[wall_times[order] >= newest]
    last_of_step = np.append(np.diff(steps[order]) > 0, True)[: len(order)]
    return order[last_of_step]

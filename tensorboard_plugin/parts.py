"""The data provider's numbered parts: what is listed of them, and which of their records count.

What cannot be read is left out and reported. `partreader` reads; `joined` joins.
"""

import collections
import dataclasses
import logging
import math

import numpy as np
from tensorboard.data import provider

from tensorboard_plugin import metadata

logger = logging.getLogger(__name__)

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

    @property
    def shape(self):
        """The shape of one record."""
        return self.part.shape(metadata.parse_tag(self.tag)[0])


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of one part: steps `[n]`, wall times `[n]`, float32 values `[n, ...]`."""

    steps: np.ndarray
    wall_times: np.ndarray
    values: np.ndarray
    problems: tuple = ()

    @property
    def index(self):
        """What is known of the records without their values."""
        return self.steps, self.wall_times, self.problems

    def holds(self, sources):
        """Whether the values are in memory: they are here."""
        del sources
        return True

    def select(self, rows, sources):
        """Some names of some records; see `partreader.Opened.select`."""
        return take(self.values, rows, *sources), np.ones(len(rows), bool)


def take(values, *indices):
    """`values[np.ix_(*indices)]`, without a copy where the indices of all axes are in a row.

    Args:
        values: An array.
        indices: For each axis, `[k]` int64.
    """
    for axis, index in enumerate(indices):
        low = int(index[0]) if len(index) else 0
        if np.array_equal(index, np.arange(low, low + len(index))):
            values = values[(slice(None),) * axis + (slice(low, low + len(index)),)]
        else:
            values = np.take(values, index, axis)
    return values


def list_runs(data_provider, ctx, experiment, runs=None, decode=metadata.decode):
    """Lists runs that hold our data.

    Args:
        data_provider: TensorBoard's data provider.
        ctx: The request's context.
        experiment: The experiment's identifier.
        runs: Names to look at, or `None` for all.
        decode: `metadata.decode`, or a `decoder.Decoder` that remembers.

    Returns:
        `{run name: Listing}`.
    """
    listed = data_provider.list_tensors(
        ctx,
        experiment_id=experiment,
        plugin_name=metadata.PLUGIN_NAME,
        run_tag_filter=provider.RunTagFilter(runs=runs),
    )
    return {run: _listing(tags, decode) for run, tags in listed.items() if tags}


def _listing(tags, decode):
    parts = collections.defaultdict(list)
    problems = []
    for tag, series in tags.items():
        parsed = metadata.parse_tag(tag)
        if parsed is None:
            problems.append(Problem(tag, "this version of the plugin does not know the tag"))
            continue
        kind, number = parsed
        try:
            part = decode(series.plugin_content)
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


def cache_key(experiment, run, listed):
    """What a part is cached under, and what differs once it has other records."""
    stamp = (listed.max_step, listed.max_wall_time, listed.part.columns, listed.shape)
    return (experiment, run, listed.tag), stamp


def nothing(listed, error):
    """`Records` of a part that cannot be read, with the problem."""
    message = f"the records cannot be read, one of them is damaged ({str(error)[:200]!r})"
    logger.warning("%s: %s", listed.tag, message)
    values = np.empty((0, *listed.shape), np.float32)
    problems = (Problem(listed.tag, message),)
    return Records(np.empty(0, np.int64), np.empty(0), values, problems)


def stack(listed, data):
    """`Records` from the provider's `TensorDatum`s; what does not fit is left out and reported."""
    shape = listed.shape
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

"""From what is listed of a run to its joined records, all of them or a sample, and to buckets.

Between `reader`, which answers, and `partreader` and `joined`, which read and join.
"""

import dataclasses
import math

from tensorboard_plugin import buckets, joined, parts

#: A sample is taken where more parts than this would have to be read, at about 0.1 s each. It has
#: so many records for each column, but no more bytes than these.
MOST_UNREAD = 2
SAMPLED = 2
SAMPLE_BYTES = 2**25


class Joiner:
    """Joins records of one `partreader.PartReader`.

    All methods take the request's context, the experiment's identifier, the run's name, its
    `parts.Listing`, one of `metadata.TAGS`, and the first and the last step wanted, or `None`.
    """

    def __init__(self, part_reader):
        self._parts = part_reader

    def join(self, ctx, experiment, run, listing, kind, start, end, wanted=None):
        """All records.

        Args:
            wanted: Names along each axis that will be asked for, as for `axes.match`.

        Returns:
            `(joined.Joined, problems)`; problems as JSON values.
        """
        listed = _within(listing, kind, start)
        records = [self._parts.open(ctx, experiment, run, part, wanted) for part in listed]
        return _whole(listing, listed, records, start, end)

    def sample(self, ctx, experiment, run, listing, kind, start, end, columns):
        """As `join`, of a random sample, with some records for each of so many columns.

        Where a resumed run wrote steps again, the sample may hold a record that no longer counts.
        """
        listed = _within(listing, kind, start)
        records = [
            self._parts.sample(ctx, experiment, run, part, _sample_size(part, listed, columns))
            for part in listed
        ]
        return _whole(listing, listed, records, start, end)

    def takes_long(self, ctx, experiment, run, listing, kind, start, end, wanted):
        """Whether more parts must be read for an answer than a person would wait for."""
        del ctx
        unread = (
            self._parts.must_read(experiment, run, part, wanted, start, end)
            for part in _within(listing, kind, start)
        )
        return sum(unread) > MOST_UNREAD


def bucketed(header, records, problems, columns, portions, names):
    """Sums up.

    Args:
        header: JSON values by name.
        records: The `joined.Joined`.
        problems: As of `Joiner.join`.
        columns: Most buckets wanted.
        portions: As for `buckets.collect`.
        names: The names along each axis of the values.

    Returns:
        `(header, buckets.Buckets)`; the header has also `problems` and the shared axis: `records`,
        their number, and of each column `first_step`, `last_step`, `first_wall_time` and
        `last_wall_time`.
    """
    bounds = buckets.edges(len(records.steps), columns)
    header = {**header, **_axis(records, bounds), "problems": problems}
    return header, buckets.collect(portions, bounds, tuple(map(len, names)))


def _axis(records, bounds):
    first, last = bounds[:-1], bounds[1:] - 1
    return {
        "records": len(records.steps),
        "first_step": records.steps[first].tolist(),
        "last_step": records.steps[last].tolist(),
        "first_wall_time": records.wall_times[first].tolist(),
        "last_wall_time": records.wall_times[last].tolist(),
    }


def _within(listing, kind, start):
    listed = listing.parts.get(kind, [])
    return listed if start is None else parts.from_step(listed, start)


def _whole(listing, listed, records, start, end):
    found = [*listing.problems, *(problem for part in records for problem in part.problems)]
    whole = joined.Joined([item.part for item in listed], records, start, end)
    return whole, [dataclasses.asdict(problem) for problem in found]


def _sample_size(part, listed, columns):
    """How many records of a part to sample, within `SAMPLE_BYTES` over all parts, at least one."""
    row_bytes = 4 * max(1, math.prod(part.shape))
    return max(1, min(SAMPLED * columns, SAMPLE_BYTES // row_bytes) // len(listed))

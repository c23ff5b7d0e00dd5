"""Reads parts as `partreader` does, and of a long run only each second, fourth, ... record.

The health rules look at all of a run at once, which must not take more memory than a page should.
What was chosen of a part is kept, so that of a run that grows only the newest part is read again.
"""

import dataclasses
import itertools

import numpy as np

from tensorboard_plugin import metadata, parts

#: Bytes of a run's records that are looked at, about, by tag.
MOST_BYTES = {metadata.LAYERS: 2**27, metadata.REPLICAS: 2**25}

#: Seconds that the reading of a part waits, at most, while a person waits for an answer.
PATIENCE = 2.0


class ThinReader:
    """A reader for `whole.read`; safe to call from several threads.

    Args:
        reader: A `partreader.PartReader`; chosen records are kept with its planes.
        most_bytes: As `MOST_BYTES`; a tag that is not in it is read whole.
        give_way: Called with `PATIENCE` before each part is read.
    """

    def __init__(self, reader, most_bytes=None, give_way=lambda seconds: None):
        self._reader = reader
        self._most = MOST_BYTES if most_bytes is None else most_bytes
        self._give_way = give_way

    def of(self, listing):
        """The reader of one run as it is now listed, a `RunReader`."""
        strides = {
            tag: stride(listing.parts.get(tag, []), tag, most) for tag, most in self._most.items()
        }
        return RunReader(self._reader, strides, self._give_way)


class RunReader:
    """Reads one run.

    Attributes:
        strides: By tag, of how many records one is looked at.
        counts: By tag, the number of all records of the parts opened so far.
    """

    def __init__(self, reader, strides, give_way):
        self._reader = reader
        self._give_way = give_way
        self.strides = strides
        self.counts = dict.fromkeys(metadata.TAGS, 0)

    def open(self, ctx, experiment, run, listed):
        """A `parts.ListedPart` as `parts.Records` or `partreader.Opened`."""
        tag = metadata.parse_tag(listed.tag)[0]
        step = self.strides.get(tag, 1)
        if step == 1:
            opened, count = self._reader.open(ctx, experiment, run, listed), None
        else:
            opened, count = self._thin(ctx, experiment, run, listed, step)
        self.counts[tag] += len(opened.steps) if count is None else count
        return opened

    def _thin(self, ctx, experiment, run, listed, step):
        key, stamp = parts.cache_key(experiment, run, listed)
        found = self._reader.planes.get((*key, step), stamp)
        if found is None:
            self._give_way(PATIENCE)
            records = self._reader.read(ctx, experiment, run, listed, keep=False)
            rows = chosen(records.values, listed.part, step)
            thin = dataclasses.replace(
                records,
                steps=records.steps[rows],
                wall_times=records.wall_times[rows],
                values=records.values[rows],
            )
            found = thin, len(records.steps)
            self._reader.planes.put((*key, step), stamp, found, thin.values.nbytes)
        return found


def stride(listed, tag, most):
    """Of how many records one is looked at: a power of 2, so that it seldom changes.

    Args:
        listed: `parts.ListedPart`s in order.
        tag: One of `metadata.TAGS`.
        most: Bytes that may be looked at.
    """
    taken, before = 0, -1
    for part in listed:
        # How many records there are is not known before they are read, but by steps and size.
        steps = part.max_step - before if part.max_step > before else part.max_step + 1
        row_bytes = 4 * int(np.prod(part.part.shape(tag), dtype=np.float64))
        taken += min(metadata.PART_BYTES, max(1, steps) * row_bytes)
        before = part.max_step
    return next(2**k for k in itertools.count() if taken <= most * 2**k)


def chosen(values, part, step):
    """Which records of a part are looked at.

    Of each `step` in a row it is the one with most values that are not finite, else the last; and
    the first of the part, which tells from where a resumed run wrote again.

    Args:
        values: `[n, ...]`.
        part: Its `metadata.Part`.
        step: A whole number.

    Returns:
        `[k]` int64, increasing.
    """
    count = len(values)
    odd = np.zeros(-(-count // step) * step, np.int64)
    inner = tuple(range(1, values.ndim))
    odd[:count] = 1 + np.count_nonzero(~np.isfinite(values), axis=inner)
    if "nonfinite" in part.columns:
        bad = values[..., part.columns.index("nonfinite")] > 0
        odd[:count] += np.count_nonzero(bad, axis=tuple(range(1, bad.ndim)))
    groups = odd.reshape(-1, step)
    last = step - 1 - groups[:, ::-1].argmax(axis=1)
    rows = last + step * np.arange(len(groups))
    return np.union1d(rows, [0]) if count else rows

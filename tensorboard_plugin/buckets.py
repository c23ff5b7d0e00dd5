"""Bucketing by minimum, mean and maximum: a long series becomes a short one and no outlier is lost.

Pure NumPy on arrays whose first axis is the record; nothing here knows of TensorBoard.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Values of consecutive records, summed up a bucket at a time.

    Attributes:
        minimum: `[buckets, ...]` float32, over all values but NaN, so that an infinity shows. NaN
            where there are none.
        mean: `[buckets, ...]` float32, over the finite values. NaN where there are none.
        maximum: `[buckets, ...]` float32, like `minimum`.
        nonfinite: `[buckets, ...]` float32, how many recorded values are NaN or infinite.
        recorded: `[buckets, ...]` bool, whether the bucket holds any recorded value.
    """

    minimum: np.ndarray
    mean: np.ndarray
    maximum: np.ndarray
    nonfinite: np.ndarray
    recorded: np.ndarray


def edges(records, columns):
    """Where buckets of nearly equal size begin and end.

    Args:
        records: Number of records.
        columns: Largest number of buckets wanted, at least 1.

    Returns:
        `[buckets + 1]` int64, from 0 to `records`, strictly increasing; one record a bucket where
        there are fewer records than columns, and `[0]` where there are no records.
    """
    buckets = min(records, columns)
    return np.arange(buckets + 1) * records // max(buckets, 1)


class _Sums:
    """Buckets that are not full yet."""

    def __init__(self, bounds, shape):
        shape = (len(bounds) - 1, *shape)
        self._bounds = bounds
        self._minimum = np.full(shape, np.nan, np.float32)
        self._maximum = np.full(shape, np.nan, np.float32)
        self._total = np.zeros(shape, np.float64)
        self._finite = np.zeros(shape, np.int64)
        self._nonfinite = np.zeros(shape, np.float32)
        self._recorded = np.zeros(shape, bool)

    def add(self, places, values, recorded):
        if not len(places):
            return
        bucket = np.searchsorted(self._bounds, places, "right") - 1
        starts = np.flatnonzero(np.diff(bucket, prepend=-1))
        ends = np.append(starts[1:], len(places))
        finite = np.isfinite(values)
        if finite.all():
            counted, finite = values, None
        else:
            counted = np.where(finite, values, 0)
        if recorded is not None and recorded.all():
            recorded = None
        # A bucket at a time: its rows are in the processor's cache for all four, and `reduceat`
        # takes ten times as long along the first axis.
        for at, start, end in zip(bucket[starts], starts, ends, strict=True):
            rows = slice(start, end)
            self._minimum[at] = np.fmin(self._minimum[at], np.fmin.reduce(values[rows], axis=0))
            self._maximum[at] = np.fmax(self._maximum[at], np.fmax.reduce(values[rows], axis=0))
            self._total[at] += np.add.reduce(counted[rows], axis=0, dtype=np.float64)
            if finite is None:
                self._finite[at] += end - start
            else:
                self._finite[at] += np.count_nonzero(finite[rows], axis=0)
                missing = ~finite[rows] if recorded is None else ~finite[rows] & recorded[rows]
                self._nonfinite[at] += np.count_nonzero(missing, axis=0)
            self._recorded[at] |= True if recorded is None else recorded[rows].any(axis=0)

    def buckets(self):
        mean = np.full(self._total.shape, np.nan)
        np.divide(self._total, self._finite, out=mean, where=self._finite > 0)
        return Buckets(
            self._minimum, mean.astype(np.float32), self._maximum, self._nonfinite, self._recorded
        )


def collect(portions, bounds, shape):
    """Sums records up that come in portions, of which only one need be in memory at a time.

    Args:
        portions: Iterable of `(places, values, recorded)`: where the records stand among all of
            them, `[n]` increasing, and what `bucket` takes of them; `recorded` may be `None` where
            all of it is true. A record in no portion counts as not recorded.
        bounds: `[buckets + 1]` int64 of `edges`.
        shape: The shape of one record's values.

    Returns:
        `Buckets` with `len(bounds) - 1` buckets.
    """
    sums = _Sums(bounds, shape)
    for places, values, recorded in portions:
        sums.add(places, values, recorded)
        del values, recorded  # Else they would stay in memory while the next portion is read.
    return sums.buckets()


def bucket(values, recorded, bounds):
    """Sums records up.

    Args:
        values: `[records, ...]` float32.
        recorded: `[records, ...]` bool. A value that was not recorded must be NaN.
        bounds: `[buckets + 1]` int64 of `edges`.

    Returns:
        `Buckets` with `len(bounds) - 1` buckets.
    """
    return collect([(np.arange(len(values)), values, recorded)], bounds, values.shape[1:])

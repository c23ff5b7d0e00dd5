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


def bucket(values, recorded, bounds):
    """Sums records up.

    Args:
        values: `[records, ...]` float32.
        recorded: `[records, ...]` bool. A value that was not recorded must be NaN.
        bounds: `[buckets + 1]` int64 of `edges`.

    Returns:
        `Buckets` with `len(bounds) - 1` buckets.
    """
    starts = bounds[:-1]
    if len(starts) == 0:
        none = np.zeros((0, *values.shape[1:]), np.float32)
        return Buckets(none, none, none, none, none.astype(bool))
    finite = np.isfinite(values)
    count = np.add.reduceat(finite, starts, axis=0, dtype=np.int64)
    total = np.add.reduceat(np.where(finite, values, 0), starts, axis=0, dtype=np.float64)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return Buckets(
        np.fmin.reduceat(values, starts, axis=0),
        mean.astype(np.float32),
        np.fmax.reduceat(values, starts, axis=0),
        np.add.reduceat(~finite & recorded, starts, axis=0, dtype=np.float32),
        np.logical_or.reduceat(recorded, starts, axis=0),
    )


def stack(several):
    """One `Buckets` from a list of them, along a new last axis."""
    return Buckets(
        *(
            np.stack([getattr(one, field.name) for one in several], axis=-1)
            for field in dataclasses.fields(Buckets)
        )
    )

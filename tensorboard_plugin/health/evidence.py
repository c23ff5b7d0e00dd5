"""What several rules ask of a run, computed once: which records count, and what lasts.

A rule that looks at a single record would cry wolf: the first steps of any training are unlike the
rest, a schedule warms up and decays, and one odd batch is no fault. So rules look at settled
records, and at conditions that last.
"""

import functools
import math

import numpy as np

#: Steps at the beginning that rules about levels ignore: moments fill, biases leave zero, the first
#: steps of a warmup hardly move anything. Of a long run it is `STARTUP_SHARE` of its steps.
STARTUP_STEPS = 100
STARTUP_SHARE = 0.05

#: A condition lasts if it holds in `LASTING_SHARE` of the records of a window of as many records,
#: which spans as many steps. An odd batch takes up one record; Adam's second moment forgets it
#: within about 1000 steps, its first within 10.
LASTING_RECORDS = 20
LASTING_STEPS = 100
LASTING_SHARE = 0.9

#: Records whose learning rate is below this share of the run's highest say nothing of speed: a
#: schedule that decays to 0 is meant to end slowly.
LEARNING_SHARE = 0.1

#: The gradient of a bias or a scale is rounding below this share of what matrices have: float32
#: rounds each summand to 6e-8 of it.
ROUNDING = 1e-6

#: The last parts of Keras's paths of variables that are no matrices even with two axes, such as the
#: biases of attention heads.
_VECTORS = ("bias", "beta", "gamma", "scale")

#: No variable has as many elements; metadata may say so all the same.
_MOST_ELEMENTS = 2**62

#: A median of so many records is as good as one of all.
_MEDIAN_OF = 500


class Evidence:
    """A `Run` and what follows from it.

    Attributes:
        run: The `Run`.
        startup: The last step that rules about levels ignore.
        paths: Paths of the variables, in order.
        sizes: `[variables]` float64, their numbers of elements, at least 1.
        trainable: `[variables]` bool.
        matrices: `[variables]` bool: those of `is_matrix`.
    """

    def __init__(self, run):
        self.run = run
        last = max((int(t.steps[-1]) for t in self._tables() if len(t.steps)), default=0)
        self.startup = max(STARTUP_STEPS, int(STARTUP_SHARE * last))
        self.paths = [str(variable["path"]) for variable in run.variables]
        sizes = [min(max(1, math.prod(_shape(v))), _MOST_ELEMENTS) for v in run.variables]
        self.sizes = np.array(sizes, np.float64)
        self.trainable = np.array([bool(v.get("trainable", True)) for v in run.variables], bool)
        self.matrices = np.array([is_matrix(variable) for variable in run.variables], bool)

    def _tables(self):
        return self.run.layers, self.run.quantities, self.run.replicas

    def has_beginning(self, table):
        """Whether a table holds the beginning of the run, not only a window of later records."""
        return len(table.steps) > 0 and table.steps[0] <= STARTUP_STEPS

    def settled(self, table):
        """The slice of a table's records behind the startup."""
        return slice(int(np.searchsorted(table.steps, self.startup, "right")), len(table.steps))

    def window(self, table, steps=LASTING_STEPS):
        """So many records of a table span the steps that make a condition lasting."""
        if len(table.steps) < 2:
            return LASTING_RECORDS
        spacing = max(1.0, float(np.median(np.diff(table.steps[-1000:]))))
        return max(LASTING_RECORDS, math.ceil(steps / spacing))

    @functools.cached_property
    def applied(self):
        """`[layer records]` bool: records of steps that were applied, not skipped."""
        records = len(self.run.layers.steps)
        skipped = np.zeros(records, bool)
        nonfinite = self.layer("nonfinite")
        if nonfinite is not None:
            skipped |= (nonfinite > 0).any(axis=1)
        if np.isfinite(self.quantity("gradient_norm")).any():
            # It is over all variables, those that telemetry leaves out included.
            skipped |= ~np.isfinite(self.at_layers("gradient_norm", missing=0.0))
        return ~skipped

    @functools.cached_property
    def moving(self):
        """`[layer records]` bool: applied, and the learning rate is not 0."""
        return self.applied & ~(self.at_layers("learning_rate") == 0)

    @functools.cached_property
    def learning(self):
        """`[layer records]` bool: moving, at a rate that neither warms up nor has decayed."""
        rate = self.at_layers("learning_rate")
        decayed = rate < LEARNING_SHARE * np.max(rate, initial=0, where=np.isfinite(rate))
        warming = rate[1:] > rate[:-1] * (1 + 1e-6)
        return (
            self.moving & ~decayed & ~np.concatenate([warming, warming[-1:], [False]])[: len(rate)]
        )

    @functools.cached_property
    def without_gradient(self):
        """`[variables]` bool: trainable, and no record has a gradient other than 0."""
        norms = self.layer("gradient_norm")
        if norms is None or len(norms) < self.window(self.run.layers):
            return np.zeros(len(self.paths), bool)
        return self.trainable & ~(np.fmax.reduce(norms, axis=0) > 0)

    @functools.cached_property
    def gradient_logs(self):
        """`[settled records, variables]` float32, log10 of gradient norms, or `None`.

        NaN where there is none, where it is 0 and where the step was skipped.
        """
        norms = self.layer("gradient_norm")
        rows = self.settled(self.run.layers)
        if norms is None or rows.stop - rows.start < self.window(self.run.layers):
            return None
        norms = np.array(norms[rows], np.float32, order="C")
        norms[~self.applied[rows]] = np.nan
        norms[~(norms > 0) | np.isinf(norms)] = np.nan
        return np.log10(norms, out=norms)

    @functools.cached_property
    def gradient_levels(self):
        """`[variables]`: the usual root mean square of gradients, over the later half.

        It is over the elements that are not 0, so that an embedding counts by the rows that a batch
        holds. NaN where fewer than half of the records have one.
        """
        if self.gradient_logs is None:
            return np.full(len(self.paths), np.nan)
        later = len(self.gradient_logs) // 2
        norms = 10 ** _mean(self.gradient_logs[later:])
        zeros = self.layer("zero_fraction")
        if zeros is None:
            return norms / np.sqrt(self.sizes)
        shares = 1 - _mean(zeros[self.settled(self.run.layers)][later:])
        return norms / np.sqrt(np.maximum(self.sizes * np.nan_to_num(shares, nan=1.0), 1))

    @functools.cached_property
    def usual_gradient(self):
        """The upper quartile of `gradient_levels` over matrices, or NaN."""
        return self._upper_quartile(self.gradient_levels)

    @functools.cached_property
    def first_gradient(self):
        """The upper quartile of the root mean squares at first, in a quarter of the records."""
        if self.gradient_logs is None:
            return np.nan
        first = max(LASTING_RECORDS // 2, len(self.gradient_logs) // 4)
        return self._upper_quartile(10 ** _mean(self.gradient_logs[:first]) / np.sqrt(self.sizes))

    def _upper_quartile(self, levels):
        chosen = levels[self.matrices & np.isfinite(levels)]
        chosen = chosen if len(chosen) else levels[np.isfinite(levels)]
        return float(np.quantile(chosen, 0.75)) if len(chosen) else np.nan

    @functools.cached_property
    def rounding(self):
        """`[variables]` bool: biases and scales whose gradient is nothing but rounding."""
        limit = ROUNDING * self.usual_gradient
        return self.trainable & ~self.matrices & (self.gradient_levels < limit)

    def layer(self, name):
        """`[layer records, variables]` of a statistic, or `None` where the run lacks it."""
        return self.run.layers.columns.get(name)

    def quantity(self, name):
        """`[records]` of a quantity of the step; NaN where the run lacks it."""
        found = self.run.quantities.columns.get(name)
        if found is None:
            return np.full(len(self.run.quantities.steps), np.nan)
        return found.astype(np.float64)

    @functools.cached_property
    def skipped(self):
        """`[records]` of the quantities: how many steps were skipped since the record before."""
        counts = self.quantity("skipped")
        return np.where(np.isfinite(counts) & (counts > 0), counts, 0)

    def at_layers(self, name, missing=np.nan):
        """`[layer records]` of a quantity of the step, at the steps of the layers' records.

        Args:
            name: The quantity's name.
            missing: What stands where the quantity has no record of that step.
        """
        have, want = self.run.quantities.steps, self.run.layers.steps
        values = self.quantity(name)
        if len(have) == len(want) and (have == want).all():
            return values
        if not len(have):
            return np.full(len(want), missing)
        at = np.minimum(np.searchsorted(have, want), len(have) - 1)
        return np.where(have[at] == want, values[at], missing)


def is_matrix(variable):
    """Whether a variable is a kernel or an embedding, rather than a bias or a scale.

    Those begin at 0 or 1, so that their update ratios say little, and their gradients may be 0.

    Args:
        variable: A mapping as in `Run.variables`.
    """
    name = str(variable["path"]).rpartition("/")[2]
    return len(_shape(variable)) >= 2 and name not in _VECTORS


def lasting(condition, window, share=LASTING_SHARE):
    """Where a condition lasts.

    Args:
        condition: `[n, k]` bool.
        window: Number of records.
        share: It lasts if it holds in this share of `window` records in a row.

    Returns:
        `(columns, first, last)`, int64 arrays of one length: which columns it lasts in, and the
        first and the last record that belongs to a window it lasts in.
    """
    none = np.empty(0, np.int64)
    need = math.ceil(share * window)
    if len(condition) < window or not condition.shape[1]:
        return none, none, none
    columns = np.flatnonzero(np.count_nonzero(condition, axis=0) >= need)
    if not len(columns):
        return none, none, none
    condition = condition[:, columns]
    counts = np.zeros((len(condition) + 1, len(columns)), np.int32)
    np.cumsum(condition, axis=0, out=counts[1:])
    held = counts[window:] - counts[:-window] >= need
    found = np.flatnonzero(held.any(axis=0))
    begin = held[:, found].argmax(axis=0)
    end = len(held) - 1 - held[::-1, found].argmax(axis=0)
    # A window may begin and end with records that do not hold.
    inside = np.arange(window)
    first = begin + condition[begin[:, None] + inside, found[:, None]].argmax(axis=1)
    backwards = condition[(end + window - 1)[:, None] - inside, found[:, None]]
    return columns[found], first, end + window - 1 - backwards.argmax(axis=1)


def medians(values, spells):
    """The median of each spell, of some hundred records of a long one.

    Args:
        values: `[n, k]`; NaN is left out.
        spells: What `lasting` returned for a condition of that shape.

    Returns:
        `[spells]` float64.
    """
    columns, first, last = spells
    # One copy with records next to each other, since each median reads a column.
    chosen = np.ascontiguousarray(values[:, columns].T)
    thin = np.maximum(1, (last - first) // _MEDIAN_OF)
    parts = (row[a : b + 1 : t] for row, a, b, t in zip(chosen, first, last, thin, strict=True))
    known = (part[~np.isnan(part)] for part in parts)
    return np.array([np.median(part) if len(part) else np.nan for part in known])


def _mean(values):
    """The mean over records, float64 `[k]`; NaN where more than half of them are NaN."""
    known = ~np.isnan(values)
    count = np.count_nonzero(known, axis=0)
    total = np.sum(values, axis=0, where=known, dtype=np.float64)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=2 * count >= len(values))


def _shape(variable):
    shape = variable.get("shape")
    known = isinstance(shape, (list, tuple)) and all(isinstance(n, int) for n in shape)
    return shape if known else ()

"""What the results of several seeds allow to say: intervals, paired tests, effect sizes.

Numbers in, numbers out; the sentences are `conclusions.py`'s. Needs SciPy.
"""

import dataclasses
import math

import numpy as np

from disttrain.optional import needed

#: The rate of false claims in a family of tests, and one minus the level of intervals.
ALPHA = 0.05

#: Seeds up to which the rank test looks at all orders.
_EXACT = 8

#: Results above 0 that span more than this factor are compared by their ratios.
SPAN = 50.0

#: Differences that vary less than this, relative to their size, are one number with rounding.
_EQUAL = 1e-9


def interval(values):
    """The mean and its 95% interval, by Student's t.

    Args:
        values: Numbers, `[n]`; those that are not finite are left out.

    Returns:
        `(mean, low, high)`, floats; NaN where there are too few numbers for it.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return math.nan, math.nan, math.nan
    mean = float(values.mean())
    if values.size == 1:
        return mean, math.nan, math.nan
    half = _quantile(1 - ALPHA / 2, values.size) * values.std(ddof=1) / math.sqrt(values.size)
    return mean, float(mean - half), float(mean + half)


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """What the seeds say of two optimizers.

    Attributes:
        test: `"t"`, `"ranks"`, or why there is none: `"identical"`, `"constant"`, `"one seed"`.
        seeds: Number of pairs.
        ratio: Whether differences are those of natural logarithms.
        difference: Mean of first minus second; NaN for a rank test.
        low: Lower end of its 95% interval, without correction for several comparisons.
        high: Upper end.
        first_better: Pairs in which the first was better.
        second_better: Pairs in which the second was better.
        effect: Hedges' g of the differences; NaN for a rank test.
        p: Two-sided p-value; NaN where there is no test.
        smallest_p: The smallest that the test could have given.
        corrected_p: The same after Holm's correction; set by `correct`.
        comparisons: Tests in the family; set by `correct`.
        unnoticed: A true difference of this size would have been missed in one of five
            experiments, with Bonferroni's level for the family; set by `correct`.
    """

    test: str
    seeds: int
    ratio: bool = False
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    first_better: int = 0
    second_better: int = 0
    effect: float = math.nan
    p: float = math.nan
    smallest_p: float = math.nan
    corrected_p: float = math.nan
    comparisons: int = 1
    unnoticed: float = math.nan

    @property
    def significant(self):
        """Whether a difference is claimed; false where there is no test."""
        return bool(self.corrected_p < ALPHA)


def paired_test(first, second, mode="min"):
    """Compares two optimizers over the seeds that they share.

    Where all runs are finite this is the paired t-test. With five seeds it is the honest choice of
    the two: Wilcoxon's signed-rank test cannot give less than 2 / 2^5 = 0.06 then, so that it would
    never claim anything, however clear the matter is. The price is an assumption that five numbers
    cannot check, that the differences are about normally distributed; a heavy tail makes the test
    claim less, a strongly skewed distribution may make it claim more than it should. Results above
    0 that span more than a factor of 50 are skewed by nature: their logarithms are compared, which
    makes ratios of the differences. All results together decide that, whosever they are.

    A run that diverged has no number, only a rank: the worst. Where there is one, the rank test of
    Mann and Whitney (1947) is taken, exact with ties, diverged runs last and equal. It leaves the
    pairs aside, which costs power and claims nothing more, since runs of one seed are rather more
    alike than others; keeping them, Wilcoxon's test could not even tell five diverged runs from
    none. With few seeds it may be too weak for the family of tests, see `smallest_p`.

    Args:
        first: A number for each seed, `[n]`; not finite where the run diverged.
        second: The same of the other optimizer.
        mode: `"min"` where smaller is better, or `"max"`.

    Returns:
        A `PairedTest`. The effect is Cohen's d of the differences, mean over standard deviation
        (Cohen 1988, section 2.3.5), times 1 - 3 / (4 (n - 1) - 1) (Hedges 1981).

    Raises:
        ValueError: There are not as many numbers of one as of the other.
    """
    first, second = (np.asarray(values, np.float64) for values in (first, second))
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"pairs need two lists of one length, not {first.shape}, {second.shape}")
    worst = math.inf if mode == "min" else -math.inf
    first, second = (np.where(np.isfinite(v), v, worst) for v in (first, second))
    # Only finite numbers are subtracted: infinity minus infinity is no number.
    both = np.isinf(first) & np.isinf(second)
    differences = np.where(both, 0.0, first) - np.where(both, 0.0, second)
    better = differences < 0 if mode == "min" else differences > 0
    counts = {
        "seeds": int(first.size),
        "first_better": int(better.sum()),
        "second_better": int((differences != 0).sum() - better.sum()),
    }
    if np.isfinite(differences).all() and not both.any():
        results = np.concatenate([first, second])
        if results.size and results.min() > 0 and results.max() > SPAN * results.min():
            return _by_t(np.log(first) - np.log(second), {**counts, "ratio": True})
        return _by_t(differences, counts)
    return _by_ranks(first, second, counts)


def _by_t(differences, counts):
    n = differences.size
    mean = float(differences.mean()) if n else math.nan
    if n < 2:
        return PairedTest("one seed", difference=mean, **counts)
    spread = float(differences.std(ddof=1))
    if not differences.any():
        return PairedTest("identical", difference=0.0, low=0.0, high=0.0, **counts)
    if spread <= _EQUAL * abs(mean):
        return PairedTest("constant", difference=mean, **counts)
    _, low, high = interval(differences)
    stats = needed("scipy.stats", "a paired test")
    return PairedTest(
        "t",
        difference=mean,
        low=low,
        high=high,
        effect=mean / spread * (1 - 3 / (4 * (n - 1) - 1)),
        p=float(stats.ttest_1samp(differences, 0.0).pvalue),
        smallest_p=0.0,
        **counts,
    )


def _by_ranks(first, second, counts):
    n = first.size
    if n < 2:
        return PairedTest("one seed", **counts)
    if (first == second).all():
        return PairedTest("identical", **counts)
    stats = needed("scipy.stats", "a paired test")
    if n > _EXACT:
        p = stats.mannwhitneyu(first, second, method="asymptotic").pvalue
    else:
        ranks = stats.rankdata(np.concatenate([first, second]))
        p = stats.permutation_test(
            (ranks[:n], ranks[n:]),
            lambda own, other, axis=-1: own.sum(axis=axis),
            vectorized=True,
            n_resamples=np.inf,
        ).pvalue
    return PairedTest("ranks", p=float(min(p, 1.0)), smallest_p=2 / math.comb(2 * n, n), **counts)


def correct(tests):
    """Corrects a family of tests so that the chance of any false claim stays below 5% (Holm 1979).

    Args:
        tests: A list of `PairedTest`.

    Returns:
        The same, with `corrected_p`, `comparisons` and `unnoticed`. Pairs without a test claim
        nothing, and count all the same.
    """
    ps = np.asarray([1.0 if math.isnan(test.p) else test.p for test in tests])
    corrected = np.empty_like(ps)
    largest = 0.0
    for place, i in enumerate(np.argsort(ps, kind="stable")):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[i]))
        corrected[i] = largest
    return [
        dataclasses.replace(
            test,
            corrected_p=math.nan if math.isnan(test.p) else float(p),
            comparisons=len(tests),
            unnoticed=_unnoticed(test, len(tests)),
        )
        for test, p in zip(tests, corrected, strict=True)
    ]


def _unnoticed(test, comparisons):
    """About the difference that has a chance of 80% to be found, from the spread that was seen."""
    if test.test != "t":
        return math.nan
    error = (test.high - test.low) / 2 / _quantile(1 - ALPHA / 2, test.seeds)
    level = _quantile(1 - ALPHA / 2 / comparisons, test.seeds)
    return float(error * (level + _quantile(0.8, test.seeds)))


def seeds_for_ranks(comparisons):
    """The smallest number of seeds with which the rank test could claim anything."""
    n = 2
    while 2 * comparisons / math.comb(2 * n, n) >= ALPHA:
        n += 1
    return n


def _quantile(q, n):
    return float(needed("scipy.stats", "an interval").t.ppf(q, n - 1))

"""Measures how much longer one way of training takes than another, on machines that are not quiet.

All variants live in one process and take turns in short slices, so that whatever else the machine
does hits them alike; what is looked at is the ratio within a round, and its median over rounds.
What the variants train is the benchmarks' own; how figures look on paper is `report.py`'s.
"""

import dataclasses
import gc
import math
import time
from collections.abc import Callable

import numpy as np

#: Resamples of a bootstrap.
_RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the command line decides for every benchmark.

    Attributes:
        rounds: Rounds of slices.
        slice_seconds: About how long a slice of the baseline takes, in seconds.
        seed: Seed of the order within rounds and of the bootstrap.
        builds: How often what is measured is built anew, in `measure_anew`.
        quick: Whether it is enough to show that the benchmark runs.
        cases: Names of the models to train; all where there are none.
    """

    rounds: int = 60
    slice_seconds: float = 0.2
    seed: int = 0
    builds: int = 6
    quick: bool = False
    cases: tuple = ()


#: What shows that a benchmark runs.
QUICK = Settings(rounds=4, slice_seconds=0.01, builds=2, quick=True)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way of doing the same work.

    Attributes:
        name: Its name in tables.
        run: Makes n steps, `run(n)`, and returns when they are done; the first call may build.
        baseline: Name of the variant that it is compared with; `None` for a baseline.
        goal: The ratio that it should not exceed, or `None`.
        period: Steps after which its work repeats, where one step in ten costs more, say.
    """

    name: str
    run: Callable
    baseline: str | None = None
    goal: float | None = None
    period: int = 1


@dataclasses.dataclass(frozen=True)
class Timings:
    """What `measure` has measured.

    Attributes:
        seconds: Variant name to float64 `[samples]`; a sample is made of one slice or several.
        steps: Steps of a sample.
        slices: Slices of a sample.
        build: For each sample, the number of the build that it belongs to, int64 `[samples]`.
    """

    seconds: dict
    steps: int
    slices: int
    build: np.ndarray


@dataclasses.dataclass(frozen=True)
class Summary:
    """A figure with its uncertainty.

    Attributes:
        median: The figure.
        low: Lower end of its 95% interval.
        high: Upper end.
        p10: 10th percentile of the samples.
        p90: 90th percentile.
        samples: Their number.
    """

    median: float
    low: float
    high: float
    p10: float
    p90: float
    samples: int


def measure_anew(build, settings, clock=time.perf_counter):
    """Measures variants that are built several times, with a share of the rounds each time.

    Where memory happens to lie makes the same training a few percent faster or slower for as long
    as it lives, which no number of rounds would show.

    Args:
        build: A function of the build's number that returns a context manager of a list of
            `Variant`, the same names each time.
        settings: A `Settings`.
        clock: Returns seconds.

    Returns:
        `Timings`.
    """
    rounds = math.ceil(settings.rounds / settings.builds)
    found, planned = [], None
    for number in range(settings.builds):
        own = dataclasses.replace(settings, rounds=rounds, seed=settings.seed + number)
        with build(number) as variants:
            found.append(measure(variants, own, clock, planned))
        planned = found[0].steps // found[0].slices, found[0].slices
    seconds = {
        name: np.concatenate([timings.seconds[name] for timings in found])
        for name in found[0].seconds
    }
    builds = np.repeat(np.arange(len(found)), [len(timings.build) for timings in found])
    return Timings(seconds, found[0].steps, found[0].slices, builds)


def measure(variants, settings, clock=time.perf_counter, planned=None):
    """Builds and warms up all variants, then lets them take turns.

    Args:
        variants: A list of `Variant`; the first one's speed decides how many steps make a slice.
        settings: A `Settings`.
        clock: Returns seconds.
        planned: What `plan` has returned for a like measurement, or `None`.

    Returns:
        `Timings`.

    Raises:
        ValueError: A variant names a baseline that is not there, or two have one name.
    """
    _check(variants)
    for variant in variants:
        variant.run(2)
    steps, slices = planned or plan(
        settings.slice_seconds / _seconds_per_step(variants[0], settings, clock),
        math.lcm(*(variant.period for variant in variants)),
    )
    # A slice of each, for buffers, caches and what else comes with the first hundred steps.
    for variant in variants:
        variant.run(steps)
    rounds = math.ceil(settings.rounds / slices) * slices
    seconds = interleave(variants, steps, rounds, np.random.default_rng(settings.seed), clock)
    seconds = seconds.reshape(-1, slices, len(variants)).sum(axis=1)
    by_name = {variant.name: seconds[:, i] for i, variant in enumerate(variants)}
    return Timings(by_name, steps * slices, slices, np.zeros(len(seconds), np.int64))


def plan(steps, period):
    """How samples get whole periods, so that the dear steps are in each of them.

    Args:
        steps: About how many steps a slice should have, a float.
        period: Steps after which the work repeats.

    Returns:
        `(steps, slices)`: steps of a slice, and how many slices, of as many rounds, make a sample.
    """
    if steps >= period:
        return max(1, round(steps / period)) * period, 1
    divisors = [n for n in range(1, period + 1) if period % n == 0]
    nearest = min(divisors, key=lambda n: abs(math.log(n / max(steps, 1.0))))
    return nearest, period // nearest


def interleave(variants, steps, rounds, rng, clock=time.perf_counter):
    """Runs rounds, in each of which every variant makes one slice, in an order of its own.

    Returns:
        Seconds, float64 `[rounds, variants]`.
    """
    seconds = np.empty((rounds, len(variants)))
    # What exists by now stays, so that the collections between rounds are short.
    gc.freeze()
    enabled = gc.isenabled()
    gc.disable()
    try:
        for row in seconds:
            for i in rng.permutation(len(variants)):
                began = clock()
                variants[i].run(steps)
                row[i] = clock() - began
            gc.collect()
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
    return seconds


def ratios(timings, variant):
    """A variant's time over its baseline's within each sample, float64 `[samples]`."""
    return timings.seconds[variant.name] / timings.seconds[variant.baseline]


def summarize(samples, groups=None, seed=0):
    """The median of samples, its 95% interval (percentile bootstrap, Efron 1979) and their spread.

    Samples of one group are alike: the bootstrap draws groups, and then samples of each (Davison
    and Hinkley 1997, section 3.8), so that the interval holds for groups that were not seen.

    Args:
        samples: Numbers, `[n]`.
        groups: The group of each sample, `[n]`; each its own by default.
        seed: Seed of the bootstrap.

    Returns:
        A `Summary`.

    Raises:
        ValueError: There is no sample, or not a group for each.
    """
    samples = np.asarray(samples, np.float64)
    if samples.ndim != 1 or not samples.size:
        raise ValueError(f"samples must be a list of numbers, not of shape {samples.shape}")
    groups = np.arange(samples.size) if groups is None else np.asarray(groups)
    if groups.shape != samples.shape:
        raise ValueError(f"there are {samples.size} samples, but groups of shape {groups.shape}")
    rng = np.random.default_rng(seed)
    members = [samples[groups == group] for group in np.unique(groups)]
    if len(members) in (1, samples.size):
        medians = np.median(samples[rng.integers(0, samples.size, (_RESAMPLES, samples.size))], 1)
    elif len({one.size for one in members}) == 1:
        count, size = len(members), members[0].size
        drawn = rng.integers(0, count, (_RESAMPLES, count, 1))
        within = rng.integers(0, size, (_RESAMPLES, count, size))
        medians = np.median(np.stack(members)[drawn, within].reshape(_RESAMPLES, -1), 1)
    else:
        medians = [np.median(_resampled(members, rng)) for _ in range(_RESAMPLES)]
    low, high = np.percentile(medians, [2.5, 97.5])
    p10, p90 = np.percentile(samples, [10, 90])
    numbers = (np.median(samples), low, high, p10, p90)
    return Summary(*(float(number) for number in numbers), samples.size)


def _resampled(members, rng):
    drawn = [members[i] for i in rng.integers(0, len(members), len(members))]
    return np.concatenate([rng.choice(one, one.size) for one in drawn])


def _seconds_per_step(variant, settings, clock):
    """How long a step takes, from the fastest of three short runs."""
    found = []
    steps = 1
    while len(found) < 3:
        began = clock()
        variant.run(steps)
        seconds = clock() - began
        if seconds < settings.slice_seconds / 4 and steps < 1000:
            steps *= 2
        else:
            found.append(max(seconds, 1e-9) / steps)
    return min(found)


def _check(variants):
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise ValueError(f"variants need names of their own, not {names}")
    for variant in variants:
        if variant.baseline is not None and variant.baseline not in names:
            raise ValueError(
                f"the baseline {variant.baseline!r} of {variant.name!r} is none of {names}"
            )

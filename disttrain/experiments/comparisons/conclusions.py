"""Sentences on what a comparison shows and what it does not."""

import math

from disttrain.experiments.comparisons import statistics

#: Cohen's words for the size of an effect (1988).
_EFFECTS = ((0.2, "negligible"), (0.5, "small"), (0.8, "medium"), (math.inf, "large"))


def conclusion(first, second, test, monitor, mode, diverged=(0, 0)):
    """One or two plain sentences about two optimizers.

    Args:
        first: Name of the one.
        second: Name of the other.
        test: The `statistics.PairedTest` of first and second, corrected.
        monitor: Name of the metric.
        mode: `"min"` or `"max"`: what is better.
        diverged: How many runs of each diverged.
    """
    ended = _diverged(first, second, diverged, test.seeds)
    if test.test == "one seed":
        return (
            f"{first} and {second} cannot be told from chance: one seed shows no spread. Run five "
            f"seeds or more.{ended}"
        )
    if test.test == "identical":
        what = "diverged alike" if all(diverged) else f"ended with the same {monitor}"
        return f"{first} and {second} {what} with every seed: nothing tells them apart here.{ended}"
    if test.test == "constant":
        return (
            f"{first} and {second} differ by the same with every seed, so the seeds change nothing "
            "here, and these are not several independent runs: no test can say what is chance."
        )
    return (_shown if test.significant else _not_shown)(first, second, test, monitor, mode) + ended


def _shown(first, second, test, monitor, mode):
    wins = test.first_better, test.second_better
    lower = test.difference < 0 if test.test == "t" else wins[0] > wins[1]
    if test.test == "t" and mode == "max":
        lower = not lower
    if not lower:
        first, second, wins = second, first, wins[::-1]
    word = "lower" if mode == "min" else "higher"
    text = f"{first} ended with a {word} {monitor} than {second}"
    if test.test == "t":
        # A claim's interval, which is not corrected, leaves 0 out.
        low, high = sorted((abs(test.low), abs(test.high)))
        size, low, high = (_size(end, test) for end in (abs(test.difference), low, high))
        by = f"by a factor of {size}" if test.ratio else f"by {size}"
        text += (
            f", {by} on average (95% interval {low} to {high}; better with {wins[0]} of "
            f"{test.seeds} seeds; {_p(test)}; a {_effect(test.effect)} effect, "
            f"g = {number(abs(test.effect))})"
        )
    else:
        text += (
            f" (better with {wins[0]} of {test.seeds} seeds, diverged runs counted as worst; "
            f"{_p(test)})"
        )
    return text + ". This is said of this model, these data and these settings alone."


def _not_shown(first, second, test, monitor, mode):
    text = f"No difference in {monitor} between {first} and {second} is shown"
    if test.test == "t":
        kind = "ratio" if test.ratio else "difference"
        mean, low, high, unnoticed = (
            _size(end, test) for end in (test.difference, test.low, test.high, test.unnoticed)
        )
        return text + (
            f" ({kind} {mean}, 95% interval {low} to {high}; {_p(test)}). That does not make them "
            f"equal: with {test.seeds} seeds a true {kind} below about {unnoticed} may well go "
            "unnoticed."
        )
    text += (
        f" ({first} was better with {test.first_better} and {second} with {test.second_better} of "
        f"{test.seeds} seeds, diverged runs counted as worst; {_p(test)})."
    )
    smallest = test.smallest_p * test.comparisons
    if smallest >= statistics.ALPHA:
        needed = statistics.seeds_for_ranks(test.comparisons)
        text += (
            " Nor could one have been: a diverged run has only a rank, and with so few seeds the "
            f"rank test gives {number(min(1.0, smallest))} at the least. Run {needed} seeds or "
            "more."
        )
    return text


def _size(value, test):
    """A difference, or, of logarithms, a ratio."""
    return number(math.exp(min(value, 700.0)) if test.ratio else value)


def _p(test):
    family = "" if test.comparisons == 1 else f" after Holm's correction for {test.comparisons}"
    p = test.corrected_p
    return f"p {'< 0.0001' if p < 1e-4 else f'= {p:.2g}'}{family}"


def _effect(effect):
    return next(word for most, word in _EFFECTS if abs(effect) < most)


def _diverged(first, second, diverged, seeds):
    told = [
        f"{count} of {seeds} runs of {name} diverged"
        for name, count in zip((first, second), diverged, strict=True)
        if count
    ]
    return f" {' and '.join(told)}." if told else ""


def number(value):
    """A number for a sentence: three significant digits."""
    return f"{value:.3g}"

"""`Comparison`: the records of all runs as tables, tests, curves and sentences."""

import itertools
import math

import numpy as np

from disttrain.experiments.comparisons import conclusions, statistics
from disttrain.experiments.shared import arguments, runs


class Comparison:
    """What `compare` returns.

    Args:
        records: What `runs.train` has returned, one for each optimizer and seed.
        names: The optimizers.
        monitor: The metric that decides, or `None` for the validation loss, or the loss.
        mode: `"min"`, `"max"` or `"auto"`.
        target: A value of `monitor`, or `None`.
        baseline: The optimizer that the others are compared with, or `None` for all pairs.

    Attributes:
        runs: The records.
        optimizers: The names, best first: fewest diverged runs first, then by the mean of `monitor`
            after the last epoch.
        monitor: The metric that decides.
        mode: `"min"` or `"max"`.
        target: As given.
        seeds: The seeds.
        summary: A dictionary for each optimizer, best first; see `tables`.
        tests: A dictionary for each pair that was tested.
        conclusions: Sentences, one for each pair, and what else a reader has to know.
        best: The optimizer that is better than each of the others it was tested against, by the
            tests; or `None`.

    Raises:
        ValueError: No run has such a metric.
    """

    def __init__(self, records, names, *, monitor=None, mode="auto", target=None, baseline=None):
        self.runs = records
        self.metrics = _metrics(records)
        if monitor is None:
            monitor = "val_loss" if "val_loss" in self.metrics else "loss"
        if monitor not in self.metrics and self.metrics:
            known = ", ".join(self.metrics)
            raise ValueError(f"no run has a metric {monitor!r} in its logs; there are {known}")
        self.monitor = monitor
        self.mode = arguments.mode_of(monitor, mode)
        self.target = target
        self.baseline = baseline
        self.seeds = sorted({record["seed"] for record in records})
        self._of = {
            name: sorted((r for r in records if r["optimizer"] == name), key=lambda r: r["seed"])
            for name in names
        }
        self.optimizers = sorted(names, key=self._rank)
        self.summary = [self._row(place, name) for place, name in enumerate(self.optimizers, 1)]
        self.tests, self.conclusions = self._compared()
        self.best = self._best()
        self.conclusions += self._notes()

    def final(self, name, metric=None):
        """A metric after the last epoch, float64 `[seeds]`; NaN where the run diverged."""
        return np.asarray([self._final(r, metric or self.monitor) for r in self._of[name]])

    def best_values(self, name, metric=None):
        """The best value of a metric after any epoch, float64 `[seeds]`; NaN where there is none.

        Of a run that diverged it is the best before.
        """
        metric = metric or self.monitor
        mode = self.mode if metric == self.monitor else arguments.mode_of(metric)
        found = []
        for record in self._of[name]:
            values = [v for v in record["history"].get(metric, []) if v is not None]
            found.append((min if mode == "min" else max)(values) if values else math.nan)
        return np.asarray(found, np.float64)

    def curves(self, name, metric=None):
        """A metric after each epoch, float64 `[seeds, epochs]`, NaN where there is no number."""
        metric = metric or self.monitor
        epochs = max((len(r["steps"]) for r in self.runs), default=0)
        found = np.full((len(self._of[name]), epochs), math.nan)
        for row, record in zip(found, self._of[name], strict=True):
            values = record["history"].get(metric, [])
            row[: len(values)] = [math.nan if v is None else v for v in values]
        return found

    def diverged(self, name):
        """How many runs ended without a finite `monitor`."""
        return int((~np.isfinite(self.final(name))).sum())

    def reached(self, name):
        """Where each run reached the target: `[seeds, 2]` of steps and seconds, NaN if never."""
        found = np.full((len(self._of[name]), 2), math.nan)
        for row, record in zip(found, self._of[name], strict=True):
            values = record["history"].get(self.monitor, [])
            for value, steps, seconds in zip(
                values, record["steps"], record["seconds"], strict=False
            ):
                better = value is not None and (
                    value <= self.target if self.mode == "min" else value >= self.target
                )
                if better:
                    row[:] = steps, seconds
                    break
        return found

    def save(self, directory):
        """Writes the tables, the picture and the page.

        Args:
            directory: It exists.

        Returns:
            The paths, a list.
        """
        from disttrain.experiments.comparisons import page, tables

        return [*tables.save(self, directory), *page.save(self, directory)]

    def __str__(self):
        from disttrain.experiments.comparisons import tables

        return tables.text(self)

    # How it is made.

    def _final(self, record, metric):
        values = record["history"].get(metric) or [None]
        if record["state"] == runs.DIVERGED or values[-1] is None:
            return math.nan
        return float(values[-1])

    def _rank(self, name):
        mean = statistics.interval(self.final(name))[0]
        mean = math.inf if math.isnan(mean) else mean if self.mode == "min" else -mean
        return self.diverged(name), mean

    def _row(self, place, name):
        row = {
            "rank": place,
            "optimizer": name,
            "runs": len(self._of[name]),
            "diverged": self.diverged(name),
        }
        for metric in self.shown_metrics():
            for kind, values in (
                ("final", self.final(name, metric)),
                ("best", self.best_values(name, metric)),
            ):
                ends = statistics.interval(values)
                for end, value in zip(("mean", "low", "high"), ends, strict=True):
                    row[f"{metric}_{kind}_{end}"] = _or_none(value)
        seconds = [r["training_seconds"] for r in self._of[name]]
        row["seconds_mean"] = _or_none(statistics.interval(seconds)[0])
        if self.target is not None:
            reached = self.reached(name)
            row["reached_target"] = int(np.isfinite(reached[:, 0]).sum())
            for column, unit in enumerate(("steps", "seconds")):
                # A run that never came there took longer than any: its place is at the end.
                late = np.where(np.isnan(reached[:, column]), np.inf, reached[:, column])
                row[f"{unit}_to_target_median"] = _or_none(np.median(late) if late.size else None)
        return row

    def shown_metrics(self):
        """The metrics of the table: those of the validation if there is one, the monitor first."""
        validation = [m for m in self.metrics if m.startswith("val_")]
        return list(dict.fromkeys([self.monitor, *(validation or self.metrics)]))

    def _pairs(self):
        if self.baseline is None:
            return list(itertools.combinations(self.optimizers, 2))
        others = [name for name in self.optimizers if name != self.baseline]
        return [(other, self.baseline) for other in others]

    def _compared(self):
        pairs = self._pairs()
        found = statistics.correct(
            [statistics.paired_test(self.final(a), self.final(b), self.mode) for a, b in pairs]
        )
        tests, sentences = [], []
        for (first, second), test in zip(pairs, found, strict=True):
            diverged = self.diverged(first), self.diverged(second)
            sentence = conclusions.conclusion(
                first, second, test, self.monitor, self.mode, diverged
            )
            sentences.append(sentence)
            tests.append(
                {
                    "first": first,
                    "second": second,
                    "test": test.test,
                    "seeds": test.seeds,
                    "logarithms": test.ratio,
                    "difference": _or_none(test.difference),
                    "low": _or_none(test.low),
                    "high": _or_none(test.high),
                    "first_better": test.first_better,
                    "second_better": test.second_better,
                    "effect": _or_none(test.effect),
                    "p": _or_none(test.p),
                    "corrected_p": _or_none(test.corrected_p),
                    "significant": test.significant,
                    "conclusion": sentence,
                }
            )
        return tests, sentences

    def _best(self):
        """Who has won all of its tests, if it was tested against all others."""
        for name in self.optimizers:
            own = [test for test in self.tests if name in (test["first"], test["second"])]
            if len(own) < max(1, len(self.optimizers) - 1):
                continue
            wins = [
                test["significant"]
                and (test["first_better"] > test["second_better"]) == (test["first"] == name)
                and self._better(test, name)
                for test in own
            ]
            if all(wins):
                return name
        return None

    def _better(self, test, name):
        if test["test"] != "t":
            return True
        lower = test["difference"] < 0
        return (lower == (self.mode == "min")) == (test["first"] == name)

    def _notes(self):
        notes = []
        for seed in self.seeds:
            weights = {r["initial_weights"] for r in self.runs if r["seed"] == seed}
            if len(weights - {None}) > 1:
                notes.append(
                    f"The optimizers did not begin seed {seed} with the same weights: build_model "
                    "draws numbers that no seed reaches. The tests hold, but the pairs are none, "
                    "and differences are harder to find."
                )
                break
        if len(self.tests) > 1:
            notes.append(
                f"{len(self.tests)} pairs were tested; Holm's correction keeps the chance of any "
                "false claim among them below 5%."
            )
        return notes


def _metrics(records):
    """Names of the metrics that are in the logs of any run, in order."""
    names = dict.fromkeys(name for record in records for name in record["history"])
    return list(names)


def _or_none(value):
    return None if value is None or not math.isfinite(value) else float(value)

"""`Search`: what came of the trials of a search."""

import csv
import os


class Search:
    """What `search` returns.

    Args:
        trials: From `trials.kept`.
        monitor: The metric that decides.
        mode: `"min"` or `"max"`.

    Attributes:
        trials: A dictionary for each trial that is over, by whichever job, in the order of their
            numbers: `number`, `parameters`, `value` (the mean over the seeds, `None` where there
            is none), `state` (`"finished"`, `"pruned"` or `"diverged"`) and `reason`.
        best: That with the best value, or `None`.
        best_parameters: Its parameters, or `None`.
    """

    def __init__(self, trials, monitor, mode):
        self.trials = trials
        self.monitor = monitor
        self.mode = mode
        finished = [trial for trial in trials if trial["value"] is not None]
        pick = min if mode == "min" else max
        self.best = pick(finished, key=lambda trial: trial["value"]) if finished else None
        self.best_parameters = dict(self.best["parameters"]) if self.best else None

    def save(self, directory):
        """Writes `trials.csv`; returns its path."""
        path = os.path.join(directory, "trials.csv")
        rows = [
            {
                "number": trial["number"],
                **trial["parameters"],
                self.monitor: trial["value"],
                "state": trial["state"],
                "reason": trial["reason"],
            }
            for trial in self.trials
        ]
        beside = f"{path}.{os.getpid()}.writing"
        with open(beside, "w", newline="") as file:
            columns = list(dict.fromkeys(key for row in rows for key in row))
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(beside, path)
        return path

    def __str__(self):
        ordered = sorted(
            self.trials,
            key=lambda trial: (
                trial["value"] is None,
                0 if trial["value"] is None else trial["value"] * (1 if self.mode == "min" else -1),
            ),
        )
        lines = []
        for trial in ordered:
            value = trial["state"] if trial["value"] is None else f"{trial['value']:.6g}"
            chosen = ", ".join(f"{name}={value}" for name, value in trial["parameters"].items())
            lines.append(f"trial {trial['number']}: {self.monitor} {value}: {chosen}")
        return "\n".join(lines)

"""The tables of a comparison as CSV files and as text."""

import csv
import os

from disttrain.experiments.shared import runs


def save(comparison, directory):
    """Writes `summary.csv`, `tests.csv` and `runs.csv`.

    Returns:
        Their paths, a list.
    """
    written = []
    for name, rows in (
        ("summary.csv", comparison.summary),
        ("tests.csv", comparison.tests),
        ("runs.csv", epochs(comparison)),
    ):
        path = os.path.join(directory, name)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        beside = f"{path}.{os.getpid()}.writing"
        with open(beside, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(beside, path)
        written.append(path)
    return written


def epochs(comparison):
    """All runs, all epochs: a list of dictionaries; what is not finite is the text `nan`."""
    rows = []
    for record in comparison.runs:
        for epoch, (steps, seconds) in enumerate(
            zip(record["steps"], record["seconds"], strict=True)
        ):
            row = {
                "optimizer": record["optimizer"],
                "seed": record["seed"],
                "state": record["state"],
                "epoch": epoch + 1,
                "steps": steps,
                "seconds": seconds,
            }
            for name, values in record["history"].items():
                if epoch < len(values):
                    row[name] = "nan" if values[epoch] is None else values[epoch]
            rows.append(row)
        if not record["steps"]:
            # It has come to no end of an epoch, and is a run all the same.
            keys = ("optimizer", "seed", "state")
            rows.append({**{key: record[key] for key in keys}, "epoch": 0, "steps": 0})
    return rows


def headings(comparison):
    """The table for people: a list of `(heading, function of a summary row)`."""
    found = [("", lambda row: str(row["rank"])), ("optimizer", lambda row: row["optimizer"])]
    for metric in comparison.shown_metrics():
        for kind in ("final", "best"):
            found.append((f"{kind} {metric}", _mean(metric, kind)))
    if comparison.target is not None:
        found += [
            (
                f"reached {comparison.target:g}",
                lambda row: f"{row['reached_target']} of {row['runs']}",
            ),
            ("steps to it", lambda row: _or_never(row["steps_to_target_median"], "{:.0f}")),
            ("seconds to it", lambda row: _or_never(row["seconds_to_target_median"], "{:.1f}")),
        ]
    if any(record["state"] == runs.DIVERGED for record in comparison.runs) or any(
        row["diverged"] for row in comparison.summary
    ):
        found.append(("diverged", lambda row: f"{row['diverged']} of {row['runs']}"))
    found.append(("seconds", lambda row: f"{row['seconds_mean']:.1f}"))
    return found


def text(comparison):
    """The table and the conclusions as lines."""
    columns = headings(comparison)
    lines = [[heading for heading, _ in columns]]
    lines += [[cell(row) for _, cell in columns] for row in comparison.summary]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    rows = [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    return "\n".join([*rows, "", *comparison.conclusions])


def _mean(metric, kind):
    def cell(row):
        mean, low, high = (row.get(f"{metric}_{kind}_{end}") for end in ("mean", "low", "high"))
        if mean is None:
            return "none finite"
        shown = f"{mean:.4g}"
        return shown if low is None else f"{shown} ({low:.4g} to {high:.4g})"

    return cell


def _or_never(value, form):
    return "never" if value is None else form.format(value)

"""The numbers of a run that are printed: plain dictionaries, which JSON takes as they are."""

import dataclasses
import difflib
import math

import numpy as np

from tensorboard_plugin import buckets, health, metadata

#: Points of a trend.
TREND = 16


class UnknownStatistic(ValueError):
    """There is no statistic of the name to sort by; the message says which there are."""


def summarize(name, run, replicas, problems, last=None):
    """Sums a run up.

    Args:
        name: Its name.
        run: Its `health.Run`.
        replicas: Its number of replicas.
        problems: `parts.Problem`s of reading it.
        last: Look at so many of the last records alone; `None` for all.

    Returns:
        A dictionary: `name`, what `_whole` returns, `variables` (each with `path`, `shape`,
        `dtype`, `trainable`, `parameters`, `slots`, `statistics`: the median of each over the
        records, and `trend`: the update ratio over the records), `findings` (what
        `health.Finding` holds) and `problems`.
    """
    steps = run.layers.steps if len(run.layers.steps) else run.quantities.steps
    if last is not None and len(steps) > last:
        run = run.since(int(steps[-last]))
    return {
        "name": name,
        "replicas": replicas,
        **_whole(run),
        "variables": _variables(run),
        "findings": [found.to_json() for found in health.findings(run)],
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }


def sort(summaries, statistic):
    """Sorts the variables of each run by a statistic, the largest first, in place.

    Raises:
        UnknownStatistic: No run has it.
    """
    variables = [variable for one in summaries for variable in one["variables"]]
    known = list(dict.fromkeys(name for v in variables for name in v["statistics"]))
    if statistic != "parameters" and statistic not in known:
        close = [name for name in known if statistic in name] if statistic else []
        close = close or difflib.get_close_matches(statistic, known, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UnknownStatistic(
            f"there is no statistic {statistic!r} to sort by; {hint}there are parameters, "
            f"{', '.join(known)}"
        )

    def key(variable):
        value = variable["statistics"].get(statistic, math.nan)
        value = variable["parameters"] if statistic == "parameters" else value
        return math.inf if math.isnan(value) else -value

    for one in summaries:
        one["variables"].sort(key=key)


def jsonable(value):
    """The same without what JSON has no number for: `None` for NaN, and `"Infinity"`."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _whole(run):
    """What the run as a whole did.

    Returns:
        A dictionary: `records`, `first_step`, `last_step`, `optimizer`, `parameters`,
        `optimizer_bytes` by slot; of the loss, the learning rate and the loss scale the `first` and
        `last` value, and the `highest`; `clipped`, the share of records in which the clip acted,
        and `clip_factor`, its median there; `skipped`, a number of steps; medians of
        `step_seconds`, `examples_per_second`, `batch`, and of `noise_scale` over the later half.
    """
    table = run.quantities
    steps = run.layers.steps if len(run.layers.steps) else table.steps
    of = {s.name: _values(table, s.name) for s in metadata.STEP_QUANTITIES}
    factors = of["clip_factor"]
    acting = factors[factors < 1]
    noise = of["noise_scale"]
    skipped = of["skipped"][np.isfinite(of["skipped"])]
    return {
        "records": len(steps),
        "first_step": int(steps[0]) if len(steps) else None,
        "last_step": int(steps[-1]) if len(steps) else None,
        "optimizer": dict(run.optimizer),
        "parameters": sum(variable.get("parameters", 0) for variable in run.variables),
        "optimizer_bytes": _bytes(run.variables),
        **{name: _span(of[name]) for name in ("loss", "learning_rate", "loss_scale")},
        "clipped": float(np.mean(factors[~np.isnan(factors)] < 1)) if len(acting) else 0.0,
        "clip_factor": _median(acting),
        "skipped": int(skipped.sum()),
        "step_seconds": _median(of["step_seconds"]),
        "examples_per_second": _median(of["examples_per_second"]),
        "batch": _median(of["step_seconds"] * of["examples_per_second"]),
        "noise_scale": _median(noise[len(noise) // 2 :]),
    }


def _values(table, name):
    found = table.columns.get(name)
    return np.full(len(table.steps), np.nan) if found is None else np.asarray(found, np.float64)


def _median(values):
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else math.nan


def _span(values):
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    return {
        "first": float(values[0]),
        "last": float(values[-1]),
        "highest": float(values.max()),
    }


def _bytes(variables):
    """Bytes of each slot over all variables, by name."""
    total = {}
    for variable in variables:
        for slot, described in variable.get("slots", {}).items():
            size = described.get("bytes") if isinstance(described, dict) else None
            if isinstance(size, int) and not isinstance(size, bool):
                total[slot] = total.get(slot, 0) + size
    return total


def _variables(run):
    medians = {name: _medians(column) for name, column in run.layers.columns.items()}
    trends = _trends(run.layers.columns.get("update_ratio"))
    return [
        {
            **variable,
            "statistics": {name: float(column[row]) for name, column in medians.items()},
            "trend": trends[row].tolist() if trends is not None else [],
        }
        for row, variable in enumerate(run.variables)
    ]


def _medians(column):
    """`[variables]`: the median of the finite values over records, NaN where there are none."""
    if len(column) and np.isfinite(column).all():
        return np.median(column, axis=0)
    ordered = np.sort(np.where(np.isfinite(column), column, np.nan), axis=0)  # NaN comes last.
    count = np.isfinite(ordered).sum(axis=0)
    if not len(ordered):
        return np.full(column.shape[1], np.nan)
    places = [np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(ordered) - 1)]
    low, high = (np.take_along_axis(ordered, place[None], axis=0)[0] for place in places)
    return np.where(count > 0, low / 2 + high / 2, np.nan)


def _trends(ratios):
    """`[variables, points]`: geometric means of the update ratio; 0 where it only was 0."""
    if ratios is None or not len(ratios):
        return None
    positive = np.isfinite(ratios) & (ratios > 0)
    logs = np.where(positive, np.log(np.where(positive, ratios, 1)), np.nan)
    summed = buckets.bucket(logs, positive, buckets.edges(len(ratios), TREND))
    seen = buckets.bucket(ratios, np.isfinite(ratios), buckets.edges(len(ratios), TREND))
    return np.where(seen.recorded & ~summed.recorded, 0, np.exp(summed.mean)).T

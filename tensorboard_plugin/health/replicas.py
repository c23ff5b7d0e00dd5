"""The rules about replicas: one that learns something else, one that keeps the others waiting."""

import numpy as np

from tensorboard_plugin.health.evidence import LASTING_RECORDS, lasting
from tensorboard_plugin.health.finding import Place, of_run, percent

#: Replicas see samples of the same data, so that their losses and norms agree to within the noise
#: of a batch, which does not stay on one side. Twice or half the others for long is other data.
FAR = 2.0

#: Single examples can make one norm large; losses are means.
FAR_NORM = 3.0

#: Waiting is worth a word when the others lose this share of their step to one replica.
STRAGGLING = 0.2

#: The same replica must be the slow one in this share of a window; the clocks of hosts are noisy.
STRAGGLING_SHARE = 0.8

#: A replica that has no examples of an epoch's last batch has no loss there; more often than in
#: half of the records that is no explanation.
LOST_SHARE = 0.5


def replica_diverges(evidence):
    """A replica whose loss or gradients are far from the others' for long."""
    for name, far, what in (("loss", FAR, "local loss"), ("gradient_norm", FAR_NORM, "local norm")):
        values = _settled(evidence, name)
        if values is None:
            continue
        finding = _lost(evidence, values, what, name) or _far(evidence, values, far, what, name)
        if finding is not None:
            return [finding]
    return []


def _lost(evidence, values, what, name):
    """One replica whose values are not finite while all others' are."""
    steps = _steps(evidence)
    bad = ~np.isfinite(values)
    alone = bad & (bad.sum(axis=1) == 1)[:, None]
    columns, first, last = lasting(alone, LASTING_RECORDS, LOST_SHARE)
    if not len(columns):
        return None
    replica, part = int(columns[0]), slice(first[0], last[0] + 1)
    count = int(alone[part, replica].sum())
    return of_run(
        "replica_diverges",
        "error",
        Place("replicas", name),
        (steps[first[0]], steps[last[0]]),
        {"replica": replica, "records": count},
        message=f"The {what} of replica {replica} was NaN or infinite in {count} records "
        "in which those of all others were finite.",
        why="A gradient that is not finite on one replica makes all of them skip the step.",
        advice="Look at the part of the data that this replica reads, and at its device.",
    )


def _far(evidence, values, far, what, name):
    usable = np.isfinite(values) & (values > 0)
    logs = np.log(np.where(usable, values, np.nan))
    distance = np.abs(logs - _median_of_others(logs))
    columns, first, last = lasting(distance > np.log(far), evidence.window(evidence.run.replicas))
    if not len(columns):
        return None
    far_by = [
        # Of two replicas, which are as far from each other, the larger one.
        (round(np.nanmedian(distance[a : b + 1, c]), 3), np.nanmedian(logs[a : b + 1, c]))
        for c, a, b in _zip(columns, first, last)
    ]
    worst = far_by.index(max(far_by))
    replica, part = int(columns[worst]), slice(first[worst], last[worst] + 1)
    own = float(np.nanmedian(values[part, replica]))
    others = float(np.exp(np.nanmedian(_median_of_others(logs)[part, replica])))
    steps = _steps(evidence)
    two = values.shape[1] == 2
    against = f"replica {1 - replica}" if two else "the others"
    return of_run(
        "replica_diverges",
        "warning",
        Place("replicas", name),
        (steps[first[worst]], steps[last[worst]]),
        {"replica": replica, "median": own, "others": others, "factor": own / others},
        message=f"The {what} of replica {replica} was {own:.3g} where {against} had {others:.3g} "
        f"(medians), from step {steps[first[worst]]} to {steps[last[worst]]}.",
        why="Replicas hold the same weights and see samples of the same data: a lasting difference "
        "means that their data differs, and that batches are no fair sample.",
        advice="Look at what this replica reads: shards by class or by time, an unshuffled file, "
        "another preprocessing. If that is meant, all is well.",
    )


def straggler(evidence):
    """One replica that all others wait for."""
    waits, seconds = _settled(evidence, "wait_seconds"), _settled(evidence, "step_seconds")
    if waits is None or seconds is None:
        return []
    known = np.isfinite(waits).all(axis=1) & (np.isfinite(seconds) & (seconds > 0)).all(axis=1)
    waits, seconds, steps = waits[known], seconds[known], _steps(evidence)[known]
    lost = (_median_of_others(waits) - waits) / np.median(seconds, axis=1, keepdims=True)
    slow = (lost > STRAGGLING) & (waits == waits.min(axis=1, keepdims=True))
    window = evidence.window(evidence.run.replicas)
    columns, first, last = lasting(slow, window, STRAGGLING_SHARE)
    if not len(columns):
        return []
    medians = [np.median(lost[a : b + 1, c]) for c, a, b in _zip(columns, first, last)]
    worst = int(np.argmax(medians))
    replica, part = int(columns[worst]), slice(first[worst], last[worst] + 1)
    own = float(np.median(waits[part, replica]))
    others = float(np.median(_median_of_others(waits)[part, replica]))
    against = "the other" if waits.shape[1] == 2 else "the others"
    return [
        of_run(
            "straggler",
            "warning",
            Place("replicas", "wait_seconds"),
            (steps[first[worst]], steps[last[worst]]),
            {"replica": replica, "wait": own, "others_wait": others, "share": medians[worst]},
            message=f"Replica {replica} is the slowest: {against} spent {1e3 * others:.3g} ms of a "
            f"step in the reduction, it {1e3 * own:.3g} ms; {percent(medians[worst])} of each step "
            "is lost to waiting.",
            why="Every step takes as long as the slowest replica.",
            advice="Look at that replica's host: other work on it, a slower device, a busy disk or "
            "network for its input. Give its input pipeline prefetch, or it a smaller part.",
        )
    ]


def _settled(evidence, name):
    """`[settled records, replicas]` float64 of a quantity, or `None` with fewer than 2 replicas."""
    table = evidence.run.replicas
    values = table.columns.get(name)
    if values is None or values.ndim != 2 or values.shape[1] < 2:
        return None
    values = np.asarray(values[evidence.settled(table)], np.float64)
    return values if np.isfinite(values).any() else None


def _steps(evidence):
    table = evidence.run.replicas
    return table.steps[evidence.settled(table)]


def _zip(*arrays):
    return zip(*arrays, strict=True)


def _median_of_others(values):
    """`[n, replicas]`: for each replica the median over all others of the same record."""
    valid = ~np.isnan(values)
    arranged = np.argsort(values, axis=1)  # NaN comes last.
    ranks = np.empty_like(arranged)
    np.put_along_axis(ranks, arranged, np.arange(values.shape[1])[None, :], axis=1)
    others = valid.sum(axis=1, keepdims=True) - valid
    rising = np.take_along_axis(values, arranged, axis=1)

    def pick(place):
        # Places are among the others: from the replica's own rank on, they are one further.
        at = place + (valid & (place >= ranks))
        return np.take_along_axis(rising, np.clip(at, 0, values.shape[1] - 1), axis=1)

    median = (pick((others - 1) // 2) + pick(others // 2)) / 2
    return np.where(others > 0, median, np.nan)

"""The rules about updates: none, too large, too small."""

import math

import numpy as np

from tensorboard_plugin.health.evidence import LASTING_SHARE, lasting, medians
from tensorboard_plugin.health.finding import (
    LayerNumbers,
    Place,
    of_layers,
    percent,
    plain,
    rounded,
)

#: The update ratio is around 1e-3 in trainings that go well (Karpathy 2015, CS231n, "Ratio of
#: weights:updates"). A factor of 10 above, weights are new every hundred steps; a factor of 100
#: below, they would take 100,000 steps to change by their own size.
RATIO_USUAL = 1e-3
RATIO_TOO_HIGH = 1e-2
RATIO_TOO_LOW = 1e-5

#: Embeddings and other small weights begin with high ratios and settle within some hundred steps. A
#: ratio that is too high for longer, and for a tenth of the records, is the learning rate's doing.
HIGH_STEPS = 500
HIGH_SHARE = 0.1

#: Ten times the limit tears weights apart at once; then the usual window is enough.
TORN = 10 * RATIO_TOO_HIGH

_HALF = ("float16", "bfloat16")


def no_update(evidence):
    """Variables that have a gradient at times, and stand still."""
    updates = evidence.layer("update_norm")
    if updates is None:
        return []
    table = evidence.run.layers
    gradients = evidence.layer("gradient_norm")
    still = (updates == 0) & evidence.moving[:, None]
    still &= evidence.trainable & ~evidence.without_gradient
    if _has_frozen_groups(evidence.run.optimizer):
        still &= (updates > 0).any(axis=0)  # The others may well be the frozen ones.
    spells = lasting(still, evidence.window(table))
    blocked = np.zeros(len(spells[0]), bool)
    if gradients is not None:
        blocked = medians(gradients, spells) == 0
    layers = []
    for column, first, last in zip(*spells, strict=True):
        numbers = {"records": int(last - first + 1)}
        steps = int(table.steps[first]), int(table.steps[last])
        layers.append(LayerNumbers(evidence.paths[column], *steps, numbers))
    if not layers:
        return []
    layers.sort(key=lambda item: -item.numbers["records"])
    half = [evidence.run.variables[column].get("dtype") in _HALF for column in spells[0]]
    if blocked.all():
        why = "The gradient is 0, too: the loss no longer depends on it."
        advice = (
            "Units that are never active (dead ReLUs) are the usual cause: lower the learning "
            "rate, use GELU or LeakyReLU, or initialise biases above 0."
        )
    elif (half & ~blocked).any():
        why = (
            "There is a gradient, but weights in half precision: an update below 1/512 of a weight "
            "(bfloat16; 1/4096 in float16) is rounded away."
        )
        advice = (
            'Keep variables in float32 and compute in half precision: precision="mixed_bfloat16" '
            'or "mixed_float16" does that.'
        )
    else:
        why = "There is a gradient, but the optimizer does not follow it."
        advice = (
            "Look for a learning rate of 0 in its group, a constraint that undoes the update, or "
            "an update too small for the variable's precision."
        )
    return [
        of_layers(
            "no_update",
            "warning",
            Place("layer", "update_norm"),
            layers,
            len(evidence.paths),
            one="did not change in {records} records, from step "
            f"{layers[0].first_step} to {layers[0].last_step}, although it is trainable",
            many="did not change for long, although they are trainable",
            short="{records} records",
            why=why,
            advice=advice,
        )
    ]


def _has_frozen_groups(optimizer):
    """Whether the optimizer, or one inside of it, is a `Grouped` that freezes variables."""
    while isinstance(optimizer, dict):
        config = optimizer.get("config")
        config = config if isinstance(config, dict) else {}
        groups = config.get("groups")
        if isinstance(groups, list) and any(
            isinstance(group, dict) and group.get("frozen") for group in groups
        ):
            return True
        optimizer = config.get("inner")
    return False


def ratio_too_high(evidence):
    """Matrices that each step changes by more than a hundredth."""
    ratios = evidence.layer("update_ratio")
    if ratios is None:
        return []
    table = evidence.run.layers
    rows = evidence.settled(table)
    ratios, steps = ratios[rows], table.steps[rows]
    counts = evidence.applied[rows][:, None] & evidence.matrices
    long = max(evidence.window(table, HIGH_STEPS), math.ceil(HIGH_SHARE * len(ratios)))
    found = {}
    for limit, window in ((RATIO_TOO_HIGH, long), (TORN, evidence.window(table))):
        spells = lasting((ratios > limit) & counts, window)
        for column, first, last, median in zip(*spells, medians(ratios, spells), strict=True):
            numbers = plain({"median": median, "records": last - first + 1})
            span = int(steps[first]), int(steps[last])
            found.setdefault(column, LayerNumbers(evidence.paths[column], *span, numbers))
    if not found:
        return []
    layers = sorted(found.values(), key=lambda item: -item.numbers["median"])
    factor = layers[0].numbers["median"] / RATIO_USUAL
    return [
        of_layers(
            "update_ratio_high",
            "warning",
            Place("overview", "update_ratio"),
            layers,
            len(evidence.paths),
            one="changed by {median:.2g} of its norm in a step (median of {records} records); "
            "0.001 is usual",
            many=f"changed by more than {RATIO_TOO_HIGH:g} of their norm in a step; 0.001 is usual",
            short="{median:.2g}",
            why="Weights that are replaced within a hundred steps cannot settle: the loss is noisy "
            "or stays high.",
            advice=f"Lower the learning rate, by a factor of up to {rounded(factor)}, or warm it "
            "up for longer; for single layers, disttrain.optimizers.Grouped sets rates by path.",
        )
    ]


def ratio_too_low(evidence):
    """Matrices that hardly change in all of a run."""
    ratios = evidence.layer("update_ratio")
    table = evidence.run.layers
    # Late in a training everything moves slowly, and should.
    if ratios is None or not evidence.has_beginning(table):
        return []
    settled = evidence.settled(table)
    rows = np.flatnonzero(evidence.learning[settled]) + settled.start
    if len(rows) < evidence.window(table):
        return []
    ratios = ratios[rows]
    slow = np.count_nonzero(ratios < RATIO_TOO_LOW, axis=0) >= LASTING_SHARE * len(rows)
    slow &= evidence.matrices & evidence.trainable & ~evidence.without_gradient
    columns = np.flatnonzero(slow)
    ratios = np.ascontiguousarray(ratios[:, columns].T)
    zeros = evidence.layer("zero_fraction")
    if zeros is not None:
        # Rows of an embedding that a batch does not hold cannot move.
        held = 1 - np.nan_to_num(zeros[np.ix_(rows, columns)].T)
        ratios = ratios / np.sqrt(np.maximum(held, 1e-6))
    low = (ratios < RATIO_TOO_LOW) & (ratios > 0)
    share = low.mean(axis=1)
    first, last = table.steps[rows[[0, -1]]]
    layers = []
    for row in np.flatnonzero(share >= LASTING_SHARE):
        numbers = {"median": np.median(ratios[row][low[row]]), "records": low[row].sum()}
        path = evidence.paths[columns[row]]
        layers.append(LayerNumbers(path, int(first), int(last), plain(numbers)))
    if not layers:
        return []
    layers.sort(key=lambda item: item.numbers["median"])
    matrices = np.count_nonzero(evidence.matrices & evidence.trainable)
    return [
        of_layers(
            "update_ratio_low",
            "warning",
            Place("overview", "update_ratio"),
            layers,
            len(evidence.paths),
            one="changed by only {median:.1g} of its norm in a step (median of {records} records); "
            "0.001 is usual",
            many=f"changed by less than {RATIO_TOO_LOW:g} of their norm in a step, in "
            f"{percent(LASTING_SHARE)} of the records or more; 0.001 is usual",
            short="{median:.1g}",
            why="At this pace they stay as they were initialised.",
            advice="All layers are slow: raise the learning rate in steps of 10, by a factor of up "
            f"to {rounded(RATIO_USUAL / layers[-1].numbers['median'])}."
            if len(layers) == matrices
            else "Only some layers are slow: look at their gradients first; normalisation, another "
            "initialisation or a higher rate for them (disttrain.optimizers.Grouped) helps.",
        )
    ]

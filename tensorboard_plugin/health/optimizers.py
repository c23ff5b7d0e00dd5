"""The rules about the optimizer and what stands before it: clip, epsilon, loss scale."""

import numpy as np

from tensorboard_plugin.health.evidence import lasting, medians
from tensorboard_plugin.health.finding import (
    LayerNumbers,
    Place,
    counted,
    of_layers,
    of_run,
    percent,
    plain,
)
from tensorboard_plugin.health.not_finite import has_loss_scale

#: A clip acts where it takes away more than a tenth; unit-wise clips take a little at most steps.
CLIPPED = 0.9

#: A clip is for rare outliers. When it acts in this share of the records, it sets the step size.
CLIP_SHARE = 0.9

#: So many elements at least must have a root of the second moment below epsilon.
EPSILON_SHARE = 0.5

#: An epsilon from here on was chosen by someone, against noise; smaller ones are defaults.
CHOSEN_EPSILON = 1e-4

#: Trainings in float16 used scales of 8 to 32,768 (Micikevicius et al. 2018, "Mixed precision
#: training", section 3.2). At 4 almost nothing is scaled any more; a fall by 2^8 behind the startup
#: is eight overflows without recovery.
COLLAPSED_SCALE = 4.0
COLLAPSE = 2.0**8

#: A dynamic scale overflows about once in 2000 steps, which is 0.05%.
SKIPPED_SHARE = 0.05
SKIPPED_LEAST = 5

#: A run that skips this share of its steps is broken.
SKIPPED_BROKEN = 0.5

#: For optimizers that divide by the root of a second moment: the slot, whether epsilon is added
#: behind the root, and the decay in the configuration by which the slot is biased towards 0, or
#: `None`. From Keras 3's sources.
_SECOND_MOMENTS = {
    "Adam": ("velocity", True, "beta_2"),
    "AdamW": ("velocity", True, "beta_2"),
    "Nadam": ("velocity", True, "beta_2"),
    "Lamb": ("velocity", True, "beta_2"),
    "RMSprop": ("velocity", False, "rho"),
    "Adagrad": ("accumulator", False, None),
}

#: Their columns of `disttrain/layers`; Adam's with amsgrad is the last.
SECOND_MOMENT_COLUMNS = ("slot/velocity", "slot/accumulator", "slot/velocity_hat")

#: Optimizers whose update does not depend on a constant factor on the gradient.
_SCALE_INVARIANT = {
    *("Adam", "AdamW", "Adamax", "Nadam", "Lamb", "LAMB", "Lion", "Muon", "RMSprop", "Adagrad"),
    *("Adadelta", "Adafactor", "ScheduleFreeAdamW", "LARS", "NovoGrad", "RectifiedAdam"),
}


def innermost(optimizer):
    """`(class_name, config)` of the optimizer that makes the update, inside of any wrappers.

    Args:
        optimizer: What `Run.optimizer` holds; `("", {})` for one that makes no sense.
    """
    while True:
        config = optimizer.get("config")
        config = config if isinstance(config, dict) else {}
        inner = config.get("inner")
        if not isinstance(inner, dict):
            return str(optimizer.get("class_name", "")), config
        optimizer = inner


def clip_always(evidence):
    """A clip that acts on nearly every step."""
    table = evidence.run.quantities
    rows = evidence.settled(table)
    factors = evidence.quantity("clip_factor")[rows]
    norms = evidence.quantity("gradient_norm")[rows]
    known = np.isfinite(factors) & np.isfinite(norms)
    factors, norms, steps = factors[known], norms[known], table.steps[rows][known]
    clip = str(evidence.run.optimizer.get("clip") or "")
    # AutoClip clips to a percentile of the norms: nearly always is what it is for.
    if len(factors) < evidence.window(table) or clip.startswith("AutoClip"):
        return []
    share = np.mean(factors < CLIPPED)
    if share < CLIP_SHARE:
        return []
    median, norm, high = np.median(factors), np.median(norms), np.quantile(norms, 0.9)
    name, _ = innermost(evidence.run.optimizer)
    invariant = name in _SCALE_INVARIANT
    return [
        of_run(
            "clip_always",
            "note" if invariant else "warning",
            Place("optimizer", "clip_factor"),
            steps[[0, -1]],
            {"share": share, "median_factor": median, "gradient_norm": norm, "norm_p90": high},
            message=f"{_name_of(clip) or 'The clip'} acted on {percent(share)} of "
            f"{len(factors)} recorded steps, with a median factor of {median:.2g} on a gradient "
            f"norm of {norm:.3g}.",
            why="A clip is for rare outliers. When it acts on nearly every step, all steps get "
            "the same gradient norm: "
            + (
                f"{name} does not mind the factor itself, but batches with large and with small "
                "gradients now count the same."
                if invariant
                else "the clip is your learning rate, for the step is as long as the learning rate "
                "times the limit, whatever the gradient."
            ),
            advice=f"Raise the limit to the 90th percentile of the gradient norm, {high:.2g} here"
            + ("." if invariant else f", and multiply the learning rate by {median:.2g}."),
        )
    ]


def _name_of(clip):
    return clip.partition("(")[0][:60]


def epsilon_dominates(evidence):
    """Second moments so small that epsilon takes their place in the denominator.

    Elements divide by `sqrt(v) + epsilon`. Recorded is the norm of the slot, `|v|`, over N
    elements. The mean of v is at most `|v| / sqrt(N)` (the quadratic mean bounds the mean), and at
    most `mean(v) / epsilon^2` of the elements have `v >= epsilon^2` (Markov's inequality). So if
    `|v| / sqrt(N) < (1 - share) * epsilon^2`, at least `share` of the elements have a root below
    epsilon, whatever their distribution. The reverse does not hold: a few large elements can hide
    many small ones. N counts the elements whose gradient is not 0, because those of an embedding's
    rows that never occur have v = 0 and move nothing.

    RMSprop and Adagrad add epsilon before the root is taken: then v itself is compared with it.
    """
    name, config = innermost(evidence.run.optimizer)
    if name not in _SECOND_MOMENTS or "groups" in config:
        return []
    slot, behind_root, decay = _SECOND_MOMENTS[name]
    if config.get("amsgrad"):
        slot = "velocity_hat"
    epsilon = config.get("epsilon")
    norms = evidence.layer(f"slot/{slot}")
    if norms is None or not isinstance(epsilon, (int, float)) or not 0 < epsilon < 1e3:
        return []
    table = evidence.run.layers
    since = evidence.run.optimizer_since
    begin = int(np.searchsorted(table.steps, max(evidence.startup + 1, since)))
    norms, steps = norms[begin:], table.steps[begin:]
    limit = (1 - EPSILON_SHARE) * (epsilon**2 if behind_root else epsilon)
    limits = limit * np.sqrt(evidence.sizes)
    able = evidence.trainable & ~evidence.without_gradient & ~evidence.rounding
    if not len(norms):
        return []
    columns = np.flatnonzero(able & (np.fmin.reduce(norms, axis=0) < limits))
    norms, limits = norms[:, columns], limits[columns][None, :]
    zeros = evidence.layer("zero_fraction")
    if zeros is not None:
        limits = limits * np.sqrt(1 - np.nan_to_num(zeros[begin:, columns]))
    beta = config.get(decay)
    if isinstance(beta, float) and 0 < beta < 1:
        # The slot begins at 0; it is compared as if it had begun at its usual value.
        norms = norms / (1 - beta ** (steps - since + 1.0))[:, None]
    # Where v is 0 there was no gradient, which is another finding.
    spells = lasting((norms < limits) & (norms > 0), evidence.window(table))
    layers = []
    for column, first, last, norm in zip(*spells, medians(norms, spells), strict=True):
        mean = norm / np.sqrt(evidence.sizes[columns[column]])
        root = np.sqrt(mean) if behind_root else mean
        numbers = plain({"root": root, "epsilon": epsilon, "factor": root / epsilon})
        span = int(steps[first]), int(steps[last])
        layers.append(LayerNumbers(evidence.paths[columns[column]], *span, numbers))
    if not layers:
        return []
    layers.sort(key=lambda item: item.numbers["root"])
    what = "root of its second moment" if behind_root else "second moment"
    return [
        of_layers(
            "epsilon_dominates",
            "note" if epsilon >= CHOSEN_EPSILON else "warning",
            Place("layer", f"slot/{slot}"),
            layers,
            len(evidence.paths),
            one=f"has an epsilon of {epsilon:g} above the {what} in half of its elements or more; "
            "the mean is at most {root:.1g}",
            many=f"have an epsilon of {epsilon:g} above the {what.replace('its', 'their')} in half "
            "of their elements or more",
            short="at most {root:.1g}",
            why=f"There {name} no longer divides by the gradient's size: it becomes plain descent "
            "with small steps, and these layers fall behind.",
            advice="If the epsilon was chosen for that, all is well; otherwise lower it."
            if epsilon >= CHOSEN_EPSILON
            else f"Lower epsilon, to {max(epsilon / 100, 1e-12):.0g} say, or find out why the "
            "gradients are that small.",
        )
    ]


def loss_scale_collapses(evidence):
    """A dynamic loss scale that falls and does not recover."""
    table = evidence.run.quantities
    rows = evidence.settled(table)
    scale, skipped = evidence.quantity("loss_scale")[rows], evidence.skipped[rows]
    window = evidence.window(table)
    known = np.isfinite(scale)
    scale, steps = scale[known], table.steps[rows][known]
    skipped = skipped[known]
    moves = (scale[1:] != scale[:-1]).any() if len(scale) else False
    dynamic = moves or str(evidence.run.optimizer.get("loss_scale")).startswith("Dynamic")
    if len(scale) < window or not dynamic or not has_loss_scale(evidence):
        return []
    # What it was at last, and what it was before, without single dips and peaks.
    last = np.median(scale[-window:])
    highest = np.quantile(scale, 0.95)
    if last > COLLAPSED_SCALE and last * COLLAPSE > highest:
        return []
    fell = int(np.flatnonzero(scale > 2 * last)[-1]) if (scale > 2 * last).any() else 0
    lost = int(skipped[-window:].sum())
    return [
        of_run(
            "loss_scale_collapses",
            "error" if lost and last <= COLLAPSED_SCALE else "warning",
            Place("optimizer", "loss_scale"),
            steps[[fell, -1]],
            {"highest": highest, "last": last, "skipped": lost},
            message="The loss scale has fallen "
            + (f"from {highest:g} to {last:g}" if highest > last else f"to {last:g}")
            + f"; {counted(lost, 'step')} skipped in the last {window} records.",
            why="Each fall is an overflow. With so small a scale, gradients below 6e-8 become 0 in "
            "float16, and layers with small gradients stop learning.",
            advice='Use bfloat16 (precision="mixed_bfloat16"), which needs no loss scale; or '
            "lower the learning rate, clip, and look for the layer whose activations or loss "
            "overflow float16 at 65504.",
        )
    ]


def skipped_steps(evidence):
    """More steps skipped than a loss scale needs to find its value."""
    if not has_loss_scale(evidence):
        return []  # Then a single one is a finding of `not_finite`.
    table = evidence.run.quantities
    rows = evidence.settled(table)
    skipped = evidence.skipped[rows]
    if len(skipped) < evidence.window(table):
        return []
    steps = table.steps[rows]
    before = table.steps[rows.start - 1] if rows.start else steps[0] - 1
    made, lost = int(steps[-1] - before), int(skipped.sum())
    share = lost / made
    if lost < SKIPPED_LEAST or share <= SKIPPED_SHARE:
        return []
    where = np.flatnonzero(skipped)
    return [
        of_run(
            "skipped_steps",
            "error" if share > SKIPPED_BROKEN else "warning",
            Place("optimizer", "skipped"),
            steps[where[[0, -1]]],
            {"skipped": lost, "steps": made, "share": share},
            message=f"{lost} of {made} steps ({percent(share)}) were skipped because gradients "
            "overflowed.",
            why="Each skipped step is a batch computed for nothing; a dynamic loss scale needs "
            "about one in 2000.",
            advice='With a fixed loss scale, halve it or use "dynamic". With a dynamic one look '
            "for activations or a loss that overflow float16 at 65504, or use bfloat16.",
        )
    ]

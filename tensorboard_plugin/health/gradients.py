"""The rules about gradients: none, exploding, vanishing."""

import numpy as np

from tensorboard_plugin.health.evidence import lasting
from tensorboard_plugin.health.finding import LayerNumbers, Place, of_layers, plain

#: A gradient explodes when its norm stays so far above the geometric mean of all records before.
#: In usual trainings norms fall by 10 to 1000 and rise by less than 10 once the startup is over.
EXPLOSION = 100.0

#: And so far above what matrices usually had at first: a layer that wakes up, because it was
#: initialised with 0, only rises to what the others have.
AWAKE = 10.0

#: It shows in fewer records than other conditions, since it ends in NaN or in a clip.
EXPLOSION_RECORDS = 10

#: A gradient vanishes when its root mean square stays so far below the upper quartile of all
#: matrices. Layers that train well lie within 1e-3 of it. A sigmoid's derivative is at most 1/4, so
#: that a stack of them gets there in seven layers (Glorot and Bengio 2010, "Understanding the
#: difficulty of training deep feedforward neural networks").
VANISHED = 1e-4

#: Fewer matrices are too few to compare.
VANISHING_MATRICES = 3


def no_gradient(evidence):
    """Variables that the loss does not depend on."""
    layers = []
    steps = evidence.run.layers.steps
    norms = evidence.layer("gradient_norm")
    for column in np.flatnonzero(evidence.without_gradient):
        numbers = plain({"recorded": np.isfinite(norms[:, column]).sum(), "records": len(steps)})
        path = evidence.paths[column]
        layers.append(LayerNumbers(path, int(steps[0]), int(steps[-1]), numbers))
    if not layers:
        return []
    return [
        of_layers(
            "no_gradient",
            "warning",
            Place("overview", "gradient_norm"),
            layers,
            len(evidence.paths),
            one=f"had no gradient, or one of exactly 0, in all of {len(steps)} records",
            many=f"had no gradient, or one of exactly 0, in all of {len(steps)} records",
            short="0 in {recorded} records",
            why="The loss does not depend on such a variable: it stays as it was initialised, but "
            "for weight decay.",
            advice="If that is meant, set trainable=False, which saves its slots. Otherwise look "
            "for an output that the loss does not use, a stop_gradient, a mask that hides "
            "everything, or units that are never active.",
        )
    ]


def rounding_gradient(evidence):
    """Biases and scales whose gradient is nothing but rounding."""
    columns = np.flatnonzero(evidence.rounding)
    if not len(columns):
        return []
    usual = evidence.usual_gradient
    levels = evidence.gradient_levels
    steps = evidence.run.layers.steps[evidence.settled(evidence.run.layers)]
    layers = [
        LayerNumbers(
            evidence.paths[column],
            int(steps[0]),
            int(steps[-1]),
            plain({"rms": levels[column], "usual": usual, "factor": levels[column] / usual}),
        )
        for column in sorted(columns, key=lambda column: levels[column])
    ]
    return [
        of_layers(
            "rounding_gradient",
            "note",
            Place("overview", "gradient_norm"),
            layers,
            len(evidence.paths),
            one="has a gradient of {rms:.1g} (root mean square), where matrices have {usual:.1g}: "
            "it is nothing but rounding",
            many="have gradients that are nothing but rounding (root mean square, where matrices "
            f"have {usual:.1g})",
            short="{rms:.1g}",
            why="The loss does not depend on such a variable, and Adam and its like divide by the "
            "gradient's size, so that they move it at full speed at random.",
            advice="A bias before a normalisation, and a key bias in attention, change nothing: "
            "use_bias=False saves them. Elsewhere look for what cuts the variable off.",
        )
    ]


def exploding(evidence):
    """Gradients that grow far beyond what they were."""
    table = evidence.run.layers
    rows = evidence.settled(table)
    logs = evidence.gradient_logs
    if logs is None or len(logs) < 2 * EXPLOSION_RECORDS:
        return []
    enough = np.log10(AWAKE * evidence.first_gradient * np.sqrt(evidence.sizes))
    columns = np.flatnonzero(np.fmax.reduce(logs, axis=0) > enough)
    logs, enough = logs[:, columns], enough[columns]
    known = ~np.isnan(logs)
    counts = np.cumsum(known, axis=0, dtype=np.float32)[:-1]
    before = np.cumsum(np.where(known, logs, 0), axis=0)[:-1] / np.maximum(counts, 1)
    logs = logs[1:]
    high = (logs > before + np.float32(np.log10(EXPLOSION))) & (logs > enough)
    spells = lasting(high & (counts >= EXPLOSION_RECORDS), EXPLOSION_RECORDS)
    found = []
    for column, first, last in zip(*spells, strict=True):
        usual, peak = 10.0 ** before[first, column], 10.0 ** np.nanmax(logs[first:, column])
        first_step, last_step = table.steps[rows][1:][[first, last]]
        numbers = plain({"usual": usual, "peak": peak, "factor": peak / usual})
        path = evidence.paths[columns[column]]
        layers = LayerNumbers(path, int(first_step), int(last_step), numbers)
        found.append((last == len(high) - 1, layers))
    if not found:
        return []
    layers = sorted((item for _, item in found), key=lambda item: -item.numbers["factor"])
    since = min(item.first_step for item in layers)
    return [
        of_layers(
            "exploding_gradient",
            "error" if any(lasts for lasts, _ in found) else "warning",
            Place("layer", "gradient_norm"),
            layers,
            len(evidence.paths),
            one="saw its gradient norm rise from {usual:.2g} to {peak:.2g}, beginning at step "
            f"{since}",
            many=f"saw their gradient norms rise by a factor of {EXPLOSION:g} or more, beginning "
            f"at step {since}",
            short="{usual:.2g} to {peak:.2g}",
            why="Steps of this size undo what was learnt and end in NaN.",
            advice="Go back to a checkpoint from before it. Lower the learning rate or warm it up "
            "for longer, and clip with disttrain.ClipByGlobalNorm at about the usual norm. In "
            "recurrent and very deep networks look at the initialisation and at normalisation.",
        )
    ]


def vanishing(evidence):
    """Matrices whose gradient is far smaller than that of the others."""
    usual, levels = evidence.usual_gradient, evidence.gradient_levels
    if np.count_nonzero(evidence.matrices) < VANISHING_MATRICES:
        return []
    columns = np.flatnonzero(evidence.trainable & evidence.matrices & (levels < VANISHED * usual))
    steps = evidence.run.layers.steps[evidence.settled(evidence.run.layers)]
    layers = [
        LayerNumbers(
            evidence.paths[column],
            int(steps[len(steps) // 2]),
            int(steps[-1]),
            plain({"rms": levels[column], "usual": usual, "factor": levels[column] / usual}),
        )
        for column in sorted(columns, key=lambda column: levels[column])
    ]
    if not layers:
        return []
    return [
        of_layers(
            "vanishing_gradient",
            "warning",
            Place("overview", "gradient_norm"),
            layers,
            len(evidence.paths),
            one="has a gradient of {rms:.1g} (root mean square), {factor:.1g} times that of the "
            "other matrices ({usual:.1g})",
            many=f"have gradients less than {VANISHED:g} times those of the other matrices (root "
            f"mean square, {usual:.1g})",
            short="{rms:.1g}",
            why="Almost nothing of the loss reaches these layers: with SGD they stay as they were "
            "initialised, with Adam they follow noise.",
            advice="Use residual connections, normalisation, or activations that do not saturate "
            "(ReLU, GELU instead of sigmoid and tanh), and an initialisation that fits them.",
        )
    ]

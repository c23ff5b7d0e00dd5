"""The rule about NaN and infinities, in weights, gradients and losses."""

import numpy as np

from tensorboard_plugin.health.finding import LayerNumbers, Place, counted, of_layers, of_run, plain

RULE = "not_finite"

#: Without a loss scale, gradients that are not finite in so many last records, or in this share of
#: all records, are no accident any more: nothing is being learnt.
BROKEN_RECORDS = 3
BROKEN_SHARE = 0.1

#: With a dynamic loss scale an overflow now and then is how it finds its value: from 2^15 down to 1
#: takes 15 of them. More in a row than that is no search.
OVERFLOWS_IN_A_ROW = 20

_WHY_GRADIENT = (
    "A step with such a gradient is skipped, and its batch is lost. If the model is the cause "
    "rather than one batch, it will happen more and more often."
)
_TRY_GRADIENT = (
    "Look at the batch of that step for NaN, infinities and empty examples; then for a logarithm "
    "or a division by 0 in the loss, and for activations that overflow. Where norms rise before "
    "it, a lower learning rate or a clip helps."
)


def not_finite(evidence):
    """Weights, gradients or losses that are NaN or infinite; the gravest of them alone."""
    for look in (_weights, _gradients, _skipped, _loss):
        found = look(evidence)
        if found is not None:
            return [found]
    return []


def has_loss_scale(evidence):
    """Whether there is a loss scale, so that gradients overflow now and then by design."""
    if evidence.run.optimizer.get("loss_scale"):
        return True
    scale = evidence.quantity("loss_scale")
    return bool((np.isfinite(scale) & (scale != 1)).any())


def _weights(evidence):
    norms, counts = evidence.layer("weight_norm"), evidence.layer("nonfinite")
    if norms is None or counts is None:
        return None
    # A sum is finite only if all summands are: quicker than to look at each.
    columns = np.flatnonzero(~np.isfinite(norms.sum(axis=0, dtype=np.float64)))
    bad = ~np.isfinite(norms[:, columns])
    # A row of NaN alone was not recorded: the variable had no gradient, or was not there.
    bad &= ~np.isnan(counts[:, columns]) | np.isinf(norms[:, columns])
    layers = _affected(evidence, columns, bad)
    if not layers:
        return None
    layers.sort(key=lambda item: item.first_step)
    return of_layers(
        RULE,
        "error",
        Place("layer", "weight_norm"),
        layers,
        len(evidence.paths),
        one=f"has held weights that are NaN or infinite since step {layers[0].first_step}",
        many=f"hold weights that are NaN or infinite, the first since step {layers[0].first_step}",
        short="{records} records",
        why="Weights do not recover from NaN: all that is computed from them is NaN, too.",
        advice="Go back to a checkpoint from before that step. Then lower the learning rate, clip "
        "with disttrain.ClipByGlobalNorm(1.0), and look for a division by 0, a logarithm of 0 or a "
        "constraint that can produce NaN.",
    )


def _gradients(evidence):
    counts = evidence.layer("nonfinite")
    if counts is None:
        return None
    steps = evidence.run.layers.steps
    bad = np.flatnonzero((counts > 0).any(axis=1))
    if not len(bad):
        return None
    if has_loss_scale(evidence):
        if _last_in_a_row(bad, len(steps)) < OVERFLOWS_IN_A_ROW:
            return None
        broken = True
    else:
        often = len(bad) >= BROKEN_RECORDS and len(bad) > BROKEN_SHARE * len(steps)
        broken = often or _last_in_a_row(bad, len(steps)) >= BROKEN_RECORDS
    # The backward pass spreads NaN to all layers below; the first record shows where it began.
    first = counts[bad[0]]
    columns = np.flatnonzero(first > 0)
    columns = columns[np.argsort(-first[columns] / evidence.sizes[columns], kind="stable")]
    layers = _affected(evidence, columns, counts[:, columns] > 0)
    for item, column in zip(layers, columns, strict=True):
        share = first[column] / evidence.sizes[column]
        item.numbers.update(plain({"elements": first[column], "share": share}))
    in_records = f"in {len(bad)} of {len(steps)} records, first at step {steps[bad[0]]}"
    return of_layers(
        RULE,
        "error" if broken else "warning",
        Place("overview", "nonfinite"),
        layers,
        len(evidence.paths),
        one=f"had NaN or infinities in its gradient {in_records}",
        many=f"had NaN or infinities in the first of the gradients that were not finite "
        f"({in_records})",
        short="{elements:.0f} elements",
        why=_WHY_GRADIENT,
        advice=_TRY_GRADIENT,
    )


def _skipped(evidence):
    """Steps that were skipped between records, without a loss scale that would explain it."""
    rows = np.flatnonzero(evidence.skipped)
    if not len(rows) or has_loss_scale(evidence):
        return None
    count = int(evidence.skipped.sum())
    return of_run(
        RULE,
        "warning",
        Place("overview", "skipped"),
        evidence.run.quantities.steps[rows[[0, -1]]],
        {"skipped": count},
        message=f"{counted(count, 'step')} skipped because a gradient was "
        "NaN or infinite, none of them a recorded one.",
        why=_WHY_GRADIENT,
        advice=f"{_TRY_GRADIENT} Telemetry(every=1) records which variables it begins in.",
    )


def _loss(evidence):
    loss = evidence.quantity("loss")
    has_examples = np.isfinite(evidence.quantity("examples_per_second"))
    # Without its examples nobody knows the loss, as of the rest of an accumulation in Model.fit.
    known = has_examples | ~has_examples.any()
    bad = np.flatnonzero(~np.isfinite(loss) & known)
    if not len(bad) or len(bad) == len(loss) or has_loss_scale(evidence):
        return None
    steps = evidence.run.quantities.steps
    return of_run(
        RULE,
        "error" if _last_in_a_row(bad, len(loss)) >= BROKEN_RECORDS else "warning",
        Place("overview", "loss"),
        steps[bad[[0, -1]]],
        {"records": len(bad)},
        message=f"The loss was NaN or infinite in {len(bad)} of {len(loss)} records, first at step "
        f"{steps[bad[0]]}, while all recorded gradients were finite.",
        why="A loss that is no number says nothing, and the next gradient may be none, either.",
        advice="Look for a logarithm or a division by 0 in the loss, and for NaN in labels and "
        "sample weights.",
    )


def _affected(evidence, columns, bad):
    """`LayerNumbers` of the columns with any bad record; `bad` is `[n, len(columns)]`."""
    steps = evidence.run.layers.steps
    found = []
    for column, rows in zip(columns, map(np.flatnonzero, bad.T), strict=True):
        if len(rows):
            first, last = steps[rows[[0, -1]]]
            numbers = {"records": len(rows)}
            found.append(LayerNumbers(evidence.paths[column], int(first), int(last), numbers))
    return found


def _last_in_a_row(rows, records):
    """How many of the last records are among `rows`, without a gap."""
    missing = np.setdiff1d(np.arange(records), rows)
    return records - 1 - (missing[-1] if len(missing) else -1)

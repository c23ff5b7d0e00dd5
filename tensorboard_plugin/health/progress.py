"""The rules about the loss and about the batch size: does the run get anywhere, at what price."""

import numpy as np

from tensorboard_plugin.health.evidence import LASTING_RECORDS
from tensorboard_plugin.health.finding import Place, of_run

#: The loss is judged by medians of so many blocks of records, of at least so many records each.
BLOCKS = 20
BLOCK_RECORDS = 5

#: It diverges when it has given back this share of what it had gained...
GIVEN_BACK = 0.5

#: ...and by more than so many standard deviations of a record about its block's median.
NOISE = 3.0

#: It is worse than at first when it ends so many standard deviations above the first record.
WORSE = 2.0

#: It does not fall when it ends less than this share below where it began.
FALLEN = 0.02

#: With noise scale B and batch size b a training takes 1 + B/b times the steps that huge batches
#: would, and 1 + b/B times the examples that tiny ones would (McCandlish et al. 2018, "An empirical
#: model of large-batch training", section 2.3): eleven times at a factor of 10. Small batches are
#: often what fits, and the noise scale grows in a training, hence the wider limit on that side.
BATCH_ABOVE = 10.0
BATCH_BELOW = 30.0


def loss_trend(evidence):
    """A loss that rises again, or has not fallen."""
    loss = evidence.quantity("loss")
    known = np.isfinite(loss)
    loss, steps = loss[known], evidence.run.quantities.steps[known]
    if len(loss) < BLOCKS * BLOCK_RECORDS:
        return []
    blocks = np.array_split(loss, BLOCKS)
    levels = np.array([np.median(block) for block in blocks])
    noise = np.median([_deviation(block) for block in blocks[1:]])
    whole = evidence.has_beginning(evidence.run.quantities)
    # The first loss is that of the initial weights; what follows can be anything.
    start = loss[0] if whole else np.median(blocks[0])
    best, end = levels.min(), min(levels[-2:])
    gained, lost = start - best, end - best
    returned = lost > GIVEN_BACK * gained and lost > max(NOISE * noise, FALLEN * abs(best))
    ended_above = whole and end - start > max(WORSE * noise, FALLEN * abs(start))
    if returned or ended_above:
        lowest = len(loss) * int(levels.argmin()) // BLOCKS
        return [
            of_run(
                "loss_rises",
                "warning",
                Place("overview", "loss"),
                (steps[lowest if returned else 0], steps[-1]),
                {"start": start, "lowest": best, "last": end},
                message=f"The loss has risen from {best:.3g} around step {steps[lowest]} to "
                f"{end:.3g}; it began at {start:.3g}."
                if returned
                else f"The loss began at {start:.3g} and has risen to {end:.3g}.",
                why="The run loses what it had learnt."
                if returned
                else "The model has become worse than its initial weights.",
                advice="Go back to a checkpoint from before it rose, with a lower learning rate or "
                "a clip; if the data or the loss changes there by design, all is well.",
            )
        ]
    fallen = start - end
    if not whole or fallen > min(FALLEN * abs(start), noise):
        return []
    return [
        of_run(
            "loss_flat",
            "note",
            Place("overview", "loss"),
            steps[[0, -1]],
            {"start": start, "lowest": best, "last": end},
            message=f"The loss has not fallen: {start:.3g} at first, {end:.3g} after "
            f"{int(steps[-1])} steps.",
            why="Nothing was learnt yet, or nothing was left to learn.",
            advice="See whether the model can learn one batch by heart. If it cannot, look at the "
            "labels, the loss (logits or probabilities?) and the learning rate.",
        )
    ]


def _deviation(values):
    """A standard deviation that outliers do not move."""
    return 1.4826 * np.median(np.abs(values - np.median(values)))


def batch_size(evidence):
    """A batch far from the gradient noise scale."""
    table = evidence.run.quantities
    rows = evidence.settled(table)
    rows = slice(max(rows.start, len(table.steps) // 2), rows.stop)
    noise = evidence.quantity("noise_scale")[rows]
    # The last batch of an epoch may be smaller, and clocks are noisy: the median is neither.
    batch = evidence.quantity("examples_per_second") * evidence.quantity("step_seconds")
    batch = batch[np.isfinite(batch) & (batch > 0)]
    noise = noise[np.isfinite(noise) & (noise > 0)]
    if len(noise) < LASTING_RECORDS or 2 * len(noise) < rows.stop - rows.start or not len(batch):
        return []
    noise, batch = float(np.median(noise)), float(np.median(batch))
    span = table.steps[rows][[0, -1]]
    numbers = {"noise_scale": noise, "batch": batch, "factor": batch / noise}
    if batch > BATCH_ABOVE * noise:
        return [
            of_run(
                "batch_above_noise_scale",
                "note",
                Place("overview", "noise_scale"),
                span,
                numbers,
                message=f"A batch has {batch:,.0f} examples, {batch / noise:,.0f} times the "
                f"gradient noise scale of {noise:,.0f}.",
                why="Above the noise scale more examples hardly improve a step: this run needs "
                f"about {1 + batch / noise:,.0f} times the examples that small batches would.",
                advice="Halve the batch, and the learning rate with it, until the noise scale is "
                "reached: more steps from the same examples.",
            )
        ]
    if batch * BATCH_BELOW < noise:
        return [
            of_run(
                "batch_below_noise_scale",
                "note",
                Place("overview", "noise_scale"),
                span,
                numbers,
                message=f"A batch has {batch:,.0f} examples; the gradient noise scale of "
                f"{noise:,.0f} is {noise / batch:,.0f} times that.",
                why="Steps are mostly noise: a larger batch would need about "
                f"{1 + noise / batch:,.0f} times fewer steps at best.",
                advice="If steps are what takes time, use more replicas or a larger batch with a "
                "higher learning rate, or accumulate_steps.",
            )
        ]
    return []

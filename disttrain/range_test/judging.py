"""Reads a learning rate off the curve of losses."""

import dataclasses
import math

import numpy as np

#: A rate below that of the minimum by this factor is stable with room to spare (Smith 2017,
#: "Cyclical learning rates for training neural networks", section 3.3, and fastai's
#: `lr_find`, which both stay an order of magnitude below where the loss turns).
BELOW_MINIMUM = 10.0

#: The fall of the smoothed loss has to be so many standard deviations of its noise.
_SURE = 3.0


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a curve says.

    Attributes:
        candidates: Name of a criterion to its learning rate: `"steepest descent"`, `"minimum
            divided by 10"`, and `"last rate that is healthy"` where the health rules object.
        suggestion: One of them, or `None` where the loss did not fall.
        reason: A sentence.
    """

    candidates: dict
    suggestion: float | None
    reason: str


def smoothed(losses, smoothing):
    """The bias-corrected exponential average.

    ```
    average[i] = smoothing * average[i - 1] + (1 - smoothing) * loss[i]
    smoothed[i] = average[i] / (1 - smoothing^(i + 1))
    ```

    The correction is that of Kingma and Ba 2015, "Adam", section 3; Gugger 2018, "How do you find
    a good learning rate", smooths range tests so.

    Args:
        losses: Numbers, `[n]`.
        smoothing: From 0, which changes nothing, to below 1.

    Returns:
        float64 `[n]`.
    """
    average, found = 0.0, []
    for i, loss in enumerate(losses):
        average = smoothing * average + (1 - smoothing) * float(loss)
        found.append(average / (1 - smoothing ** (i + 1)))
    return np.asarray(found, np.float64)


def settled(steps):
    """How many losses it takes for their average to say something, of a test of so many steps."""
    return max(5, steps // 10)


def exploded(curve, factor, first):
    """Whether the last smoothed loss is beyond all that went before.

    That is: not finite, or above the lowest by `factor - 1` times the lowest or the fall until
    then, whichever is larger. For losses that have hardly fallen this is `factor` times the lowest,
    as in fastai; where a few batches were learnt by heart it does not take noise for more.

    Args:
        curve: Smoothed losses until now, `[n]`.
        factor: Above 1.
        first: How many losses make the first average that counts.
    """
    last = float(curve[-1])
    if not math.isfinite(last):
        return True
    if len(curve) < first:
        return False
    lowest = float(np.min(curve[first - 1 :]))
    return last - lowest > (factor - 1) * max(abs(lowest), float(curve[first - 1]) - lowest)


def judge(rates, losses, curve, smoothing, first, healthy=None):
    """Chooses a learning rate.

    Args:
        rates: Learning rates that were tried, `[n]`, ascending.
        losses: The losses behind them, `[n]`.
        curve: The smoothed ones, `[n]`.
        smoothing: As for `smoothed`.
        first: As for `exploded`; nothing is read off the curve before.
        healthy: The last rate before the health rules objected, or `None` if they did not.

    Returns:
        A `Verdict`. The suggestion is the lowest of the candidates.
    """
    quiet = losses[:first]
    begin = min(first, len(curve)) - 1
    lowest = begin + int(np.argmin(curve[begin:]))
    fall = float(np.mean(quiet) - curve[lowest])
    # The variance of an exponential average of independent numbers, and that of their mean.
    variance = float(np.var(quiet)) * ((1 - smoothing) / (1 + smoothing) + 1 / len(quiet))
    if lowest < begin + 2 or not fall > _SURE * math.sqrt(variance):
        reason = (
            f"the smoothed loss fell by {max(fall, 0.0):.3g} at most, which is no more than its "
            "noise; try a larger batch, more steps, or another range, and see whether the model "
            "can learn at all"
        )
        return Verdict({}, None, reason)
    slopes = np.gradient(curve, np.log10(rates))
    steepest = begin + int(np.argmin(slopes[begin : lowest + 1]))
    candidates = {
        "steepest descent": float(rates[steepest]),
        f"minimum divided by {BELOW_MINIMUM:.0f}": float(rates[lowest]) / BELOW_MINIMUM,
    }
    if healthy is not None:
        candidates["last rate that is healthy"] = float(healthy)
    name = min(candidates, key=candidates.get)
    reasons = {
        "steepest descent": "there the smoothed loss falls fastest",
        "last rate that is healthy": "above it the health rules object",
    }
    at = f"the smoothed loss is lowest at {rates[lowest]:.3g}"
    return Verdict(candidates, candidates[name], f"{name}: {reasons.get(name, at)}")

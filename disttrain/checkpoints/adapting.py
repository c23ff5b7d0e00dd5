"""What may follow the number of replicas when another number goes on from a checkpoint.

A learning rate that was scaled with the replicas, by `scaled_learning_rate` or by hand, and a
global batch that grows with them. All else has to stay.
"""

import fractions
import math

import numpy as np

#: Relative; a rate may have gone through float32.
_TOLERANCE = 1e-5


def rate_ratio(key, before, now, replicas):
    """What a learning rate has been multiplied by, if it follows the number of replicas.

    Args:
        key: Where in the configuration the numbers stand, such as
            `"optimizer.inner.config.learning_rate"`.
        before: The value when the checkpoint was saved.
        now: The value of this program.
        replicas: Their numbers then and now.

    Returns:
        The ratio of the replicas, or its square root, whichever the values have; else `None`.
    """
    if replicas[0] == replicas[1] or "learning_rate" not in key.split("."):
        return None
    if not all(type(value) in (int, float) and value > 0 for value in (before, now)):
        return None
    linear = replicas[1] / replicas[0]
    for ratio in (linear, math.sqrt(linear)):
        if math.isclose(now / before, ratio, rel_tol=_TOLERANCE):
            return ratio
    return None


def follow(optimizer, ratios, restore):
    """Restores an optimizer and has its learning rates follow the number of replicas.

    What callbacks have made of a rate since the beginning stays: it is the restored rate that is
    multiplied. Schedules are part of the program, and follow by themselves.

    Args:
        optimizer: A `DistributedOptimizer`.
        ratios: What `comparing.check` has returned.
        restore: Called to restore; until then the rates are those of the program.
    """
    rates = [v for v in optimizer.inner.variables if v.name == "learning_rate"]
    ratios = {np.float32(now): ratio for now, ratio in ratios.items()}
    factors = [ratios.get(np.float32(rate.numpy())) for rate in rates]
    restore()
    for rate, factor in zip(rates, factors, strict=True):
        if factor is not None:
            rate.assign(rate * factor)


def place(manifest, now):
    """The place in the data, where the global batch may follow the number of replicas.

    Examples count, or parts of an epoch where the batch is not known. The last examples of what is
    done are seen again where they do not fill a batch; an epoch's first batch is not.

    Args:
        manifest: The checkpoint's.
        now: What `comparing.check` was given.

    Returns:
        `(place, batches)`: the `data` of `manifest["place"]`, and the batches of the epoch that are
        done, both in batches of now.
    """
    saved = manifest["place"]
    data, batches = dict(saved["data"]), saved["batches"]
    ratio = _batches_for_one(manifest["data"], now["data"])
    if ratio == 1:
        return data, batches
    steps = now["data"]["steps"]
    if batches == manifest["data"]["steps"] is not None:
        within = steps
    else:
        # An epoch that has begun does not begin again.
        within = max(math.floor(batches * ratio), min(batches, 1))
        within = within if steps is None else min(within, steps)
    if data["taken"] == batches:
        data["taken"] = within
    else:  # One iterator that goes on over the epochs.
        data["taken"] = math.floor(data["taken"] * ratio)
    return data, within


def _batches_for_one(before, now):
    """How many batches of now hold what one held then."""
    if before["batch"] and now["batch"]:
        return fractions.Fraction(before["batch"], now["batch"])
    if before["steps"] and now["steps"]:
        return fractions.Fraction(now["steps"], before["steps"])
    return 1

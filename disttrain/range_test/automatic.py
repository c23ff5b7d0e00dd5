"""What `Trainer.fit(learning_rate="auto")` does before the first epoch.

A number is replaced by the suggestion of a range test. A schedule is multiplied, so that its peak
over the training is the suggestion: by a `Plateau`'s factor, which checkpoints hold. Where a
checkpoint is resumed the restored rate counts, and nothing is tried.
"""

import math

import keras
import numpy as np

from disttrain.batches import pass_over
from disttrain.range_test import sweep
from disttrain.schedules.base import KerasSchedule
from disttrain.schedules.plateau import Plateau, find_plateaus

#: Steps of a schedule that are looked at for its peak.
_SAMPLES = 300


def check(optimizer, learning_rate, updates):
    """Checks what `fit` was given.

    Args:
        optimizer: The built `DistributedOptimizer`.
        learning_rate: The argument of `fit`.
        updates: Updates of the training, or `None` where that is not known.

    Raises:
        ValueError: It is not `"auto"`, or the learning rate of the optimizer cannot be replaced.
    """
    if learning_rate != "auto":
        raise ValueError(
            f"learning_rate must be 'auto' or None, not {learning_rate!r}; set a number with "
            "trainer.optimizer.learning_rate = 0.01, or in the optimizer itself"
        )
    _, rate = sweep.rate_of(optimizer)
    if isinstance(rate, keras.Variable):
        return
    begin = "learning_rate='auto' cannot scale the optimizer's"
    if not isinstance(rate, KerasSchedule):
        raise ValueError(f"{begin} function {rate!r}; give it a number or a schedule")
    inside = find_plateaus(optimizer)
    if (inside and inside[0] is not rate) or len(inside) > 1:
        raise ValueError(
            f"{begin} schedule {rate!r}, for it has a Plateau inside, whose factor ReduceOnPlateau "
            "lowers; put the Plateau outside, around the whole schedule"
        )
    if updates is None:
        raise ValueError(
            f"{begin} schedule {rate!r}, for its peak depends on the number of steps, which only "
            "the end of the data tells; give steps_per_epoch, or a number as the learning rate"
        )
    peak = _peak(_schedule(rate), int(optimizer.iterations.numpy()), updates)
    if not (math.isfinite(peak) and peak > 0):
        raise ValueError(
            f"{begin} schedule {rate!r}, whose peak in {updates} steps is {peak:g}; give it one "
            "that is finite and above 0"
        )


def check_feed(feed):
    """Refuses data whose order a resumed training could not find again.

    Args:
        feed: The `disttrain.data.Feed` for the range test, of a training with checkpoints.

    Raises:
        ValueError: It is repeated for ever, so that how far a test reads moves its shuffles on.
    """
    if feed.endless and not feed.is_finite and not feed.numbered:
        raise ValueError(
            "learning_rate='auto' and a checkpoint do not go with data that have no end, for what "
            "the range test reads moves their order on; leave repeat() out, or call "
            "trainer.lr_range before and give a number"
        )


def choose(task, feed, updates, resumed, jit_compile=False):
    """Sets the learning rate. Called by every process, behind `check`.

    Args:
        task: The built `disttrain.task.Task`.
        feed: A `disttrain.data.Feed` for the range test.
        updates: As for `check`.
        resumed: Whether a checkpoint will be restored.
        jit_compile: As for `TrainStep`.

    Returns:
        A sentence that says what was done.

    Raises:
        ValueError: The range test suggests none.
    """
    optimizer = task.optimizer
    holder, rate = sweep.rate_of(optimizer)
    if resumed:
        if not feed.numbered:
            # As the range test did in the process that has begun this training.
            pass_over(feed.dataset(0), 1)
        if not isinstance(rate, keras.Variable):
            _plateau(task, holder, rate)
        return "learning_rate='auto': a checkpoint is resumed, and its learning rate counts"
    found = sweep.run(task, feed, jit_compile=jit_compile)
    if found.suggestion is None:
        raise ValueError(
            f"learning_rate='auto' has found none: {found.reason}; or give a number yourself"
        )
    if isinstance(rate, keras.Variable):
        rate.assign(found.suggestion)
        return f"learning_rate='auto': {found.suggestion:.3g}, {found.reason}"
    done = int(optimizer.iterations.numpy())
    peak = _peak(_schedule(rate), done, updates)
    plateau = _plateau(task, holder, rate)
    plateau.factor.assign(found.suggestion / peak)
    return (
        f"learning_rate='auto': the schedule, whose peak is {peak:.3g}, times "
        f"{found.suggestion / peak:.3g}, for {found.suggestion:.3g} is the suggestion, "
        f"{found.reason}"
    )


def _schedule(rate):
    """The schedule that a `Plateau` multiplies, where it is one."""
    return rate.schedule if isinstance(rate, Plateau) else rate


def _plateau(task, holder, rate):
    """The `Plateau` around the schedule of an optimizer, a new one where there is none."""
    if isinstance(rate, Plateau):
        return rate
    with task.replication.scope():
        holder.learning_rate = Plateau(rate)
    return holder._learning_rate


def _peak(schedule, first, updates):
    """The highest learning rate of so many updates, a float."""
    if not isinstance(schedule, KerasSchedule):
        return float(schedule)
    steps = np.unique(np.linspace(first, first + max(updates - 1, 0), _SAMPLES).astype(np.int64))
    return max(float(schedule(int(step))) for step in steps)

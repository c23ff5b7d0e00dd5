"""A picture of a schedule, to look at before spending a day on it. Needs Matplotlib."""

import os

import numpy as np

from disttrain.optional import needed
from disttrain.schedules.base import rate_at, schedule_or_rate, whole

_MOST_POINTS = 2000


def plot(schedule, steps, path=None):
    """Draws the learning rate over the steps.

    Args:
        schedule: A `LearningRateSchedule` or a learning rate.
        steps: Steps to draw, from 0; above 2000 they are sampled evenly, first and last included.
        path: Name of the PNG file to write, or `None`.

    Returns:
        `path`, or the `matplotlib.figure.Figure` where there is none.

    Raises:
        RuntimeError: Matplotlib is not installed.
        TypeError: `schedule` is neither a schedule nor a number.
        ValueError: `steps` is below 1.
    """
    schedule = schedule_or_rate(schedule, "plot", "schedule")
    steps = whole(steps, "plot", "steps")
    shown = np.unique(np.linspace(0, steps - 1, min(steps, _MOST_POINTS)).astype(np.int64))
    rates = [float(rate_at(schedule, step)) for step in shown]
    figure = needed("matplotlib.figure", "a picture", "plots").Figure(
        figsize=(7, 3.5), layout="constrained"
    )
    axes = figure.add_subplot()
    axes.plot(shown, rates)
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if path is None:
        return figure
    figure.savefig(os.fspath(path), format="png", dpi=120)
    return path

"""Pictures of trajectories: the curve of a function of x, the contours of one of x and y.

Needs Matplotlib.
"""

import os

import numpy as np
import tensorflow as tf

from disttrain.optional import needed

#: Points of a curve, and of each side of a grid.
_CURVE, _GRID = 801, 241

_LEVELS = 25

#: Positions of a path that are drawn; more are sampled evenly.
_MOST_POINTS = 5000

#: A path leaves the picture so many times the distance between start and minimum away, and 1.
_FAR = 1.5


def plot(trajectories, path=None):
    """Draws paths on one function.

    Args:
        trajectories: A list of `path.Trajectory` on the same function.
        path: Name of the PNG file to write, or `None`.

    Returns:
        `path`, or the `matplotlib.figure.Figure` where there is none.

    Raises:
        RuntimeError: Matplotlib is not installed.
    """
    function = trajectories[0].function
    figure = needed("matplotlib.figure", "a picture", "plots").Figure(
        figsize=(8, 6), layout="constrained"
    )
    axes = figure.add_subplot()
    low, high = window(trajectories)
    draw = _curve if len(function.variables) == 1 else _contours
    draw(axes, function, low, high)
    for number, one in enumerate(trajectories):
        _path(axes, one, low, high, f"C{number % 10}")
    axes.set_title(function.name, wrap=True)
    axes.legend(loc="best", fontsize="small")
    if path is None:
        return figure
    figure.savefig(os.fspath(path), format="png", dpi=120)
    return path


def window(trajectories):
    """The part of the plane that is drawn, `(low, high)`, float64 `[variables]` each.

    It holds the starts, the known minima, and what of the paths is not far from these.
    """
    function = trajectories[0].function
    fixed = np.asarray([one.positions[0] for one in trajectories], np.float64)
    ends = [one.positions[-1] for one in trajectories if one.verdict != "exploded"]
    fixed = np.concatenate([fixed, *([m] for m in function.minima), *([e] for e in ends)])
    far = _FAR * max(1.0, float(np.ptp(fixed, axis=0).max()))
    middle = fixed.mean(axis=0)
    seen = [fixed]
    for one in trajectories:
        near = np.abs(one.positions.astype(np.float64) - middle).max(axis=1) <= far
        seen.append(one.positions[near])
    seen = np.concatenate(seen)
    low, high = seen.min(axis=0), seen.max(axis=0)
    margin = 0.1 * np.maximum(high - low, 0.1 * max(1.0, float(np.ptp(seen, axis=0).max())))
    return low - margin, high + margin


def _values(function, *coordinates):
    found = function.compute(*(tf.constant(c, tf.float32) for c in coordinates)).numpy()
    return np.ma.masked_invalid(found.astype(np.float64))


def _curve(axes, function, low, high):
    x = np.linspace(low[0], high[0], _CURVE)
    axes.plot(x, _values(function, x), color="0.6", zorder=1)
    axes.set_xlabel("x")
    axes.set_ylabel("value")
    axes.grid(alpha=0.3)


def _contours(axes, function, low, high):
    x, y = np.meshgrid(*(np.linspace(a, b, _GRID) for a, b in zip(low, high, strict=True)))
    values = _values(function, x, y)
    least, most = float(values.min()), float(values.max())
    if most > least:
        # Levels that are evenly spaced in the logarithm of the height above the lowest point.
        heights = np.geomspace((most - least) * 1e-6, most - least, _LEVELS)
        axes.contour(
            x, y, values - least, heights, norm="log", cmap="viridis", linewidths=0.8, zorder=1
        )
    for minimum in function.minima:
        axes.plot(*minimum, "*", color="black", markersize=11, zorder=4)
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])


def _path(axes, one, low, high, color):
    shown = np.unique(np.linspace(0, len(one.positions) - 1, _MOST_POINTS).astype(int))
    positions = one.positions[shown].astype(np.float64)
    # Beyond that, a line would be drawn to numbers that no axis can hold.
    width = high - low
    held = np.isfinite(positions).all(axis=1)
    held &= (np.abs(positions - (low + high) / 2) <= 50 * width).all(axis=1)
    last = int(np.argmin(held)) if not held.all() else len(held)
    positions = positions[:last]
    if len(one.function.variables) == 1:
        across = one.values[shown][:last].astype(np.float64)
        across = np.where(np.isfinite(across), across, np.nan)
        points = np.stack([positions[:, 0], across], 1)
        axes.set_xlim(low[0], high[0])
        curve = _values(one.function, np.linspace(low[0], high[0], _CURVE))
        bottom, top = float(curve.min()), float(curve.max())
        axes.set_ylim(bottom - 0.05 * (top - bottom) - 1e-6, top + 0.05 * (top - bottom) + 1e-6)
    else:
        points = positions
    marker = "o" if len(points) <= 200 else None
    label = f"{one.label}: {one.verdict} {'at ' if one.verdict == 'exploded' else ''}{one.steps:,}"
    axes.plot(*points.T, "-", color=color, marker=marker, markersize=3, linewidth=1, label=label)
    axes.plot(*points[:1].T, "s", color=color, markersize=7, zorder=5)
    if one.verdict != "exploded":
        axes.plot(*points[-1:].T, "X", color=color, markersize=9, zorder=5)

"""The picture of a range test. Needs Matplotlib."""

import os

import numpy as np

from disttrain.optional import needed


def plot(found, path=None):
    """Draws the losses over the learning rates, with the candidates.

    Args:
        found: A `disttrain.range_test.RateRange`.
        path: Name of the PNG file to write, or `None`.

    Returns:
        `path`, or the `matplotlib.figure.Figure` where there is none.

    Raises:
        RuntimeError: Matplotlib is not installed.
    """
    figure = needed("matplotlib.figure", "a picture", "plots").Figure(
        figsize=(8, 5), layout="constrained"
    )
    axes = figure.add_subplot()
    axes.plot(found.rates, found.losses, ".", color="0.7", markersize=4, label="loss")
    axes.plot(found.rates, found.smoothed, color="C0", label="smoothed")
    for number, (name, rate) in enumerate(found.candidates.items(), start=1):
        chosen = rate == found.suggestion
        label = f"{name}: {rate:.3g}" + (" (suggested)" if chosen else "")
        style = "-" if chosen else "--"
        axes.axvline(
            rate, color=f"C{number}", linestyle=style, linewidth=2 - (not chosen), label=label
        )
    if found.exploded_at is not None:
        axes.axvline(
            found.exploded_at,
            color="black",
            linestyle=":",
            label=f"exploded at {found.exploded_at:.3g}",
        )
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss of the next batch")
    curve = found.smoothed[np.isfinite(found.smoothed)]
    if len(curve):
        # The explosion itself would press all else flat.
        low, first = float(curve.min()), float(curve[0])
        height = max(first - low, 0.05 * abs(first), 1e-6)
        axes.set_ylim(low - 0.2 * height, first + 1.0 * height)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    if path is None:
        return figure
    figure.savefig(os.fspath(path), format="png", dpi=120)
    return path

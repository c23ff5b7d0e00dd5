"""The picture of a comparison: the course of each optimizer with a band over the seeds."""

import math
import warnings

import numpy as np

from disttrain.experiments.comparisons import statistics
from disttrain.optional import needed

#: Okabe and Ito (2008): colours that the common kinds of colour blindness keep apart. Black is left
#: out, for a dark page.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")

#: With the colours they tell any two of 28 curves apart, in grey too.
_DASHES = ("-", "--", "-.", ":")

_INKS = {"light": ("#1a1a1a", "#ffffff"), "dark": ("#e6e6e6", "#16181c")}

#: A metric that spans more than this factor gets a logarithmic axis.
_SPAN = 50


def draw(comparison, path, theme="light"):
    """Draws the training loss and the metrics of the validation over the epochs.

    A line is the mean over the seeds whose number is finite at the epoch, a band its 95% interval.

    Args:
        comparison: A `Comparison`.
        path: A file name, or an open binary file, that gets a PNG.
        theme: `"light"` or `"dark"`.
    """
    ink, paper = _INKS[theme]
    figure_class = needed("matplotlib.figure", "a picture").Figure
    metrics = list(dict.fromkeys([comparison.monitor, *_others(comparison)]))[:4]
    columns = min(2, len(metrics))
    lines = math.ceil(len(metrics) / columns)
    figure = figure_class(
        figsize=(5.2 * columns, 3.6 * lines), layout="constrained", facecolor=paper
    )
    for place, metric in enumerate(metrics):
        axes = figure.add_subplot(lines, columns, place + 1)
        _panel(axes, comparison, metric, ink, paper)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(3, max(1, len(labels))),
        frameon=False,
        labelcolor=ink,
    )
    figure.savefig(path, format="png", dpi=130, facecolor=paper)


def _others(comparison):
    shown = comparison.shown_metrics()
    return (["loss"] if "loss" in comparison.metrics else []) + shown


def _panel(axes, comparison, metric, ink, paper):
    drawn = []
    for number, name in enumerate(comparison.optimizers):
        curves = comparison.curves(name, metric)
        epochs = np.arange(1, curves.shape[1] + 1)
        means, lows, highs = (
            np.asarray(ends) for ends in zip(*map(statistics.interval, curves.T), strict=True)
        )
        colour = COLOURS[number % len(COLOURS)]
        lost = comparison.diverged(name)
        label = f"{name} ({lost} of {len(curves)} diverged)" if lost else name
        axes.plot(
            epochs,
            means,
            color=colour,
            linestyle=_DASHES[number // len(COLOURS) % len(_DASHES)],
            marker="o" if len(epochs) < 8 else None,
            markersize=3,
            label=label,
        )
        axes.fill_between(epochs, lows, highs, color=colour, alpha=0.2, linewidth=0)
        drawn.append(means)
    values = np.concatenate(drawn) if drawn else np.zeros(0)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > _SPAN * values.min():
        axes.set_yscale("log")
    if metric == comparison.monitor and comparison.target is not None:
        axes.axhline(comparison.target, color=ink, linewidth=0.8, linestyle=":")
    ticks = needed("matplotlib.ticker", "a picture")
    axes.xaxis.set_major_locator(ticks.MaxNLocator(integer=True))
    axes.set_title(metric, color=ink, fontsize=10)
    axes.set_xlabel("epoch", color=ink)
    axes.set_facecolor(paper)
    axes.tick_params(colors=ink, which="both")
    axes.grid(alpha=0.25)
    for spine in axes.spines.values():
        spine.set_color(ink)
        spine.set_alpha(0.4)


def save(comparison, path):
    """Writes the picture to a file, quietly where a band has too few numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        draw(comparison, path)

"""Figures on paper: a table for a person, JSON for a program.

How they come about is `harness.py`'s; the command prints and writes what benchmarks yield.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform

import numpy as np
import rich.box
import rich.table

from tests.benchmarks import harness

#: What tells processors of one name apart, as Linux calls it.
_PARTS = {"family": "cpu family", "model": "model"}

_VERDICTS = {True: "[green]met   [/]", False: "[red]missed[/]"}


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of a table.

    Attributes:
        benchmark: Name of the benchmark.
        case: What was trained.
        name: What was measured on it.
        summary: A `harness.Summary`.
        goal: What the median should not exceed, or `None`.
        details: Further numbers, by name; for the JSON.
    """

    benchmark: str
    case: str
    name: str
    summary: harness.Summary
    goal: float | None = None
    details: dict = dataclasses.field(default_factory=dict)

    @property
    def met(self):
        """Whether the goal is met; `None` without one."""
        return None if self.goal is None else bool(self.summary.median <= self.goal)


def ratio(benchmark, case, variant, timings, plus=0.0):
    """The figure of a variant: its time over its baseline's.

    Args:
        benchmark: Name of the benchmark.
        case: What was trained.
        variant: A `harness.Variant` with a baseline.
        timings: The `harness.Timings`.
        plus: What happens too rarely to be in each sample, as a part of the baseline's time: a
            number, or one for each sample.
    """
    own, other = timings.seconds[variant.name], timings.seconds[variant.baseline]
    samples = harness.ratios(timings, variant) + plus
    by_build = [samples[timings.build == build] for build in np.unique(timings.build)]
    details = {
        "baseline": variant.baseline,
        "milliseconds": float(1e3 * np.median(own) / timings.steps),
        "baseline_milliseconds": float(1e3 * np.median(other) / timings.steps),
        # A median does not see what few samples hold, such as a rare write; this does.
        "ratio_of_sums": float(own.sum() / other.sum() + np.mean(plus)),
        "steps_per_sample": timings.steps,
        "slices_per_sample": timings.slices,
        "median_of_builds": [float(np.median(samples)) for samples in by_build],
    }
    summary = harness.summarize(samples, timings.build)
    return Figure(benchmark, case, variant.name, summary, variant.goal, details)


def versus(benchmark, case, timings, name, other, throughput=None):
    """The figure of one variant beside another: its time over the other's.

    Args:
        benchmark: Name of the benchmark.
        case: What was trained.
        timings: The `harness.Timings`.
        name: The variant's name.
        other: That of what it is compared with.
        throughput: What its throughput should reach, of the other's; `None` without a goal.
    """
    goal = None if throughput is None else 1 / throughput
    found = ratio(benchmark, case, harness.Variant(name, None, other, goal), timings)
    found.details["throughput"] = 1 / found.summary.median
    return dataclasses.replace(found, name=f"{name} / {other}")


def table(title, lines):
    """A `rich.table.Table` of figures.

    Args:
        title: What the figures are, units included.
        lines: A list of `Figure`.
    """
    made = rich.table.Table(title=title, box=rich.box.SIMPLE, title_justify="left")
    made.add_column("case", no_wrap=True)
    made.add_column("variant")  # wraps where the line is too long; numbers are never cut
    for heading in ("median", "95% interval", "10% to 90%", "goal"):
        made.add_column(heading, justify="right", no_wrap=True)
    case = None
    for line in lines:
        summary = line.summary
        several = summary.samples > 1
        made.add_row(
            line.case if line.case != case else "",
            line.name,
            f"{summary.median:.3f}",
            f"{summary.low:.3f} {summary.high:.3f}" if several else "",
            f"{summary.p10:.3f} {summary.p90:.3f}" if several else "",
            "" if line.goal is None else f"{line.goal:.2f} {_VERDICTS[line.met]}",
        )
        case = line.case
    return made


def write_json(path, lines, settings, seconds):
    """Writes figures with what they were measured on; a file that is there stays whole until then.

    Args:
        path: The file.
        lines: A list of `Figure`.
        settings: The `harness.Settings`.
        seconds: Name of a benchmark to the seconds that it took.
    """
    content = {
        **surroundings(),
        "settings": dataclasses.asdict(settings),
        "seconds": seconds,
        "figures": [{**dataclasses.asdict(line), "met": line.met} for line in lines],
    }
    unfinished = f"{path}.unfinished"
    with open(unfinished, "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    os.replace(unfinished, path)


def surroundings():
    """Date, versions and hardware, as JSON values."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": dict(_versions()),
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "gpu": names[0] if names else None,
    }


def _versions():
    for name in ("tensorflow", "keras", "tensorboard", "numpy", "horovod", "disttrain"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)


def processor(path="/proc/cpuinfo"):
    """The first processor's name, with its family and model, for virtual machines shorten names."""
    try:
        with open(path) as file:
            lines = [line.partition(":") for line in file.read().partition("\n\n")[0].splitlines()]
    except OSError:
        return platform.processor() or platform.machine()
    found = {key.strip(): value.strip() for key, _, value in lines}
    parts = [f"{key} {found[name]}" for key, name in _PARTS.items() if name in found]
    name = found.get("model name") or platform.machine()
    return f"{name} ({', '.join(parts)})" if parts else name

"""The command: `python -m tests.benchmarks [NAME ...] [--rounds N] [--case NAME] [--json FILE]`.

Another benchmark gets a line in `BENCHMARKS`: a function whose docstring begins with what its
figures are, and which yields them.
"""

import argparse
import dataclasses
import os
import signal
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# With it each process would compile anew what does not come from pip.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import rich.console
import tensorflow as tf

from disttrain.examples import common
from tests.benchmarks import (
    checkpoint,
    comparison,
    epochs,
    growth,
    harness,
    mirrored,
    models,
    page,
    peers,
    report,
    scaling,
    speed,
    start,
    suite,
    telemetry,
)

#: Name to a function of `harness.Settings` that yields `report.Figure`s. What stands before the
#: dash of a name is a name, too: that of all of them.
BENCHMARKS = {
    "speed": speed.speed,
    "mirrored": mirrored.mirrored,
    "peers-pinned": peers.peers,
    "peers-free": peers.free,
    "scaling-processes": scaling.processes,
    "scaling-reduction": scaling.reduction,
    "scaling-cheaper": scaling.cheaper,
    "growth-adam": growth.adam,
    "growth-clip": growth.clip,
    "growth-ftrl": growth.ftrl,
    "start": start.start,
    "epochs": epochs.epochs,
    "telemetry-speed": telemetry.speed,
    "telemetry-bytes": telemetry.file_bytes,
    "telemetry-memory": telemetry.peak_memory,
    "checkpoint-save": checkpoint.save,
    "checkpoint-resume": checkpoint.resume,
    "comparison-false": comparison.false_claims,
    "comparison-missed": comparison.missed_winners,
    "page-large": page.page,
    "page-start": page.start,
    "suite": suite.suite,
}

#: Columns in which no number and no word of a table is cut off.
WIDTH = 120


def chosen(names):
    """The benchmarks of these names, or of these first parts of names; all for an empty list.

    Raises:
        ValueError: There is none of that name.
    """
    found = {}
    for name in names or list(BENCHMARKS):
        matching = [n for n in BENCHMARKS if n == name or n.partition("-")[0] == name]
        if not matching:
            raise ValueError(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
        found.update({n: BENCHMARKS[n] for n in matching})
    return found


def main(arguments=None):
    """Runs benchmarks; returns the exit status, which no timing changes."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Measures what disttrain costs and gains."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument(
        "--rounds", type=common.positive, metavar="N", help="rounds of slices (default 60)"
    )
    parser.add_argument(
        "--builds", type=common.positive, metavar="N", help="how often each is built (default 6)"
    )
    parser.add_argument(
        "--case",
        action="append",
        choices=[case.name for case in models.ALL],
        help="only this model; may be given again",
    )
    parser.add_argument("--json", metavar="FILE", help="where to write the figures")
    parser.add_argument(
        "--quick", action="store_true", help="only show that they run, on a tiny model"
    )
    options = parser.parse_args(arguments)
    settings = harness.QUICK if options.quick else harness.Settings()
    if options.rounds is not None:
        settings = dataclasses.replace(settings, rounds=options.rounds)
    if options.builds is not None:
        settings = dataclasses.replace(settings, builds=options.builds)
    settings = dataclasses.replace(settings, cases=tuple(options.case or ()))
    try:
        benchmarks = chosen(options.names)
    except ValueError as error:
        parser.error(str(error))

    console = rich.console.Console()
    # Where there is no terminal, rich takes 80 columns.
    console.width = max(console.width, WIDTH)
    lines, seconds = [], {}
    console.print(f"On {report.processor()}, {len(os.sched_getaffinity(0))} cores.")
    for name, benchmark in benchmarks.items():
        began = time.monotonic()
        title = f"{name}. {benchmark.__doc__.partition(chr(10))[0]}"
        found = []
        with console.status(f"{name} ...") as status:
            for line in benchmark(settings):
                found.append(line)
                status.update(f"{name}: {line.case}, {line.name} {line.summary.median:.3f} ...")
        console.print(report.table(title, found))
        lines += found
        seconds[name] = round(time.monotonic() - began, 1)
        if options.json:
            # After each, for a run of all takes hours.
            report.write_json(options.json, lines, settings, seconds)
    if options.quick:
        console.print("With --quick the figures show only that the benchmarks run.")
    return 0


if __name__ == "__main__":
    # Each training is a function of its own, which TensorFlow takes for one that is retraced.
    tf.get_logger().setLevel("ERROR")
    # As Ctrl-C, so that no process is left that it has started, perhaps a stopped one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())

"""What a second process gains, what the sum of gradients costs, and what makes it cheaper.

Every process has one core, and a batch of its own of the same size, however many there are.
"""

import contextlib
import json

from tests.benchmarks import harness, jobs, report, speed
from tests.benchmarks.harness import Variant
from tests.benchmarks.programs import networks

#: The throughput of a process to reach, of that of a process alone.
LINEAR = 0.9

#: Bytes of what is summed; those of the convolutional network's gradients among them.
SIZES = (4_096, 65_536, 377_256, 1_048_576, 16_777_216)

_TRAINER = "tests.benchmarks.programs.trainer"
_REDUCTION = "tests.benchmarks.programs.reduction"

#: Name to arguments of `Trainer`; the others are compared with the first.
_CHEAPER = {
    "plain": {},
    "fp16": {"compression": "fp16"},
    "bf16": {"compression": "bf16"},
    "1 group": {"groups": 1},
    "8 groups": {"groups": 8},
    "4 accumulated": {"accumulate_steps": 4},
}


#: A step's examples in each process: as elsewhere, and more, which leave sums a smaller part.
_BATCHES = {"convnet": (64, 256, 1024), "mlp": (64,), "tiny": (64,)}


def processes(settings):
    """Time of a step with a batch for each process, relative to one process alone."""
    for network in _networks(settings, "convnet", "mlp"):
        for batch in _BATCHES[network]:
            yield from _processes(network, batch, settings)


def _processes(network, batch, settings):
    runs = json.dumps({"1": {}, "several": {"steps_per_execution": speed.SEVERAL}})
    command, size = (_TRAINER, network, runs), {networks.SIZE: str(batch)}
    alone, apart, two = "1 process", "2 apart", "2 processes"
    makers = {
        alone: lambda: jobs.each(1, *command, **size),
        # Two that do not speak to each other: what the machine's memory and clock allow.
        apart: lambda: jobs.each(2, *command, **size),
        two: lambda: jobs.horovod(2, *command, **size),
    }
    timings = _measured(makers, ("1", "several"), settings)
    for run in ("1", "several"):
        for name, other, goal in ((two, alone, LINEAR), (apart, alone, None), (two, apart, None)):
            name, other = (_label(each, run) for each in (name, other))
            case = f"{network}, batch {batch}"
            yield report.versus("scaling", case, timings, name, other, goal)


def cheaper(settings):
    """Time of a batch in 2 processes where fewer bytes or fewer sums travel, relative to plain."""
    for network in _networks(settings, "mlp", "convnet"):
        own = _CHEAPER if not settings.quick else {"plain": {}, "fp16": _CHEAPER["fp16"]}
        makers = {"": lambda: jobs.horovod(2, _TRAINER, network, json.dumps(own))}  # noqa: B023
        timings = _measured(makers, own, settings, unit=4)
        for name in list(own)[1:]:
            yield report.versus("scaling", network, timings, name, "plain")


def reduction(settings):
    """Time of a sum over 2 processes, relative to a socket that moves the same bytes."""
    sizes = SIZES[:2] if settings.quick else SIZES
    with jobs.horovod(2, _REDUCTION, *map(str, sizes)) as job:
        for size in sizes:
            # The first one decides how many steps make a slice, so it is the slower one.
            variants = [
                Variant("reduction", job.variant(f"reduction {size}"), "exchange"),
                Variant("exchange", job.variant(f"exchange {size}")),
            ]
            timings = harness.measure(variants, settings)
            job.check(f"reduction {size}")
            line = report.ratio("scaling", f"{size:,} bytes", variants[0], timings)
            for key in ("milliseconds", "baseline_milliseconds"):
                line.details[f"megabytes_per_second_{key}"] = size / 1e3 / line.details[key]
            yield line


def _networks(settings, *names):
    if settings.quick:
        return ("tiny",)
    return [name for name in names if not settings.cases or name in settings.cases]


def _label(job, run):
    return f"{job}, {speed.SEVERAL} a call" if run == "several" else job or run


def _measured(makers, runs, settings, unit=speed.SEVERAL):
    """Lets jobs that have the same runs take turns, in slices of multiples of so many steps."""

    @contextlib.contextmanager
    def build(_):
        with contextlib.ExitStack() as stack:
            started = {name: stack.enter_context(make()) for name, make in makers.items()}
            yield [
                Variant(_label(name, run), speed.in_units(job.variant(run), unit))
                for name, job in started.items()
                for run in runs
            ]
            for job in started.values():
                for run in runs:
                    job.check(run)

    return jobs.measured(build, settings, unit)

"""`disttrain.Trainer` beside what else trains in two processes, each peer on its own packages.

Every process has one core, or may use all of them. `old_horovod.sh` makes the peers' environments;
without it a peer is left out, and the figure says so.
"""

import contextlib
import json
import os
import pathlib
import sys
import warnings

import numpy as np

from tests.benchmarks import jobs, report, speed
from tests.benchmarks.harness import Variant
from tests.benchmarks.programs import turns

#: The throughputs to reach, of Horovod's Keras wrapper's and of DistributedDataParallel's.
OF_HOROVOD, OF_TORCH = 1.1, 1.0

PROCESSES = 2

_OURS, _HOROVOD, _TORCH = "disttrain", "Horovod's Keras", "DDP"
_PROGRAMS = "tests.benchmarks.programs"
_SCRIPT = "tests/benchmarks/old_horovod.sh"
_SEVERAL = {"1": {}, "several": {"steps_per_execution": speed.SEVERAL}}


def peers(settings):
    """Time of a step in 2 processes of one core each, relative to the same step of a peer."""
    yield from _on(settings)


def free(settings):
    """Time of a step in 2 processes that share all cores, relative to the same step of a peer."""
    yield from _on(settings, **{turns.FREE: "1"})


def _on(settings, **environment):
    names = ("tiny",) if settings.quick else ("mlp", "convnet")
    for name in names:
        if not settings.cases or name in settings.cases:
            yield from _peers(name, settings, environment)


def environments():
    """Where `old_horovod.sh` puts the environments: name to the `pathlib.Path` of a Python."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = pathlib.Path(cache).expanduser() / "disttrain" / "peers"
    return {name: folder / name / "bin" / "python" for name in ("horovod", "torch")}


def _peers(network, settings, environment):
    found = {
        name: str(python)
        for name, python in environments().items()
        if (python.parents[1] / "ready").exists() and not settings.quick
    }
    for name in sorted({"horovod", "torch"} - set(found)):
        if not settings.quick:
            warnings.warn(f"{name} is left out; {_SCRIPT} makes its environment", stacklevel=2)
    makers = {_OURS: (jobs.horovod, "trainer", sys.executable, _SEVERAL)}
    if settings.quick:
        # Nothing is downloaded for it: disttrain beside itself.
        makers["disttrain again"] = makers[_OURS]
    if "horovod" in found:
        makers[_HOROVOD] = (jobs.horovod, "horovod_keras", found["horovod"], _SEVERAL)
    if "torch" in found:
        makers[_TORCH] = (jobs.each, "ddp", found["torch"], {"1": {}, "fused": {"fused": True}})
    several = f"{speed.SEVERAL} a call"

    @contextlib.contextmanager
    def build(number):
        with contextlib.ExitStack() as stack:
            variants, made = [], []
            for name in np.random.default_rng(number).permutation(list(makers)):
                start, program, python, runs = makers[name]
                command = (f"{_PROGRAMS}.{program}", network, json.dumps(runs))
                job = start(PROCESSES, *command, python=python, **environment)
                stack.enter_context(job)
                for run in runs:
                    label = {"1": name, "several": f"{name}, {several}"}.get(run, f"{name}, {run}")
                    made.append((job, run))
                    steps = speed.in_units(job.variant(run), speed.SEVERAL)
                    variants.append(Variant(label, steps))
            yield sorted(variants, key=lambda variant: (variant.name != _OURS, variant.name))
            for job, run in made:
                job.check(run)

    timings = jobs.measured(build, settings, speed.SEVERAL)
    ours = f"{_OURS}, {several}"
    pairs = [(_OURS, "disttrain again", None), (ours, f"disttrain again, {several}", None)]
    pairs += [(_OURS, _HOROVOD, OF_HOROVOD), (ours, f"{_HOROVOD}, {several}", OF_HOROVOD)]
    pairs += [(_OURS, _TORCH, OF_TORCH), (ours, _TORCH, None), (ours, f"{_TORCH}, fused", None)]
    pairs += [(_OURS, f"{_TORCH}, fused", OF_TORCH)]
    for own, other, goal in pairs:
        if other in timings.seconds:
            yield report.versus("peers", network, timings, own, other, goal)

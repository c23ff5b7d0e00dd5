"""How long the tests take, from what their last runs recorded (`tests/_support/durations.py`)."""

import json
import pathlib
import warnings

from tests._support import durations
from tests.benchmarks import harness, report

_CACHE = pathlib.Path(__file__).resolve().parents[2] / ".pytest_cache" / "v"

#: Seconds that a whole run should take at most on two fast cores; slow cores may take twice that.
GOALS = {"unit": 60, "default": 600, "all": 2100}

#: Tests that are listed, the slowest first.
SLOWEST = 50


def recorded(key, cache=_CACHE):
    """What pytest's cache holds under a key; empty where nothing was recorded."""
    try:
        return json.loads((cache / key).read_text())
    except FileNotFoundError:
        return {}


def suite(settings, cache=_CACHE):
    """Seconds of whole runs, of each layer's tests together, and of the slowest tests."""
    tests = recorded(durations.TESTS, cache)
    if not tests:
        warnings.warn("No durations are recorded; run ./launch/test.sh first.", stacklevel=2)
        return
    for kind, run in sorted(recorded(durations.RUNS, cache).items()):
        name = f"{run['tests']} tests, {run['workers']} workers"
        yield _figure(f"run of {kind}", name, run["seconds"], GOALS.get(kind), run)
    for layer in durations.LAYERS:
        own = [test["seconds"] for test in tests.values() if test["layer"] == layer]
        if own:
            yield _figure("layer", f"{layer}, {len(own)} tests", sum(own))
    slowest = sorted(tests.items(), key=lambda item: -item[1]["seconds"])
    for name, test in slowest[:SLOWEST]:
        # Spaces, at which the table may begin another line.
        yield _figure("slowest", name.replace("/", "/ ").replace("::", " "), test["seconds"])


def _figure(case, name, seconds, goal=None, details=None):
    summary = harness.summarize([seconds])
    return report.Figure("suite", case, name, summary, goal, details or {})

"""Records how long tests and runs take, for `python -m tests.benchmarks suite`.

pytest's cache keeps them from run to run: of each test the seconds of its last run, with set-up and
tear-down, and of each whole run (`unit`, `default`, `all`) the seconds that it took.
"""

import os
import time

from tests._support.layers import LAYERS

TESTS, RUNS = "disttrain/tests", "disttrain/runs"


def pytest_configure(config):
    # A worker of pytest-xdist hands its reports to the process that started it.
    if not hasattr(config, "workerinput") and config.pluginmanager.hasplugin("cacheprovider"):
        config.pluginmanager.register(Recorder(config), "disttrain-durations")


def kind_of(config):
    """The name of a whole run; None for a run of some tests only."""
    option = config.option
    if (
        option.keyword
        or option.slice
        or [str(a) for a in config.args] != config.getini("testpaths")
    ):
        return None
    if option.markexpr:
        return option.markexpr if option.markexpr in LAYERS else None
    return "all" if option.all else "default"


def _covers(kind, test):
    """Whether a whole run of a kind runs a test."""
    if kind is None or kind == "all":
        return kind == "all"
    return not test["exhaustive"] and kind in ("default", test["layer"])


class Recorder:
    """Adds up the reports of each test, and writes the sums when the run ends."""

    def __init__(self, config):
        self._config = config
        self._began = time.monotonic()
        self._tests = {}

    def pytest_runtest_logreport(self, report):
        name = report.nodeid
        if name.rfind("@") > name.rfind("]"):
            name = name.rpartition("@")[0]  # the group, which pytest-xdist adds
        layers = [layer for layer in LAYERS if layer in report.keywords]
        new = {"layer": layers[0], "exhaustive": "exhaustive" in report.keywords, "seconds": 0.0}
        own = self._tests.setdefault(name, new)
        own["seconds"] = round(own["seconds"] + report.duration, 3)

    def pytest_sessionfinish(self, session, exitstatus):
        cache, kind = self._config.cache, kind_of(self._config)
        if not self._tests:
            return
        # Interrupted runs and those that stop at the first failure say nothing of the whole.
        if exitstatus not in (0, 1) or session.shouldstop:
            kind = None
        old = cache.get(TESTS, {})
        # Tests that a whole run no longer has are gone.
        kept = {name: test for name, test in old.items() if not _covers(kind, test)}
        cache.set(TESTS, {**kept, **self._tests})
        if kind is not None:
            run = {
                "seconds": round(time.monotonic() - self._began, 1),
                "tests": len(self._tests),
                "workers": len(getattr(self._config.option, "tx", None) or [None]),
                "cores": len(os.sched_getaffinity(0)),
            }
            cache.set(RUNS, {**cache.get(RUNS, {}), kind: run})

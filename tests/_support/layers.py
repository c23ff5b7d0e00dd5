"""The layers of the tests, what each promises, and which tests run.

Every test has exactly one layer, a marker:

* `unit`: Python and eager TensorFlow; traces nothing, starts no process, drives no browser.
* `graph`: TensorFlow's graphs in this process; starts no process, drives no browser.
* `processes`: starts processes, such as Horovod's ranks, launchers and TensorBoard.
* `browser`: drives Chromium.

A test that breaks the promise of its layer fails.

The marker `exhaustive` is set in addition: such a test multiplies a proof that other tests already
give, for example the rest of a product of parameters of which the default run takes all pairs
(`covering.py`). It runs with `--all`, with `-m exhaustive`, or when its node id is given.
`--slice=2/3` runs the second third of these tests; CI chooses the slice by the commit. A run prints
what it left out.

With `-n`, the tests of a file run in one worker, because they share fixtures. Tests that share more
have a group: those of jobs, of TensorBoard and the browser, and of launchers.
"""

import collections
import hashlib
import importlib.abc
import importlib.util
import os
import pathlib
import platform
import sys

import pytest

from tests._support.background_jobs import job_of

#: In the order in which groups of tests are handed to workers: the longest first, and last what is
#: divided most evenly.
LAYERS = {
    "processes": "starts processes: Horovod, workers, launchers, TensorBoard",
    "browser": "drives Chromium",
    "graph": "traces TensorFlow graphs; starts no process",
    "unit": "traces nothing and starts no process",
}

#: Folders whose tests need ports, hosts or the whole machine, to the group in which they run.
FOLDERS = {"launch": "launchers", "doctor": "launchers"}

#: The groups that take the longest, which begin first.
FIRST = ("replications", "jobs", "tensorboard", "launchers")

#: Fixtures that are expensive to start, to the group of the tests that share them.
FIXTURES = {"outcomes": "replications", "server": "tensorboard", "browser": "tensorboard"}

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_STARTS_A_PROCESS = {
    "subprocess.Popen",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.system",
}
_LEFT_OUT = pytest.StashKey()
_FUNC_GRAPH = "tensorflow.python.framework.func_graph"


def pytest_addoption(parser):
    group = parser.getgroup("disttrain")
    group.addoption("--all", action="store_true", help="run the exhaustive tests, too")
    group.addoption(
        "--slice",
        type=_slice,
        metavar="K/N",
        help="of the exhaustive tests, only the Kth of N parts",
    )


def pytest_configure(config):
    for name, promise in LAYERS.items():
        config.addinivalue_line("markers", f"{name}: {promise}")
    config.addinivalue_line("markers", "exhaustive: multiplies a proof; only with --all")
    assert _FUNC_GRAPH not in sys.modules, "TensorFlow was imported before its tracing is watched"
    # Its first call in a process starts `uname`; a library may make it in the middle of a test.
    platform.processor()
    sys.meta_path.insert(0, _WatchTracing())
    sys.addaudithook(_audit)


#: Layers whose tests keep a core busy. Tests of the others also wait for processes.
_BUSY = ("unit", "graph")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """`-n auto`: a worker for each core, and one for tests that wait, where there are any."""
    return len(os.sched_getaffinity(0)) + (config.option.markexpr not in _BUSY)


def _slice(text):
    """`(k, n)` of `"k/n"`, k from 1."""
    number, _, count = text.partition("/")
    try:
        found = int(number), int(count)
    except ValueError:
        raise ValueError(f"--slice takes K/N, such as 2/3, not {text!r}") from None
    if not 1 <= found[0] <= found[1]:
        raise ValueError(f"--slice takes K/N with K from 1 to N, not {text!r}")
    return found


def pytest_ignore_collect(collection_path, config):
    """Leaves out files without a test of the layer that `-m` names, before they are imported."""
    wanted = config.option.markexpr
    if wanted in LAYERS and collection_path.name.startswith("test_"):
        return f"mark.{wanted}" not in collection_path.read_text() or None
    return None


def layer_of(item):
    """The layer of a test.

    Raises:
        pytest.UsageError: It has none or more than one.
    """
    found = [name for name in LAYERS if any(item.iter_markers(name))]
    if len(found) != 1:
        has = " and ".join(found) or "none"
        raise pytest.UsageError(
            f"{item.nodeid} needs exactly one of the markers {', '.join(LAYERS)}; it has {has}."
        )
    return found[0]


def group_of(item):
    """The name of the group whose tests run in one worker, one after another."""
    marker = item.get_closest_marker("xdist_group")
    if marker is not None:
        return marker.args[0] if marker.args else marker.kwargs["name"]
    if job_of(item):
        return "jobs"
    for fixture, group in FIXTURES.items():
        if fixture in getattr(item, "fixturenames", ()):
            return group
    if not item.path.is_relative_to(_ROOT):
        return item.path.name
    path = item.path.relative_to(_ROOT)
    return FOLDERS.get(path.parts[0], path.as_posix())


def in_slice(item, number, count):
    """Whether a test is in part `number`, from 1, of `count`.

    Tests that share a job are in one part, so that it runs once.
    """
    job, group = job_of(item), group_of(item)
    if job:
        key = " ".join(getattr(part, "__qualname__", str(part)) for part in job)
    else:
        key = group if group == "replications" else item.nodeid.partition("@")[0]
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % count == number - 1


def _is_wanted(item, config):
    """Whether a test is selected as far as `exhaustive` goes; `-m` and `-k` come after it."""
    if not any(item.iter_markers("exhaustive")):
        return True
    part = config.option.slice
    if part is not None and not in_slice(item, *part):
        return False
    named = any("::" in str(argument) for argument in config.args)
    return config.option.all or named or "exhaustive" in config.option.markexpr


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config, items):
    order = list(LAYERS)
    first = {}
    for item in items:
        group = group_of(item)
        item.add_marker(pytest.mark.xdist_group(group))
        first[group] = min(first.get(group, len(order)), order.index(layer_of(item)))
    left = [item for item in items if not _is_wanted(item, config)]
    if left:
        config.hook.pytest_deselected(items=left)
        config.stash[_LEFT_OUT] = collections.Counter(item.nodeid.split("::")[0] for item in left)
        unwanted = set(left)
        items[:] = [item for item in items if item not in unwanted]
    yield
    if hasattr(config, "workerinput"):
        longest = {group: place - len(FIRST) for place, group in enumerate(FIRST)}
        items.sort(key=lambda item: longest.get(group_of(item), first[group_of(item)]))


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(session.config.stash.get(_LEFT_OUT, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """A worker of pytest-xdist has ended; each of them leaves out the same tests."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter, config):
    left = config.stash.get(_LEFT_OUT, {})
    if not left:
        return
    part = config.option.slice
    where = "the other slices have" if part else "--all also runs"
    terminalreporter.section(f"{where} {sum(left.values())} exhaustive tests", "-")
    if part:
        for path, count in sorted(left.items()):
            terminalreporter.line(f"{count:5} of {path}")


# Promises


class _Watch:
    """What the test that runs now does against the promise of its layer."""

    def __init__(self):
        self.layer = None
        self.broken = []

    def process(self, event, arguments):
        if self.layer in ("unit", "graph"):
            what = arguments[1] if event == "subprocess.Popen" else event
            self.broken.append(f"starts a process ({what})")

    def trace(self, name):
        if self.layer == "unit":
            self.broken.append(f"traces a graph ({name})")


_watch = _Watch()


def _audit(event, arguments):
    if event in _STARTS_A_PROCESS:
        _watch.process(event, arguments)


class _WatchTracing(importlib.abc.MetaPathFinder):
    """Watches TensorFlow's tracing from the moment at which it is imported."""

    def find_spec(self, name, path, target=None):
        if name != _FUNC_GRAPH:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_watch(module):
            execute(module)
            trace = module.func_graph_from_py_func

            def watched(name, *arguments, **options):
                _watch.trace(name)
                return trace(name, *arguments, **options)

            module.func_graph_from_py_func = watched

        spec.loader.exec_module = execute_and_watch
        return spec


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    _watch.layer, _watch.broken = layer_of(item), []
    try:
        return (yield)
    finally:
        _watch.layer = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    try:
        return (yield)
    finally:
        if _watch.broken:
            layer, did = layer_of(item), _watch.broken[0]
            _watch.broken = []
            pytest.fail(f"a test of the layer {layer!r} {did}", pytrace=False)

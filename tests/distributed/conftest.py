"""The results of the checks under each replication.

Each real job takes a minute or more. The jobs start when the first test wants a result, one after
another, and their tests wait. Where no job of several processes is wanted, a check runs in this
process when it is first asked for.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.distributed import jobs

#: Replication and number of replicas. Four replicas repeat what two show.
KINDS = (
    "mirrored-2",
    pytest.param("mirrored-4", marks=pytest.mark.exhaustive),
    "multi_worker-2",
    "horovod-2",
    "horovod-3",
)

#: In the order in which they run; every test of a result compares it with that of one device.
JOBS = ("single", "multi_worker-2", "horovod-2", "horovod-3", "mirrored-2", "mirrored-4")

#: The kind of which few checks run by default: those that depend on how many ranks there are, or on
#: parts that have no examples. Two ranks show the others.
FEWER = "horovod-3"
CHECKS_OF_FEWER = {
    "accumulate-by-hand",
    "clip-after-the-sum",
    "groups",
    "keras-sync-batch-normalization",
    "large-compressed",
    "local-variables",
    "local-variables-of-a-trainer",
    "mean-of-gradients",
    "nan-on-the-last-replica",
    "process-sets",
    "own-parts",
    "own-start",
    "random-faults",
    "several-outputs",
    "sparse",
    "sparse-as-dense",
    "sparse-in-a-loop",
    "state-of-replicas",
    "sync-batch-normalization",
    "train-adam-37",
    "train-adam-41",
    "train-sgd-37",
    "train-sgd-41",
    "two-and-one",
}

#: Checks of code that is the same for all replications, and slow: by default two Horovod ranks show
#: what one device and several processes do.
SHOWN_BY = "horovod-2"
CHECKS_OF_ONE = {
    "checkpoint-by-the-clock",
    "checkpoint-refusals",
    "checkpoint-several-steps",
    "comparison",
    "lr-range",
    "search",
}

_RUNNING = pytest.StashKey()


def pytest_configure(config):
    config.addinivalue_line("markers", "three_ranks: runs by default on three Horovod ranks, too")
    config.addinivalue_line("markers", "two_ranks: runs by default on two Horovod ranks alone")


def pytest_itemcollected(item):
    kind = _kind(item)
    if kind == FEWER:
        default = any(item.iter_markers("three_ranks"))
    else:
        default = kind in (None, "single", SHOWN_BY) or not any(item.iter_markers("two_ranks"))
    if not default:
        item.add_marker(pytest.mark.exhaustive)


class Job:
    """A job that runs beside the tests.

    Attributes:
        folder: Where the checks write their files.
        ended: A future of its `(exit status, output)`.
    """

    def __init__(self, kind, names, folder, queue):
        self.folder = folder / kind
        self.folder.mkdir()
        program = [sys.executable, "-m", "tests.distributed.program"]
        self.ended = queue.add(kind, [*program, kind, str(self.folder), *names])


def _kind(item):
    """The replication whose result a test is about; None where it is about none."""
    if "outcomes" not in getattr(item, "fixturenames", ()):
        return None
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return params.get("kind", "single")


# After pytest itself, which brings together the tests that share a fixture.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: JOBS.index(_kind(item)) if _kind(item) else -1)
    for item in filter(_kind, items):
        # A job has its own limits, and the first tests of its results wait for it.
        item.add_marker(pytest.mark.timeout(func_only=True))


def _start(session):
    """Starts the jobs that the selected tests want; returns kind to `Job`."""
    from tests.distributed import all_checks

    wanted = {_kind(item) for item in session.items} - {None}
    if not any(_several_processes(kind) for kind in wanted):
        return {}
    folder = tempfile.TemporaryDirectory(prefix="disttrain-jobs-")
    queue = jobs.Queue()
    session.config.add_cleanup(folder.cleanup)
    session.config.add_cleanup(queue.close)
    running = {}
    for kind in JOBS:
        if kind not in wanted | {"single"}:
            continue
        exhaustive = any(
            _kind(item) == kind and any(item.iter_markers("exhaustive")) for item in session.items
        )
        names = list(all_checks()) if exhaustive else _by_default(kind, all_checks())
        running[kind] = Job(kind, names, Path(folder.name), queue)
    return running


def _by_default(kind, names):
    """The checks whose results the default tests of a kind look at."""
    if kind == FEWER:
        return [name for name in names if name in CHECKS_OF_FEWER]
    if kind in ("single", SHOWN_BY):
        return list(names)
    return [name for name in names if name not in CHECKS_OF_ONE]


def _several_processes(kind):
    return kind.startswith(("multi_worker", "horovod"))


class Outcome:
    """Results of one replication.

    Attributes:
        processes: For each process, `check/value` to a NumPy value.
        folder: Where the checks wrote their files.
    """

    def __init__(self, processes, folder):
        self.processes = processes
        self.folder = folder

    def __call__(self, check, key):
        """The value of the chief."""
        return self.every(check, key)[0]

    def every(self, check, key):
        """The value of each process, in order."""
        for number, process in enumerate(self.processes):
            if f"{check}/raised" in process:
                pytest.fail(f"process {number} raised:\n{process[f'{check}/raised']}")
        return [process[f"{check}/{key}"] for process in self.processes]


class _InProcess(Outcome):
    """Runs a check when it is first asked for."""

    def __init__(self, replication, folder):
        super().__init__([{}], folder)
        self._replication = replication
        self._done = set()

    def every(self, check, key):
        from tests.distributed import all_checks

        if check not in self._done:
            folder = self.folder / check
            folder.mkdir()
            values = all_checks()[check](self._replication, folder)
            self.processes[0] |= {f"{check}/{k}": np.asarray(v) for k, v in values.items()}
            self._done.add(check)
        return super().every(check, key)


@pytest.fixture(scope="session")
def outcomes(request, logical_devices, tmp_path_factory):
    """A function from `"single"` or one of `KINDS` to its `Outcome`."""
    from disttrain.replication.tf_distribute import mirrored, single

    stash = request.config.stash
    if _RUNNING not in stash:
        stash[_RUNNING] = _start(request.session)
    running, made = stash[_RUNNING], {}

    def outcome(kind):
        if kind in running:
            status, output = running[kind].ended.result()
            if status != 0:
                pytest.fail(f"the job ended with {status}:\n{output[-6000:]}")
        if kind not in made:
            made[kind] = make(kind)
        return made[kind]

    def make(kind):
        if kind in running:
            folder = running[kind].folder
            files = sorted(folder.glob("process-*.npz"))
            return Outcome([dict(np.load(file)) for file in files], folder)
        count = int(kind.partition("-")[2] or 1)
        replication = single() if kind == "single" else mirrored(logical_devices[:count])
        return _InProcess(replication, tmp_path_factory.mktemp(kind))

    return outcome


@pytest.fixture(params=KINDS)
def kind(request):
    """Each replication with several replicas, in turn."""
    return request.param


@pytest.fixture
def outcome(kind, outcomes):
    """The `Outcome` of each replication with several replicas, in turn."""
    return outcomes(kind)


@pytest.fixture
def alone(outcomes):
    """The `Outcome` of one device."""
    return outcomes("single")

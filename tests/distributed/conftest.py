"""The results of the checks under each replication; a job runs once, when it is first asked for."""

import sys

import numpy as np
import pytest

from tests.distributed import jobs

#: Replication and number of replicas.
KINDS = ("mirrored-2", "mirrored-4", "multi_worker-2", "horovod-2", "horovod-3")


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
        self._references = {}

    def every(self, check, key):
        from tests.distributed import all_checks

        if check not in self._done:
            folder = self.folder / check
            folder.mkdir()
            values = all_checks()[check](self._replication, folder)
            self.processes[0] |= {f"{check}/{k}": np.asarray(v) for k, v in values.items()}
            self._done.add(check)
        return super().every(check, key)

    def reference(self, name, compute):
        """What `compute(replication)` returns; computed once."""
        if name not in self._references:
            self._references[name] = compute(self._replication)
        return self._references[name]


@pytest.fixture(scope="session")
def outcomes(logical_devices, tmp_path_factory):
    """A function from `"single"` or one of `KINDS` to its `Outcome`."""
    from disttrain.replication.tf_distribute import mirrored, single

    made = {}

    def outcome(kind):
        if kind in made:
            if isinstance(made[kind], str):
                pytest.fail(made[kind])
            return made[kind]
        folder = tmp_path_factory.mktemp(kind)
        name, _, count = kind.partition("-")
        if name == "single":
            made[kind] = _InProcess(single(), folder)
        elif name == "mirrored":
            made[kind] = _InProcess(mirrored(logical_devices[: int(count)]), folder)
        else:
            command = [sys.executable, "-m", "tests.distributed.program", name, str(folder)]
            status, output = getattr(jobs, name)(int(count), command)
            if status != 0:
                made[kind] = f"the job ended with {status}:\n{output[-6000:]}"
                pytest.fail(made[kind])
            files = sorted(folder.glob("process-*.npz"))
            made[kind] = Outcome([dict(np.load(file)) for file in files], folder)
        return made[kind]

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

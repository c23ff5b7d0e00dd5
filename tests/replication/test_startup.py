"""What `import disttrain` does for processes that share a host."""

import os
import subprocess
import sys

import pytest

from disttrain.replication import startup


@pytest.mark.unit
@pytest.mark.parametrize(
    ("ranks", "own", "chosen", "threads"),
    [
        (2, 16, None, "8"),
        (3, 16, None, "5"),
        (32, 16, None, "1"),
        (1, 16, None, None),
        (2, 8, None, None),  # the launcher has divided them
        (2, 16, "4", "4"),
    ],
)
def test_ranks_of_a_host_share_its_cores(monkeypatch, ranks, own, chosen, threads):
    environment = {"HOROVOD_LOCAL_SIZE": str(ranks)}
    if chosen:
        environment["TF_NUM_INTRAOP_THREADS"] = chosen
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(own)))
    startup.share_cores()
    assert environment.get("TF_NUM_INTRAOP_THREADS") == threads


@pytest.mark.processes
def test_it_happens_with_the_import_alone():
    program = "import disttrain, os; print(os.environ.get('TF_NUM_INTRAOP_THREADS'))"
    environment = {**os.environ, "HOROVOD_LOCAL_SIZE": str(os.cpu_count() + 1)}
    environment.pop("TF_NUM_INTRAOP_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"

"""The program of a job itself: a check that hangs ends it."""

import subprocess
import sys

import pytest

from tests._support.timeouts import TIMEOUT
from tests.distributed import jobs

pytestmark = pytest.mark.processes

HANGS = """
import sys, time
from tests.distributed import program

def first(replication, folder):
    program.LIMIT = 1
    return {"one": 1}

def hangs(replication, folder):
    time.sleep(5000)

program.all_checks = lambda: {"first": first, "hangs": hangs}
program.main("single", sys.argv[1])
"""


def test_a_check_that_hangs_ends_the_job_and_is_shown(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HANGS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=jobs.ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert "first done" in done.stdout
    assert "Timeout" in done.stderr
    assert "in hangs" in done.stderr
    assert (tmp_path / "process-0.npz").exists(), "what was done before is kept"

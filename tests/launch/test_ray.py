"""launch/ray_job.py: what it would run, and, where Ray is installed, a cluster of two workers."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests._support.timeouts import TIMEOUT
from tests.launch.conftest import ROOT
from tests.launch.programs import program

__all__ = ["program"]

SCRIPT = ROOT / "launch" / "ray_job.py"


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        cwd=folder,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


@pytest.mark.processes
def test_a_dry_run_needs_no_ray(tmp_path):
    done = run(tmp_path, "--num-workers", "3", "--autotune", "--dry-run", "it's.py", "a b")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"on each of 3 Ray workers: HOROVOD_AUTOTUNE=1 {sys.executable} 'it'\"'\"'s.py' 'a b'\n"
    )


@pytest.mark.processes
def test_a_program_that_is_not_there_is_a_sentence(tmp_path):
    done = run(tmp_path, "none.py")
    assert done.returncode == 2
    assert done.stderr == "disttrain: none.py is not there.\n"


@pytest.mark.unit
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray, an option, is not there")
@pytest.mark.parametrize(
    ("what", "status"), [(["write", "a b", "it's"], 0), (["fail", "all", "7"], 7)]
)
def test_two_workers_of_a_local_cluster(program, what, status):
    options = [
        "--address",
        "local",
        "--network-interfaces",
        "lo",
        "--stall-check-warning-time-seconds",
        "9",
    ]
    done = run(program.parent, *options, program.name, *what)
    assert done.returncode == status, done.stderr
    if status:
        assert done.stderr.splitlines()[-1] == (
            f"disttrain: {program.name} failed in rank 0 with status 7."
        )
        return
    for rank in range(2):
        seen = json.loads((program.parent / f"rank {rank}").read_text())
        assert seen["arguments"] == what[1:]
        assert seen["environment"]["HOROVOD_SIZE"] == "2"
        assert seen["environment"]["HOROVOD_STALL_CHECK_TIME_SECONDS"] == "9"

"""One training on two ranks, through a kill, a signal to the launcher, and to its end."""

import json
import os
import pathlib
import signal
import sys
import tempfile
import time

import numpy as np
import pytest

from tests._support.timeouts import TIMEOUT
from tests.distributed import jobs


def job(folder, fault, during=None):
    """Runs a job to its end; returns its exit status and its output."""
    command = [sys.executable, "-m", "tests.distributed.faulty_program", str(folder), fault]
    ((launcher, environment),) = jobs.horovod(2, command)
    with tempfile.TemporaryFile("w+") as log, jobs._group(launcher, log, environment) as process:
        if during is not None:
            during(process)
        status = process.wait(TIMEOUT)
        log.seek(0)
        return status, log.read()


def three_jobs(folder):
    """What was to be seen after each of three jobs in one directory."""
    (folder / "ckpt").mkdir()
    found = {}

    def look(name, *result):
        status = folder / "ckpt" / "status.json"
        found[name] = {
            "ended": result,
            "status": json.loads(status.read_text()),
            "names": sorted(n for n in os.listdir(folder / "ckpt") if n.startswith("step-")),
            "preempted": len(list(folder.glob("preempted-*"))),
        }

    def terminate(launcher):
        end = time.monotonic() + TIMEOUT
        while not (folder / "ready").exists() and time.monotonic() < end:
            time.sleep(0.05)
        launcher.send_signal(signal.SIGTERM)

    look("killed", *job(folder, "kill"))
    look("terminated", *job(folder, "wait", terminate))
    look("finished", *job(folder, "none"))
    found["results"] = [dict(np.load(f)) for f in sorted(pathlib.Path(folder).glob("*.npz"))]
    return found


pytestmark = [pytest.mark.processes, pytest.mark.background_job.with_args(three_jobs)]


@pytest.fixture
def story(background_job):
    return background_job


def test_a_killed_rank_leaves_checkpoints_and_a_failure_with_its_reason(story):
    assert story["killed"]["ended"][0] != 0
    assert story["killed"]["names"][-1] == "step-00000008"
    assert story["killed"]["status"]["status"] in ("failed", "running")


def test_a_signal_to_the_launcher_saves_and_stops_within_its_grace(story):
    _, output = story["terminated"]["ended"]
    status = story["terminated"]["status"]
    # Horovod's launcher kills what has not ended after 5 s.
    assert status["status"] == "preempted", output[-3000:]
    assert story["terminated"]["preempted"] == 2
    assert status["step"] > 8
    # One that the interval has brought to the same step comes before it.
    assert story["terminated"]["names"][-1] == status["checkpoint"]
    assert status["checkpoint"].startswith(f"step-{status['step']:08d}")


def test_the_third_job_ends_with_the_bits_of_one_that_nothing_happened_to(story):
    status, output = story["finished"]["ended"]
    assert status == 0, output[-3000:]
    assert story["finished"]["status"]["status"] == "finished"
    assert len(story["results"]) == 2
    for process in story["results"]:
        np.testing.assert_array_equal(process["resumed"], process["whole"])

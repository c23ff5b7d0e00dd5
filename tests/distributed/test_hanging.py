"""A rank that stops is named and ends the job; workers go on; different models never begin."""

import json
import sys
import threading

import numpy as np
import pytest

from tests._support.timeouts import TIMEOUT
from tests.checkpoints.training import X, Y, build_plain, trainer
from tests.distributed import jobs

pytestmark = pytest.mark.processes


def run(directory, rank, what, kind=jobs.horovod, times=1):
    """Runs two ranks, one of which has a fault.

    Returns:
        The directory, and `(exit status, output)` of each time.
    """
    command = [sys.executable, "-m", "tests.distributed.hanging_program"]
    found = []
    for _ in range(times):
        ranks = kind(2, [*command, str(directory), str(rank), what])
        status, output = jobs._run(ranks, TIMEOUT, threading.Event())
        assert isinstance(status, int), f"it did not end by itself: {output[-3000:]}"
        found.append((status, output))
    return directory, *found


STOPPED = [
    # The chief, which the others ask for what they share.
    pytest.param(0, marks=pytest.mark.background_job(run, 0, "stop")),
    pytest.param(1, marks=[pytest.mark.background_job(run, 1, "stop"), pytest.mark.exhaustive]),
]


@pytest.mark.parametrize("rank", STOPPED)
def test_a_rank_that_stops_is_named_with_its_last_step_and_the_job_ends(background_job, rank):
    directory, (status, output) = background_job
    assert status != 0
    assert f"disttrain: rank {rank} on " in output
    assert "does not answer any more" in output
    assert "its last step is 7, and the others wait for it" in output
    assert "the job ends after hang_seconds=6" in output
    assert output.count("does not answer any more") == 1
    said = json.loads((directory / "checkpoints" / "status.json").read_text())
    assert (said["status"], said["rank"]) == ("failed", rank)
    assert "does not answer" in said["error"]


@pytest.mark.background_job(run, 1, "setup")
def test_a_rank_that_stops_before_the_first_step_is_named_with_what_the_others_wait_for(
    background_job,
):
    directory, (status, output) = background_job
    assert status != 0
    assert "disttrain: rank 1 on " in output
    assert "does not answer any more" in output
    assert "the others wait for it in the agreement on compiled operations" in output
    assert not (directory / "stepped").exists()


@pytest.mark.background_job(run, 1, "kill", jobs.multi_worker, 2)
def test_workers_that_are_started_again_after_one_was_killed_go_on(background_job):
    directory, (status, _), again = background_job
    # The other one ends by itself, as `run` has seen, so that a supervisor starts both.
    assert status != 0
    status, output = again
    assert status == 0, output[-3000:]
    said = json.loads((directory / "checkpoints" / "status.json").read_text())
    assert (said["status"], said["step"]) == ("finished", 33)

    made = trainer(None, build_plain, metrics=None)
    made.fit(X, Y, batch_size=4, epochs=3, verbose=0)
    with np.load(directory / "weights.npz") as found:
        for name, expected in zip(found.files, made.model.get_weights(), strict=True):
            np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.exhaustive
@pytest.mark.background_job(run, 1, "slow")
def test_a_slow_rank_is_waited_for(background_job):
    """It takes 10 s in all, where `hang_seconds` is 6."""
    _, (status, output) = background_job
    assert status == 0, output[-3000:]
    assert "does not answer" not in output


@pytest.mark.background_job(run, 1, "batches")
@pytest.mark.exhaustive
def test_ranks_with_different_numbers_of_batches_are_told_before_the_first_step(background_job):
    directory, (status, output) = background_job
    assert status != 0
    assert "different numbers of batches: 5 on rank 1 and 11 on rank 0" in output
    assert not (directory / "stepped").exists()


@pytest.mark.background_job(run, 1, "model")
def test_ranks_with_different_models_are_told_apart_before_the_first_step(background_job):
    directory, (status, output) = background_job
    assert status != 0
    assert "the processes have different variables of the model: number 1 is " in output
    assert "float32[5, 9] on rank 1 and" in output
    assert not (directory / "stepped").exists()

"""Faults in real processes: each training ends as the one without faults did.

`python -m tests.checkpoints.campaign --faults 200` draws many more.
"""

import json
import subprocess
import sys

import pytest

from tests._support.timeouts import TIMEOUT

pytestmark = pytest.mark.processes


def campaign(directory, *arguments):
    """The results of a campaign in a process of its own."""
    path = directory / "results.json"
    command = [sys.executable, "-m", "tests.checkpoints.campaign", "--json", str(path)]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=3 * TIMEOUT, check=False
    )
    assert path.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    results = json.loads(path.read_text())
    assert [wrong for result in results for wrong in result["wrong"]] == []
    assert done.returncode == 0
    return results


def tours():
    """Each kind of fault once by default, and all of each kind."""
    counts = {"each": 6, "kills": 5, "stops": 4, "damage": 5, "phases": 9}
    for tour, faults in counts.items():
        marks = [pytest.mark.background_job(campaign, "--tour", tour)]
        if tour != "each":
            marks.append(pytest.mark.exhaustive)
        yield pytest.param(faults, marks=marks, id=tour)


@pytest.mark.parametrize("faults", list(tours()))
def test_every_kind_of_fault_leaves_a_training_that_goes_on(background_job, faults):
    """kill -9 at any step and in any phase of a save, signals, a full disk, damaged files."""
    assert sum(sum(result["struck"]) for result in background_job) == faults


def test_the_tour_of_the_default_run_has_every_kind_of_fault():
    from tests.checkpoints.campaign import KINDS, TOURS

    assert {fault["kind"] for faults in TOURS["each"] for fault in faults} == set(KINDS)


@pytest.mark.exhaustive
@pytest.mark.background_job(campaign, "--faults", "12", "--seed", "3")
def test_random_faults_one_after_another_change_nothing(background_job):
    assert sum(sum(result["struck"]) for result in background_job) >= 12

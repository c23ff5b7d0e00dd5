"""Faults in real processes: each training ends as the one without faults did.

`python -m tests.checkpoints.campaign --faults 200` draws many more.
"""

import json
import subprocess
import sys

import pytest


def campaign(tmp_path, *arguments):
    """The results of a campaign in a process of its own."""
    path = tmp_path / "results.json"
    command = [sys.executable, "-m", "tests.checkpoints.campaign", "--json", str(path)]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=500, check=False
    )
    assert path.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    results = json.loads(path.read_text())
    assert [wrong for result in results for wrong in result["wrong"]] == []
    assert done.returncode == 0
    return results


@pytest.mark.parametrize(
    ("tour", "faults"), [("kills", 5), ("stops", 4), ("damage", 5), ("phases", 9)]
)
def test_every_kind_of_fault_leaves_a_training_that_goes_on(tmp_path, tour, faults):
    """kill -9 at any step and in any phase of a save, signals, a full disk, damaged files."""
    results = campaign(tmp_path, "--tour", tour)
    assert sum(sum(result["struck"]) for result in results) == faults


def test_random_faults_one_after_another_change_nothing(tmp_path):
    results = campaign(tmp_path, "--faults", "4", "--seed", "3")
    assert sum(sum(result["struck"]) for result in results) >= 4

"""A file system without room: a real one, in memory, that a process mounts for itself."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.distributed import jobs


@pytest.fixture
def small():
    """What runs a command with `$1` as a file system of its own of one megabyte."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare (util-linux)")
    mount = 'mount -t tmpfs -o size=1m tmpfs "$1" && shift && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]

    def run(folder, *arguments):
        return subprocess.run(
            [*command, str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=jobs.ROOT,
        )

    return run


def test_a_full_disk_costs_checkpoints_and_records_and_no_step(small, tmp_path):
    if small(tmp_path, "true").returncode != 0:
        pytest.skip("this system does not let a user mount a file system of their own")
    done = small(tmp_path, sys.executable, "-m", "tests.checkpoints.full_disk", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["room"] == [0]
    unsaved = [text for text in found["warnings"] if "could not be saved" in text]
    assert unsaved
    assert all("step 9 " in text or "step 12 " in text or "step 15 " in text for text in unsaved)
    assert all("training goes on" in text for text in unsaved)
    assert any(text.startswith("telemetry stops") for text in found["warnings"])
    # Nothing half written is left, and what was saved before stayed until there was room.
    steps = [name for name in found["checkpoints"] if name.startswith("step-")]
    assert steps[-1] == "step-00000022"
    assert not [name for name in found["checkpoints"] if name.startswith(".")]

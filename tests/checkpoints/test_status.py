"""`status.json` says how it ended, and for a failure which rank was first."""

import os
import socket

import pytest

from disttrain.checkpoints import status

pytestmark = pytest.mark.unit


def test_the_status_is_read_as_it_was_written(tmp_path):
    status.write(str(tmp_path), status.PREEMPTED, step=12, epoch=1)
    found = status.read(str(tmp_path))
    assert found["status"] == "preempted"
    assert (found["step"], found["epoch"]) == (12, 1)
    assert found["host"] == socket.gethostname()
    assert os.listdir(tmp_path) == ["status.json"]


def test_the_first_failure_is_the_cause(tmp_path):
    status.write(str(tmp_path), status.RUNNING, step=0)
    status.write_failure(str(tmp_path), 1, ValueError("no such thing"), step=7)
    status.write_failure(str(tmp_path), 0, RuntimeError("a rank has gone"), step=7)
    found = status.read(str(tmp_path))
    assert found["status"] == "failed"
    assert found["rank"] == 1
    assert found["error"] == "ValueError: no such thing"
    assert found["step"] == 7


def test_a_new_run_forgets_the_failure_of_the_one_before(tmp_path):
    status.write_failure(str(tmp_path), 1, ValueError("no such thing"))
    status.write(str(tmp_path), status.RUNNING, step=0)
    status.write_failure(str(tmp_path), 0, KeyboardInterrupt())
    assert status.read(str(tmp_path))["error"] == "KeyboardInterrupt()"


def test_a_host_that_does_not_see_the_directory_writes_nothing(tmp_path):
    status.write_failure(str(tmp_path / "elsewhere"), 1, ValueError("no such thing"))
    assert os.listdir(tmp_path) == []
    assert status.read(str(tmp_path / "elsewhere")) == {}


def test_a_file_that_is_no_status_counts_as_none(tmp_path):
    (tmp_path / "status.json").write_text("{")
    assert status.read(str(tmp_path)) == {}

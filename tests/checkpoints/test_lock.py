"""A second job on a directory is told who is there."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from disttrain.checkpoints.lock import InUse, Lock
from tests._support.timeouts import TIMEOUT


@pytest.mark.unit
def test_a_second_one_is_refused_with_host_process_and_start(tmp_path):
    first = Lock(str(tmp_path))
    first.acquire()
    who = json.loads((tmp_path / "lock").read_text())
    with pytest.raises(InUse) as caught:
        Lock(str(tmp_path)).acquire()
    said = str(caught.value)
    assert f"process {os.getpid()} on {socket.gethostname()}, started at {who['started']}" in said
    assert str(tmp_path) in said
    # The refused one has not touched it.
    assert json.loads((tmp_path / "lock").read_text()) == who
    first.release()
    second = Lock(str(tmp_path))
    second.acquire()
    second.release()


@pytest.mark.processes
def test_what_a_killed_process_has_left_means_nothing(tmp_path):
    code = (
        "import sys, time; from disttrain.checkpoints.lock import Lock\n"
        "lock = Lock(sys.argv[1]); lock.acquire(); print('held', flush=True); time.sleep(5000)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(InUse, match=f"process {child.pid} on"):
            Lock(str(tmp_path)).acquire()
        child.send_signal(signal.SIGKILL)
        child.wait(TIMEOUT)
        assert json.loads((tmp_path / "lock").read_text())["process"] == child.pid
        lock = Lock(str(tmp_path))
        lock.acquire()
        lock.release()
    finally:
        child.kill()
        child.wait(TIMEOUT)


@pytest.mark.unit
def test_a_holder_that_has_not_written_its_name_is_another_process(tmp_path):
    lock = Lock(str(tmp_path))
    lock.acquire()
    os.truncate(tmp_path / "lock", 0)
    with pytest.raises(InUse, match="in use by another process"):
        Lock(str(tmp_path)).acquire()
    lock.release()


@pytest.mark.unit
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    import errno
    import fcntl

    def unknown(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    lock = Lock(str(tmp_path))
    with pytest.warns(UserWarning, match="knows no locks"):
        lock.acquire()
    lock.release()

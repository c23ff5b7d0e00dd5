"""launch/mend_horovod.py: what it changes, and how the Horovod that is built from it behaves."""

import importlib.util
import json
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from tests._support.timeouts import TIMEOUT
from tests.distributed import jobs
from tests.launch.conftest import ROOT
from tests.launch.mended_program import SUMS
from tests.launch.programs import left

pytestmark = pytest.mark.processes

safe_shell_exec = pytest.importorskip("horovod.runner.common.util.safe_shell_exec")

SCRIPT = ROOT / "launch" / "mend_horovod.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("mend_horovod", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sources(script, tmp_path):
    """A folder with the texts that are to be changed, between others."""
    for path, changes in script.CHANGES.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"before\n{old * times}" for old, _, times in changes) + "after\n")
    return tmp_path


def test_each_text_is_replaced_and_the_rest_is_kept(script, sources):
    script.mend(sources)
    for path, changes in script.CHANGES.items():
        text = (sources / path).read_text()
        for _, new, times in changes:
            assert text.count(new) >= times, path
        assert text.count("before\n") == len(changes)
        assert text.endswith("after\n")


def test_other_sources_are_refused(script, sources):
    file = sources / "horovod" / "common" / "operations.cc"
    file.write_text(file.read_text().replace("SetCycleTimeMs(1);", "SetCycleTimeMs(2);"))
    with pytest.raises(RuntimeError, match=r"operations\.cc .*SetCycleTimeMs\(1\).* 0 times"):
        script.mend(sources)


def sums(directory, what):
    program = jobs.horovod(3, [sys.executable, "-m", "tests.launch.mended_program", what])
    status, output = jobs._run(program, TIMEOUT, threading.Event())
    assert status == 0, output[-4000:]
    lines = [line.partition("RESULT ")[2] for line in output.splitlines()]
    return sorted((json.loads(line) for line in lines if line), key=lambda one: one["rank"])


class TestSums:
    @pytest.mark.background_job.with_args(sums, "together")
    @pytest.mark.parametrize("how", ["together", "late"])
    def test_they_are_those_of_numpy_and_do_not_wait_for_a_cycle(self, background_job, how):
        """A cycle would take 5000 s."""
        turns = np.arange(SUMS)[:, None]
        expected = np.concatenate([np.tile(6 * turns, 3), np.full_like(turns, 6)], axis=1)
        assert [one["rank"] for one in background_job] == [0, 1, 2]
        for one in background_job:
            np.testing.assert_array_equal(one[how], expected)

    @pytest.mark.exhaustive
    @pytest.mark.background_job.with_args(sums, "apart")
    def test_groups_sum_at_a_pace_of_their_own(self, background_job):
        turns = np.arange(SUMS)[:, None]
        for one in background_job:
            share = 3 if one["rank"] < 2 else 1
            expected = np.concatenate([np.tile(share * turns, 3), np.full_like(turns, share)], 1)
            np.testing.assert_array_equal(one["apart"], expected)

    @pytest.mark.exhaustive
    @pytest.mark.background_job.with_args(sums, "apart")
    def test_an_idle_rank_leaves_its_core_to_others(self, background_job):
        # Seconds of processor time in one: three cycles take a few thousandths.
        assert max(one["idle"] for one in background_job) < 0.05


@pytest.fixture
def rank(tmp_path):
    """A function that has a shell run a command, as horovodrun does, in a folder of this test."""
    shells = []

    def start(command):
        shells.append(
            subprocess.Popen(command, shell=True, cwd=tmp_path, stdin=subprocess.PIPE, text=True)
        )
        return shells[0]

    yield start
    for pid in left(tmp_path, 0):
        psutil.Process(pid).kill()
    shells[0].wait()
    shells[0].stdin.close()


class TestTermination:
    """Of a rank, by a horovodrun that has been asked to end."""

    @pytest.mark.parametrize("looks", [1, 2])
    def test_none_starts_while_its_shell_is_ended(self, rank, tmp_path, monkeypatch, looks):
        shell = rank("read word; sleep 5000; true")
        children = psutil.Process.children
        seen = []

        def then_it_starts(process, *args, **kwargs):
            found = children(process, *args, **kwargs)
            seen.append(found)
            if process.pid == shell.pid and len(seen) == looks:
                shell.stdin.write("go\n")
                shell.stdin.flush()
                held = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
                while process.status() not in held and not children(process):
                    time.sleep(0.01)
            return found

        monkeypatch.setattr(psutil.Process, "children", then_it_starts)
        safe_shell_exec.terminate_executor_shell_and_children(shell.pid)
        assert seen
        assert not left(tmp_path)

    def test_one_without_a_shell_ends_by_itself(self, rank, tmp_path):
        program = (
            "import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: (open('saved', 'w'), sys.exit()))\n"
            "open('began', 'w')\n"
            "time.sleep(5000)\n"
        )
        (tmp_path / "it.py").write_text(program)
        shell = rank(f"exec {sys.executable} it.py")
        while not (tmp_path / "began").exists():
            time.sleep(0.05)
        reaping = threading.Thread(target=shell.wait)
        reaping.start()  # as horovodrun does
        safe_shell_exec.terminate_executor_shell_and_children(shell.pid)
        reaping.join(TIMEOUT)
        assert (tmp_path / "saved").exists()
        assert not left(tmp_path)

"""launch/slurm.sbatch: submitted to a Slurm of its own, or run with fake srun and scontrol."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from disttrain.launching import managed, task
from disttrain.launching.hosts import Host
from disttrain.launching.workers import free_ports
from tests._support.timeouts import TIMEOUT
from tests.launch.conftest import ROOT, skip_or_fail, write_program
from tests.launch.programs import left, program

pytestmark = pytest.mark.processes

__all__ = ["program"]

SCRIPT = ROOT / "launch" / "slurm.sbatch"
DAEMONS = ("munged", "slurmctld", "slurmd")


class Slurm:
    """A cluster of this machine alone, with a controller, a node and keys of its own."""

    def __init__(self, folder):
        self.folder = folder
        self._running = []

    def environment(self):
        made = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
        return {
            **made,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PYTHON": sys.executable,
            "TMPDIR": str(self.folder),
        }

    def start(self):
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        socket_path = self.folder / "munge.socket"
        self._daemon(
            *["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={socket_path}"],
            *[f"--{one}-file={self.folder}/munge.{one}" for one in ("pid", "log", "seed")],
        )
        host, ports = socket.gethostname(), free_ports(2)
        (self.folder / "slurm.conf").write_text(
            f"ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\n"
            f"SlurmctldPort={ports[0]}\nSlurmdPort={ports[1]}\n"
            f"AuthType=auth/munge\nCredType=cred/munge\nAuthInfo=socket={socket_path}\n"
            f"StateSaveLocation={self.folder}/state\nSlurmdSpoolDir={self.folder}/spool\n"
            f"SlurmctldPidFile={self.folder}/ctld.pid\nSlurmdPidFile={self.folder}/d.pid\n"
            "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nReturnToService=2\n"
            "SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nMpiDefault=none\n"
            "SchedulerParameters=sched_interval=1\nKillWait=5\n"
            f"NodeName={host} NodeAddr=127.0.0.1 CPUs={max(2, os.cpu_count())} State=UNKNOWN\n"
            f"PartitionName=all Nodes={host} Default=YES State=UP\n"
        )
        self._wait("munge did not start", lambda: socket_path.exists())
        self._daemon("slurmctld", "-D", "-i")
        self._daemon("slurmd", "-D", "-c")
        self._wait(
            "the node did not become idle", lambda: "idle" in self.call("sinfo", "-h").stdout
        )

    def _daemon(self, name, *arguments):
        with open(self.folder / f"{name}.out", "w") as log:
            command = [shutil.which(name) or f"/usr/sbin/{name}", *arguments]
            self._running.append(
                subprocess.Popen(
                    command,
                    env=self.environment(),
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def _wait(self, problem, done):
        for _ in range(5 * TIMEOUT):
            if done():
                return
            time.sleep(0.2)
        logs = {path.name: path.read_text()[-800:] for path in self.folder.glob("*.out")}
        raise RuntimeError(f"{problem}: {logs}")

    def call(self, *command, cwd=None):
        return subprocess.run(
            list(map(str, command)),
            env=self.environment(),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    def submit(self, folder, *arguments, options=()):
        """Submits a job and waits; returns its exit status and its output."""
        fixed = ["--parsable", "--output=out", "--overcommit"]
        done = self.call("sbatch", *fixed, *options, SCRIPT, *arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
        job = done.stdout.strip()
        for _ in range(5 * TIMEOUT):
            fields = dict(
                word.split("=", 1)
                for word in self.call("scontrol", "show", "job", job).stdout.split()
                if "=" in word
            )
            if fields["JobState"] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
                return int(fields["ExitCode"].partition(":")[0]), (folder / "out").read_text()
            time.sleep(0.2)
        raise RuntimeError(f"the job does not end: {fields}")

    def stop(self):
        for process in reversed(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    missing = [n for n in DAEMONS if not (shutil.which(n) or os.path.exists(f"/usr/sbin/{n}"))]
    if missing:
        skip_or_fail(f"{', '.join(missing)} not installed; they are in slurm-wlm and munge")
    if os.geteuid() != 0:
        pytest.skip("only root can start Slurm's daemons for itself")
    # Sockets have short paths.
    folder = tmp_path_factory.mktemp("slurm")
    made = Slurm(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_two_tasks_are_ranks_of_a_submitted_job(slurm, program):
    arguments = ["a b", 'it\'s "x" $HOME *']
    options = ["--timeline-filename", "time line.json", "--autotune"]
    status, output = slurm.submit(program.parent, *options, program.name, "write", *arguments)
    assert status == 0, output
    ranks = [json.loads((program.parent / f"rank {i}").read_text()) for i in range(2)]
    for number, rank in enumerate(ranks):
        assert rank["arguments"] == arguments
        assert rank["folder"] == str(program.parent)
        there = rank["environment"]
        assert there["HOROVOD_RANK"] == there["HOROVOD_LOCAL_RANK"] == str(number)
        assert there["HOROVOD_SIZE"] == there["HOROVOD_LOCAL_SIZE"] == "2"
        assert there["HOROVOD_TIMELINE"] == "time line.json"
        assert there["HOROVOD_AUTOTUNE"] == "1"


@pytest.mark.exhaustive
def test_ranks_of_a_submitted_job_reduce(slurm, program):
    options = ["--network-interfaces", "lo"]
    status, output = slurm.submit(program.parent, *options, program.name, "reduce")
    assert status == 0, output
    assert "the sum is 2.0" in output


def test_a_failing_task_of_a_submitted_job_is_told_once(slurm, program):
    status, output = slurm.submit(program.parent, program.name, "fail", "1", "7")
    assert status == 7
    assert output.count("ValueError: rank 1 is bad") == 1
    *_, said, last = output.splitlines()
    assert said == "ValueError: rank 1 is bad"
    assert "failed in rank 1" in last
    assert "with status 7" in last
    assert not left(program.parent)


def test_workers_of_a_submitted_job_have_tf_config(slurm, program):
    options = ["--replication", "multi_worker"]
    status, output = slurm.submit(program.parent, *options, program.name, "write")
    assert status == 0, output
    configs = [
        json.loads(
            json.loads((program.parent / f"rank {i}").read_text())["environment"]["TF_CONFIG"]
        )
        for i in range(2)
    ]
    assert [config["task"]["index"] for config in configs] == [0, 1]
    assert len(set(configs[0]["cluster"]["worker"])) == 2


def test_the_ranks_are_warned_before_the_time_limit(slurm, program):
    def warn():
        for _ in range(5 * TIMEOUT):
            if len(list(program.parent.glob("began *"))) == 2:
                slurm.call("scancel", "--signal=TERM", "--name=disttrain")  # as Slurm does
                return
            time.sleep(0.2)

    warning = threading.Thread(target=warn)
    warning.start()
    status, output = slurm.submit(program.parent, program.name, "save")
    warning.join()
    assert status == 0, output
    assert len(list(program.parent.glob("saved *"))) == 2


# Without Slurm: what it is asked for, and how its answers are read.

SCONTROL = 'if [[ "$*" == "show hostnames node[1-3]" ]]; then printf "node%d\\n" 1 2 3; fi'


@pytest.fixture
def faked(tmp_path):
    """The environment of a job on three hosts, whose srun writes down what it was asked."""
    write_program(tmp_path / "bin" / "scontrol", SCONTROL)
    srun = 'printf "%s\\0" "$@" >asked\necho "0: rank 0 speaks"; echo "1: rank 1 speaks"'
    write_program(tmp_path / "bin" / "srun", srun)
    return {
        **os.environ,
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_TASKS_PER_NODE": "2(x2),1",
    }


def script(faked, folder, *arguments):
    return subprocess.run(
        [SCRIPT, *arguments],
        env=faked,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def test_srun_gets_all_tasks_of_three_hosts(faked, tmp_path):
    done = script(faked, tmp_path, "--manager-options", "--cpu-bind=cores", "the program.py", "a b")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "rank 0 speaks\n"
    asked = (tmp_path / "asked").read_text().split("\0")
    assert {
        "--ntasks=5",
        "--kill-on-bad-exit=1",
        "--distribution=block",
        "--cpu-bind=cores",
    } <= set(asked)
    assert asked[-4:-1] == [sys.executable, "the program.py", "a b"]


def test_a_dry_run_starts_nothing(faked, tmp_path):
    done = script(faked, tmp_path, "--dry-run", "--autotune", "it's.py")
    words = shlex.split(done.stdout)
    assert words[:2] == ["HOROVOD_AUTOTUNE=1", "srun"]
    assert words[-1] == "it's.py"
    assert not (tmp_path / "asked").exists()


def test_a_dry_run_outside_of_a_job_prints_what_submits_one(faked, tmp_path):
    outside = {name: value for name, value in faked.items() if not name.startswith("SLURM")}
    arguments = ["--autotune", "--dry-run", "it's.py", "--dry-run"]
    done = script(outside, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert shlex.split(done.stdout) == ["sbatch", str(SCRIPT), "--autotune", "it's.py", "--dry-run"]


def test_help_and_mistakes(faked, tmp_path):
    assert "--replication NAME" in script(faked, tmp_path, "--help").stdout
    outside = {name: value for name, value in faked.items() if not name.startswith("SLURM")}
    assert script(faked, tmp_path, "--dry-run", "-m", "package.module").returncode == 0
    for environment, arguments in ((faked, []), (faked, ["--nonsense"]), (outside, ["x.py"])):
        done = script(environment, tmp_path, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("disttrain: ")
        assert done.stderr.count("\n") == 1


def test_ranks_are_placed_host_by_host(monkeypatch):
    hosts = [("a", 2), ("b", 1), ("c", 2)]
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", "10.0.0.1")
    placed = [task.placed(rank, hosts) for rank in range(5)]
    for key, values in {
        "HOSTNAME": ["a", "a", "b", "c", "c"],
        "LOCAL_RANK": ["0", "1", "0", "0", "1"],
        "LOCAL_SIZE": ["2", "2", "1", "2", "2"],
        "CROSS_RANK": ["0", "0", "1", "2", "1"],
        "CROSS_SIZE": ["3", "2", "3", "3", "2"],
    }.items():
        assert [one[f"HOROVOD_{key}"] for one in placed] == values, key


def test_what_srun_says_of_failed_tasks_is_read():
    line = b"srun: error: node1: tasks 0-2,5: Exited with exit code 7\n"
    found = managed._ENDED.search(line)
    assert list(managed._tasks(found["tasks"].decode())) == [0, 1, 2, 5]
    assert found["code"] == b"7"
    assert managed._ENDED.search(b"srun: error: n: task 3: Killed")["how"] == b"Killed"


def test_tasks_per_node_are_read(faked, monkeypatch):
    for name, value in faked.items():
        monkeypatch.setenv(name, value)
    assert managed.allocation("slurm") == [Host("node1", 2), Host("node2", 2), Host("node3", 1)]

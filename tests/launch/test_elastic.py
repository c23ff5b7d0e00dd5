"""launch/elastic.sh: what it would run; launch/discover_hosts.sh: which hosts it finds."""

import os
import shlex
import subprocess

import pytest

from tests._support.timeouts import TIMEOUT
from tests.launch.conftest import ROOT, write_program

pytestmark = pytest.mark.processes

ELASTIC = ROOT / "launch" / "elastic.sh"
DISCOVER = ROOT / "launch" / "discover_hosts.sh"


def run(*command, **extra):
    return subprocess.run(
        list(map(str, command)),
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def test_hosts_of_a_file_that_changes(tmp_path):
    hosts = tmp_path / "the hosts"
    hosts.write_text("one:4\n# down: two\n two slots = 2 # as in a hostfile\n\nthree\n")
    assert run(DISCOVER, "file", hosts).stdout == "one:4\ntwo:2\nthree:1\n"
    hosts.write_text("one:4\n")
    assert run(DISCOVER, "file", hosts).stdout == "one:4\n"


def test_nodes_of_a_slurm_job_that_are_up(tmp_path):
    states = "n1 allocated\\nn1 allocated\\nn2 down*\\nn3 mixed\\nn4 draining\\nn5 idle\\n"
    write_program(tmp_path / "sinfo", f"echo \"$*\" >>'{tmp_path}/asked'; printf '{states}'")
    job = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "n[1-5]",
        "SLURM_TASKS_PER_NODE": "4(x5)",
    }
    assert run(DISCOVER, "slurm", **job).stdout == "n1:4\nn3:4\nn5:4\n"
    assert "--nodes n[1-5]" in (tmp_path / "asked").read_text()
    assert run(DISCOVER, "slurm", "2", **job).stdout == "n1:2\nn3:2\nn5:2\n"


def test_workers_of_an_mpijob(tmp_path):
    # As the operator writes it, with and without slots.
    operator = tmp_path / "discover_hosts.sh"
    operator.write_text("#!/bin/sh\necho w-0.job.ns.svc:2\necho w-1.job.ns.svc\n")
    done = run(DISCOVER, "kubernetes", "3", DISTTRAIN_MPI_FOLDER=str(tmp_path))
    assert done.stdout == "w-0.job.ns.svc:2\nw-1.job.ns.svc:3\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["file"], "cannot be read"),
        (["file", "/none"], "'/none' cannot be read"),
        (["slurm"], "there is no Slurm job here"),
        (["kubernetes"], "not the launcher of an MPIJob"),
        (["clouds"], "unknown source 'clouds'"),
    ],
)
def test_no_hosts_is_a_sentence_and_no_success(arguments, words, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    done = run(DISCOVER, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""


def test_the_discovery_script_runs_as_horovod_runs_it(tmp_path):
    hosts = tmp_path / "the host's file"
    hosts.write_text("one:4\n")
    options = ["--min-np", "2", "--max-np", "4", "--hosts", "file", hosts]
    more = ["--blacklist-cooldown-range", "10", "20", "--autotune", "--dry-run"]
    done = run(ELASTIC, *options, *more, "it's.py", "a b")
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    script = words[words.index("--host-discovery-script") + 1]
    shown = subprocess.run(script, shell=True, cwd="/", capture_output=True, text=True, check=True)
    assert shown.stdout == "one:4\n"
    at = words.index("horovod.runner.launch")
    assert words[at + 1 : at + 8] == ["--gloo", "-np", "2", "--min-np", "2", "--max-np", "4"]
    at = words.index("--blacklist-cooldown-range")
    assert words[at : at + 4] == ["--blacklist-cooldown-range", "10", "20", "--autotune"]
    assert words[-2:] == ["it's.py", "a b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hosts", "slurm", "x.py"], "take numbers of processes, not ''"),
        (["--min-np", "2", "x.py"], "say where the hosts are"),
        (["--min-np", "2", "--hosts", "clouds", "x.py"], "unknown --hosts clouds"),
        (["--min-np", "2", "--hosts", "file"], "--hosts file needs"),
        (["--min-np", "3", "--max-np", "2", "--hosts", "slurm", "x.py"], "does not lie between"),
        (["--min-np", "2", "--hosts", "slurm"], "no program"),
        (["--nonsense"], "unknown option --nonsense"),
    ],
)
def test_mistakes_are_sentences(arguments, words):
    done = run(ELASTIC, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_help():
    assert "--blacklist-cooldown-range MIN MAX" in run(ELASTIC, "--help").stdout
    assert "kubernetes [SLOTS]" in run(DISCOVER, "--help").stdout

"""launch/lsf.sh with a fake bsub, which runs the job at once, and a fake jsrun."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from tests._support.timeouts import TIMEOUT
from tests.launch.conftest import ROOT, write_program
from tests.launch.programs import program

pytestmark = pytest.mark.processes

__all__ = ["program"]

SCRIPT = ROOT / "launch" / "lsf.sh"

#: Hands the words after the options to a shell, as bsub does, within a job of two hosts.
BSUB = """
printf '%s\\0' "$@" >asked-bsub
while [[ $1 == -* ]]; do shift 2; done
export LSB_JOBID=17 LSB_MCPU_HOSTS='login 1 host1 42 host2 42'
sh -c "$*"
"""
#: Starts as many processes as resource sets, numbered as jsrun does, with prefixed lines.
JSRUN = """
printf '%s\\0' "$@" >asked-jsrun
while [[ $1 == -* ]]; do
  [[ $1 != --nrs=* ]] || count=${1#*=}
  shift
done
set -o pipefail
status=0
for ((rank = 0; rank < count; rank++)); do
  ({ JSM_NAMESPACE_RANK=$rank "$@" 2>&1 >&3 | sed "s/^/$rank: /" >&2; } 3>&1 | sed "s/^/$rank: /") &
done
for job in $(jobs -p); do wait "$job" || status=$?; done
exit $status
"""


@pytest.fixture
def environment(tmp_path):
    write_program(tmp_path / "bin" / "bsub", BSUB)
    write_program(tmp_path / "bin" / "jsrun", JSRUN)
    made = {name: value for name, value in os.environ.items() if not name.startswith("LSB_")}
    made |= {"PATH": f"{tmp_path}/bin:{made['PATH']}", "TMPDIR": str(tmp_path)}
    return {**made, "PYTHON": sys.executable}


def run(environment, folder, *arguments):
    return subprocess.run(
        [SCRIPT, *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def test_the_job_s_ranks_get_every_argument(environment, program):
    arguments = ["a b", 'it\'s "x" $HOME *']
    options = ["-n", "2", "-r", "2", "--project", "ABC", "--autotune"]
    done = run(environment, program.parent, *options, program.name, "write", *arguments)
    assert done.returncode == 0, done.stderr
    asked = (program.parent / "asked-bsub").read_text().split("\0")
    assert asked[:4] == ["-nnodes", "2", "-W", "2:00"]
    assert asked[asked.index("-P") + 1] == "ABC"
    for rank, (host, local) in enumerate([("host1", 0), ("host1", 1), ("host2", 0), ("host2", 1)]):
        seen = json.loads((program.parent / f"rank {rank}").read_text())
        assert seen["arguments"] == arguments
        there = seen["environment"]
        assert there["HOROVOD_SIZE"] == "4"
        assert (there["HOROVOD_HOSTNAME"], there["HOROVOD_LOCAL_RANK"]) == (host, str(local))
        assert there["HOROVOD_AUTOTUNE"] == "1"


def test_jsrun_gets_the_hosts_and_more_options(environment, program):
    more = ["--manager-options", "--gpu_per_rs=1 --cpu_per_rs=7"]
    done = run(environment, program.parent, "-n", "2", "-r", "3", *more, program.name, "write")
    assert done.returncode == 0, done.stderr
    asked = (program.parent / "asked-jsrun").read_text().split("\0")
    assert {"--nrs=6", "--rs_per_host=3", "--gpu_per_rs=1", "--cpu_per_rs=7"} <= set(asked)
    assert sum(word.startswith("--cpu_per_rs") for word in asked) == 1


def test_workers_get_tf_config(environment, program):
    options = ["-n", "2", "--replication", "multi_worker"]
    done = run(environment, program.parent, *options, program.name, "write")
    assert done.returncode == 0, done.stderr
    seen = json.loads((program.parent / "rank 1").read_text())["environment"]
    config = json.loads(seen["TF_CONFIG"])
    assert config["task"] == {"type": "worker", "index": 1}
    assert [worker.partition(":")[0] for worker in config["cluster"]["worker"]] == [
        "host1",
        "host2",
    ]
    assert "HOROVOD_RANK" not in seen


def test_a_failing_rank_s_status_and_error_come_last(environment, program):
    done = run(environment, program.parent, "-n", "2", program.name, "fail", "all", "7")
    assert done.returncode == 7
    assert done.stderr.count("is bad") == 1
    assert "failed in rank 0" in done.stderr.splitlines()[-1]


def test_a_dry_run_submits_nothing(environment, tmp_path):
    done = run(environment, tmp_path, "-n", "2", "--dry-run", "it's.py", "a b", "--dry-run")
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    assert words[0] == "bsub"
    # What is printed can be copied, and then trains.
    assert shlex.split(words[-1])[1:] == ["-n", "2", "it's.py", "a b", "--dry-run"]
    assert not (tmp_path / "asked-bsub").exists()


def test_mistakes_are_sentences(environment, tmp_path):
    for wrong in (["x.py"], ["-n", "two", "x.py"], ["-n", "2"], ["--nonsense"], ["-n"]):
        done = run(environment, tmp_path, *wrong)
        assert done.returncode == 2, wrong
        assert done.stderr.startswith("disttrain: "), wrong
        assert done.stderr.count("\n") == 1, wrong

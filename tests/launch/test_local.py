"""launch/local.sh and launch/multi_worker.sh on this machine, with real processes."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from tests._support.timeouts import TIMEOUT
from tests.launch.conftest import ROOT, skip_or_fail, write_program
from tests.launch.programs import left, patient, program, wait_for

pytestmark = pytest.mark.processes

__all__ = ["program"]

LOCAL = ROOT / "launch" / "local.sh"
WORKERS = ROOT / "launch" / "multi_worker.sh"
#: How several processes are started here.
SEVERAL = {
    "horovod": [LOCAL, "-np", "2"],
    "multi_worker": [WORKERS, "-np", "2"],
}


@pytest.fixture(params=SEVERAL)
def several(request):
    if request.param == "horovod":
        need_horovod()
    return SEVERAL[request.param]


@pytest.fixture
def horovod():
    need_horovod()
    return SEVERAL["horovod"]


def need_horovod():
    if not os.path.exists(os.path.join(os.path.dirname(sys.executable), "horovodrun")):
        skip_or_fail("Horovod is not installed")


def environment(**extra):
    made = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
    return {**made, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "-1", **extra}


def run(*command, cwd=None, **extra):
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment(**({"TMPDIR": str(cwd)} if cwd else {}), **extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize(
    "script", [LOCAL, WORKERS, ROOT / "launch" / "hosts.sh"], ids=lambda p: p.name
)
def test_help_and_wrong_options(script):
    done = run(script, "--help")
    assert done.returncode == 0
    for option in ("--dry-run", "--log FILE", "--help"):
        assert f"  {option}" in done.stdout
    for wrong in (["--nonsense"], ["-np"], ["-np", "0", "x.py"], ["-np", "2"], []):
        done = run(script, *wrong)
        assert done.returncode == 2, wrong
        assert re.fullmatch(r"disttrain: [^\n]*\.\n", done.stderr), wrong
        assert done.stdout == ""


def test_a_dry_run_prints_a_command_that_could_be_typed():
    done = run(LOCAL, "-np", "3", "--autotune", "--dry-run", "it's.py", "a b", '"')
    words = shlex.split(done.stdout)
    assert words[-3:] == ["it's.py", "a b", '"']
    at = words.index("horovod.runner.launch")
    assert words[at + 1 :][:6] == ["-np", "3", "--gloo", "--network-interfaces", "lo", "--autotune"]


def test_a_module_is_run_and_named(several, program):
    module = program.rename(program.parent / "module.py").stem
    done = run(*several, "-m", module, "fail", "all", "3", cwd=program.parent)
    assert done.returncode == 3
    assert f"disttrain: {module} failed in rank" in done.stderr


def test_workers_are_started_by_a_flag(program):
    options = ["-np", "2", "--replication", "multi_worker"]
    done = run(LOCAL, *options, program.name, "write", "a b", cwd=program.parent)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        seen = json.loads((program.parent / f"rank {rank}").read_text())
        assert seen["arguments"] == ["a b"]
        assert json.loads(seen["environment"]["TF_CONFIG"])["task"]["index"] == rank


def test_each_process_gets_every_argument_and_the_folder(several, program):
    arguments = ["a b", 'it\'s "x" $HOME *', "", "--help"]
    done = run(*several, program.name, "write", *arguments, cwd=program.parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for rank in range(2):
        seen = json.loads((program.parent / f"rank {rank}").read_text())
        assert seen["arguments"] == arguments
        assert seen["folder"] == str(program.parent)


def test_each_worker_has_its_own_tf_config(program):
    run(WORKERS, "-np", "2", program.name, "write", cwd=program.parent, TF_CONFIG="{wrong")
    configs = [
        json.loads(
            json.loads((program.parent / f"rank {i}").read_text())["environment"]["TF_CONFIG"]
        )
        for i in range(2)
    ]
    assert configs[0]["cluster"] == configs[1]["cluster"]
    assert len(set(configs[0]["cluster"]["worker"])) == 2
    assert [config["task"] for config in configs] == [
        {"type": "worker", "index": 0},
        {"type": "worker", "index": 1},
    ]


def test_one_worker_for_a_supervisor(program):
    options = ["-H", "one:1,two:2", "--port", "4000", "--index", "2"]
    done = run(WORKERS, *options, program.name, "write", cwd=program.parent)
    assert done.returncode == 0, done.stderr
    seen = json.loads((program.parent / "rank 2").read_text())
    assert json.loads(seen["environment"]["TF_CONFIG"])["cluster"] == {
        "worker": ["one:4000", "two:4000", "two:4001"]
    }


def test_horovod_s_options_reach_the_ranks(horovod, program):
    timeline = program.parent / "time line.json"
    options = ["--timeline-filename", timeline, "--autotune", "--start-timeout", "50"]
    options += ["--stall-check-warning-time-seconds", "7", "--fusion-threshold-mb", "3"]
    done = run(*horovod, *options, program.name, "write", cwd=program.parent)
    assert done.returncode == 0, done.stderr
    seen = json.loads((program.parent / "rank 1").read_text())["environment"]
    assert seen["HOROVOD_TIMELINE"] == str(timeline)
    assert seen["HOROVOD_AUTOTUNE"] == "1"
    assert seen["HOROVOD_STALL_CHECK_TIME_SECONDS"] == "7"
    assert seen["HOROVOD_FUSION_THRESHOLD"] == str(3 * 2**20)
    assert seen["HOROVOD_GLOO_IFACE"] == "lo"


@pytest.mark.parametrize("rank", ["0", "1", "all"])
def test_an_error_comes_last_and_once_with_its_status(several, program, rank):
    done = run(*several, program.name, "fail", rank, "7", cwd=program.parent)
    assert done.returncode == 7
    assert done.stderr.count("is bad") == 1
    said, last = done.stderr.splitlines()
    assert said == f"ValueError: rank {rank} is bad"
    assert re.match(rf"disttrain: {program.name} failed in rank \d.* with status 7; ", last)
    with open(re.search(r"; (.+\.log) holds", last)[1]) as file:
        assert "ValueError" in file.read()
    assert not left(program.parent)


def test_the_log_is_kept_where_it_is_wanted(several, program):
    log = program.parent / "logs" / "all.log"
    done = run(*several, "--log", log, program.name, "fail", "1", "3", cwd=program.parent)
    assert f"{log} holds" in done.stderr
    assert "[1]<stderr>:ValueError: rank 1 is bad" in log.read_text()


@pytest.mark.parametrize(
    ("what", "signals", "status", "said"),
    [
        ("sleep", [signal.SIGINT], 130, "stopped by Ctrl-C; all processes have ended."),
        ("save", [signal.SIGTERM], 143, "stopped by SIGTERM; all processes have ended."),
        ("stubborn", [signal.SIGINT, signal.SIGINT], 130, "stopped by Ctrl-C"),
    ],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C twice"],
)
def test_a_signal_ends_all_processes(several, program, tmp_path, what, signals, status, said):
    """The launcher does not wait until it kills them, which is here after 5000 s."""
    running = subprocess.Popen(
        [*map(str, several), program.name, what],
        cwd=program.parent,
        env=environment(**patient(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(program.parent, "began *", 2)
    first, *again = signals
    os.killpg(running.pid, first)
    for number in again:
        wait_for(program.parent, "asked *", 2)
        os.killpg(running.pid, number)
    _, errors = running.communicate(timeout=TIMEOUT)
    assert running.returncode == status
    assert errors.splitlines()[-1].startswith(f"disttrain: {said}")
    # The kernel may take a moment to bury what was killed.
    assert not left(program.parent)
    if what == "save":
        assert len(list(program.parent.glob("saved *"))) == 2


def test_mirrored_replicas_share_a_process(tmp_path):
    (tmp_path / "it.py").write_text(
        "import disttrain, keras, sys\n"
        "keras.Variable(1.0)\n"  # as an optimizer would
        "print(disttrain.replication.resolve('auto'))\n"
        "sys.exit(5)\n"
    )
    done = run(LOCAL, "-np", "3", "--replication", "mirrored", "it.py", cwd=tmp_path)
    assert done.returncode == 5
    assert "<TfDistribute mirrored, 3 replicas>" in done.stdout


@pytest.mark.parametrize("replication", ["horovod", "multi_worker", "mirrored"])
def test_more_replicas_than_gpus_is_a_sentence(machine, replication):
    machine.program("nvidia-smi", "echo 'GPU 0: some'; echo 'GPU 1: some'")
    machine.env["PYTHON"] = sys.executable
    options = ["--replication", replication, "--dry-run"]
    done = machine.run("local.sh", "-np", "3", *options, "x.py")
    assert done.returncode == 2
    assert "3 replicas and this machine has 2 GPU(s), one for each; use -np 2, or" in done.stderr
    for fewer in ({"CUDA_VISIBLE_DEVICES": "-1"}, {"CUDA_VISIBLE_DEVICES": "0,1,2"}):
        assert machine.run("local.sh", "-np", "3", *options, "x.py", **fewer).returncode == 0


def test_a_program_that_is_not_there_is_a_sentence(several, tmp_path):
    done = run(*several, "./none", cwd=tmp_path)
    assert done.returncode != 0
    assert "./none" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_s_gpu_is_its_own(tmp_path):
    write_program(tmp_path / "tell", 'echo "$CUDA_VISIBLE_DEVICES" >>gpus')
    done = run(WORKERS, "-np", "2", "./tell", cwd=tmp_path, CUDA_VISIBLE_DEVICES="4,6")
    assert done.returncode == 0, done.stderr
    assert sorted((tmp_path / "gpus").read_text().split()) == ["4", "6"]

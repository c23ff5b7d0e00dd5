"""launch/demo.sh: what it passes on, what of the workers' output it shows, and how it ends."""

import os
import pty
import re
import signal
import subprocess
import threading
import time

import pytest

from tests._support.timeouts import TIMEOUT
from tests.launch.conftest import ROOT, skip_or_fail, write_program

pytestmark = pytest.mark.processes

# Stands for horovodrun: writes down the number of processes and the worker's own arguments.
FAKE_HOROVODRUN = """
while [[ $1 != -m ]]; do
  if [[ $1 == -np ]]; then echo "np $2" >>"$CALLS"; fi
  shift
done
shift
echo "$*" >>"$CALLS"
echo "gpus ${CUDA_VISIBLE_DEVICES:-all}" >>"$CALLS"
"""
TWO_WORKERS = """
echo '[1]<stdout>:one speaks'
printf '[0]<stdout>:one half\\r[0]<stdout>:zero speaks\\n'
echo '[0]<stderr>:I0000 00:00:1795148892.636925    7175 port.cc:153] oneDNN is on.' >&2
echo '[0]<stderr>:zero warns' >&2
echo '[1]<stderr>:one warns' >&2
"""


def failing(*ends):
    """Workers that fail, given as (rank, exit status, last words), in the order horovodrun says."""
    said = [f"echo '[{rank}]<stderr>:{words}' >&2" for rank, _, words in ends]
    said += [f"echo 'Process {rank} exit with status code {code}.'" for rank, code, _ in ends]
    return "\n".join([*said, "exit 1"])


@pytest.fixture
def demo(machine):
    """A clone with a .venv of stand-ins: its training succeeds and TensorBoard serves at once."""
    write_program(machine.root / "launch" / "setup.sh", 'echo setup >>"$CALLS"')
    write_program(machine.venv / "bin" / "python", "")
    tensorboard = """
        echo "tensorboard $*" >>"$CALLS"
        echo "TensorBoard 2.21.0 at http://127.0.0.1:4567/ (Press CTRL+C to quit)" >&2
        exec sleep 5000"""
    write_program(machine.venv / "bin" / "tensorboard", tensorboard)
    trains(machine, TWO_WORKERS)
    return machine


def trains(machine, text):
    write_program(machine.venv / "bin" / "horovodrun", FAKE_HOROVODRUN + text)


def example_arguments(machine):
    (line,) = [call for call in machine.called() if call.startswith("disttrain.examples.images")]
    return line


def test_help_starts_nothing(demo):
    done = demo.run("demo.sh", "--help")
    assert done.returncode == 0
    for option in (
        "-np",
        "--dataset",
        "--data-dir",
        "--epochs",
        "--batch",
        "--logdir",
        "--no-serve",
    ):
        assert f"\n  {option} " in done.stdout
    assert demo.called() == []
    assert not (demo.root / "runs").exists()


def test_it_passes_on_what_it_does_not_know(demo):
    done = demo.run("demo.sh", "--no-serve", "--epochs", "3", "--momentum=0.9", "--name", "a b")
    assert done.returncode == 0, done.stderr
    line = example_arguments(demo)
    assert line.endswith("--epochs 3 --momentum=0.9 --name a b")
    assert "--replication horovod --logdir" in line
    assert re.search(r"--logdir \S.*/a clone/runs/demo-\d{8}-\d{6} ", line)
    assert demo.called()[:2] == ["setup", "np 2"]


def test_folders_are_relative_to_where_it_is_called(demo):
    subprocess.run(
        [demo.root / "launch" / "demo.sh", "--no-serve", "-np", "3", "--logdir", "x y/z"]
        + ["--data-dir", "data"],
        env=demo.env,
        cwd=demo.tmp,
        check=True,
    )
    assert (demo.tmp / "x y" / "z").is_dir()
    assert f"--logdir {demo.tmp}/x y/z --data-dir {demo.tmp}/data" in example_arguments(demo)
    assert "np 3" in demo.called()


@pytest.mark.parametrize("arguments", [["-np", "two"], ["-np", "0"], ["--logdir"]])
def test_a_wrong_value_is_one_sentence(demo, arguments):
    done = demo.run("demo.sh", *arguments)
    assert done.returncode == 1
    assert re.fullmatch(r"disttrain: [^\n]*--help\.\n", done.stderr)
    assert demo.called() == []


def test_only_rank_zero_is_shown_and_all_is_kept(demo):
    done = demo.run("demo.sh", "--no-serve", "--logdir", str(demo.tmp / "run"), text=False)
    assert (done.stdout, done.stderr) == (b"one half\rzero speaks\n", b"zero warns\n")
    kept = (demo.tmp / "run" / "horovodrun.log").read_text()
    assert "[1]<stdout>:one speaks" in kept
    assert "[1]<stderr>:one warns" in kept


def test_a_failure_is_the_training_s_and_nothing_is_served(demo):
    trains(demo, failing((0, 7, "ValueError: bad"), (1, 143, "Terminated")))
    done = demo.run("demo.sh")
    assert done.returncode == 7
    assert done.stderr.count("ValueError: bad") == 1
    assert "failed in process 0" in done.stderr
    assert not any(call.startswith("tensorboard") for call in demo.called())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "UnknownError: Horovod has been shut down. This was caused by an exception"),
        (143, "Terminated"),
    ],
)
def test_the_process_that_failed_by_itself_is_blamed(demo, code, words):
    trains(demo, failing((0, code, words), (1, 9, "MemoryError")))
    done = demo.run("demo.sh")
    assert done.returncode == 9
    assert "MemoryError\ndisttrain: the training failed in process 1" in done.stderr


@pytest.mark.parametrize(("gpus", "seen"), [(0, "all"), (1, "-1"), (2, "all")])
def test_processes_without_a_gpu_each_train_on_the_cpu(demo, gpus, seen):
    demo.program("nvidia-smi", "\n".join(f"echo 'GPU {i}: some'" for i in range(gpus)))
    done = demo.run("demo.sh", "--no-serve")
    assert f"gpus {seen}" in demo.called()
    assert ("on the CPU" in done.stdout) == (seen == "-1")


def start(machine, *args):
    """Starts the demo in a process group of its own, with Ctrl-C in its ordinary meaning."""
    return subprocess.Popen(
        [machine.root / "launch" / "demo.sh", *args],
        env=machine.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(stream, text):
    for line in stream:
        if text in line:
            return
    pytest.fail(f"ended without {text!r}")


def group_is_gone(group):
    for _ in range(10 * TIMEOUT):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_it_serves_the_run_until_ctrl_c(demo):
    running = start(demo, "--logdir", str(demo.tmp / "run"))
    wait_for(running.stdout, "http://localhost:4567/#disttrain")
    wait_for(running.stdout, "Ctrl-C")
    os.killpg(running.pid, signal.SIGINT)
    running.communicate(timeout=TIMEOUT)
    assert running.returncode == 0
    assert group_is_gone(running.pid)
    (call,) = [call for call in demo.called() if call.startswith("tensorboard")]
    assert f"--logdir {demo.tmp}/run --host 127.0.0.1" in call


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_training(demo, sent, status):
    trains(demo, "echo '[0]<stdout>:training'; exec sleep 5000")
    running = start(demo)
    wait_for(running.stdout, "training")
    os.kill(running.pid, sent) if sent == signal.SIGTERM else os.killpg(running.pid, sent)
    running.communicate(timeout=TIMEOUT)
    assert running.returncode == status
    assert group_is_gone(running.pid)
    assert not any(call.startswith("tensorboard") for call in demo.called())


def test_ctrl_c_while_setting_up_is_the_end(demo):
    text = "trap 'exit 0' INT; echo setting up; while true; do sleep 0.1; done"
    write_program(demo.root / "launch" / "setup.sh", text)
    running = start(demo)
    wait_for(running.stdout, "setting up")
    os.killpg(running.pid, signal.SIGINT)
    running.wait(timeout=TIMEOUT)
    assert running.returncode == 130
    assert demo.called() == []


def test_tensorboard_that_does_not_start(demo):
    write_program(demo.venv / "bin" / "tensorboard", "echo no port >&2; exit 1")
    done = demo.run("demo.sh")
    assert done.returncode == 1
    assert "no port\ndisttrain: TensorBoard did not start" in done.stderr


def on_a_terminal(command, env):
    """Runs a command on a terminal of its own; returns its exit status and what it showed."""
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read():
        try:
            while part := os.read(ours, 4096):
                shown.extend(part)
        except OSError:
            pass  # Linux says so when the last writer has closed the terminal

    running = subprocess.Popen(
        command, env=env, cwd="/", stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    status = running.wait(timeout=TIMEOUT)
    reader.join(timeout=TIMEOUT)
    os.close(ours)
    return status, shown.decode()


def test_with_horovod_rank_zero_has_the_terminal(demo):
    """The real horovodrun, on a training that needs neither TensorFlow nor time."""
    if not (ROOT / ".venv" / "bin" / "horovodrun").exists():
        skip_or_fail("Horovod is not installed in .venv")
    for name in ("python", "horovodrun"):
        (demo.venv / "bin" / name).unlink()
    write_program(demo.venv / "bin" / "python", f'exec "{ROOT}/.venv/bin/python" "$@"')
    (demo.venv / "bin" / "horovodrun").symlink_to(ROOT / ".venv" / "bin" / "horovodrun")
    example = demo.root / "disttrain" / "examples" / "images.py"
    example.parent.mkdir(parents=True)
    for package in (example.parent, example.parent.parent):
        (package / "__init__.py").touch()
    example.write_text(
        "import os, sys, time\n"
        "if os.environ['HOROVOD_RANK'] == '1':\n"
        "    time.sleep(5000)\n"  # until horovodrun ends it
        "print('rank', os.environ['HOROVOD_RANK'], sys.stdout.isatty())\n"
        "sys.exit(5)\n"
    )
    script = [demo.root / "launch" / "demo.sh", "--no-serve"]
    status, shown = on_a_terminal(script, demo.env)
    assert status == 5
    assert shown.startswith("rank 0 True\r\ndisttrain: the training failed in process 0")

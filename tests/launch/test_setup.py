"""launch/setup.sh: what it asks for, what it leaves alone, how it keeps Horovod's wheel."""

import fcntl
import hashlib
import os
import re
import subprocess
import tarfile
import time

import psutil
import pytest

from tests.launch.conftest import ROOT, skip_or_fail, write_program

pytestmark = pytest.mark.processes

MENDED = hashlib.sha256((ROOT / "launch" / "mend_horovod.py").read_bytes()).hexdigest()[:8]
KEY = f"horovod-0.28.1+disttrain.m{MENDED}-cp311-tensorflow-2.21.0-gloo-{os.uname().machine}"
WHEEL = "horovod-0.28.1+disttrain-cp311-cp311-linux_x86_64.whl"

# Answers as the Python of a finished .venv would, and writes down what it was asked. Asked for the
# installed versions it is called with `-` alone; asked to try Horovod, with one argument more.
FAKE_PYTHON = r"""
here=$(dirname "$0")
echo "python $*" >>"$CALLS"
case "$*" in
  *version_info*) echo 3.11 ;;
  *sysconfig*) echo "$here" ;;
  -) cat >/dev/null; cat "$here/versions" ;;
  '- '*) cat >/dev/null; [[ -z ${HOROVOD_BROKEN:-} ]] ;;
  *' download '*)
    while [[ $1 != --dest ]]; do shift; done
    cp "$here/horovod.tar.gz" "$2/horovod-0.28.1.tar.gz" ;;
  *' wheel '*)
    [[ -z ${BUILD_FAILS:-} ]] || { echo "error: half a file"; exit 1; }
    while [[ $1 != --wheel-dir ]]; do shift; done
    mkdir "$2" && touch "$2/horovod-0.28.1+disttrain-cp311-cp311-linux_x86_64.whl"
    grep -hr . "$3"/horovod >>"$CALLS"
    env | grep ^HOROVOD_ >>"$CALLS" ;;
esac
"""


def fake_venv(machine, versions="cp311 2.21.0 0.28.1"):
    """Gives the machine's clone a .venv that setup.sh takes for sound."""
    python = write_program(machine.venv / "bin" / "python", FAKE_PYTHON)
    write_program(machine.venv / "bin" / "horovodrun", "")
    write_program(machine.venv / "bin" / "pip", "", shell=f"{python}")
    (machine.venv / "bin" / "versions").write_text(f"{versions} 12")
    return machine


def fake_source(machine):
    """What `pip download` brings: what setup.sh itself changes of Horovod."""
    operations = machine.root.parent / "horovod-0.28.1" / "horovod" / "tensorflow" / "mpi_ops.cc"
    operations.parent.mkdir(parents=True)
    include = '#include "tensorflow/compiler/xla/stream_executor/stream.h"\n'
    operations.write_text(f"{include}#else\n")
    with tarfile.open(machine.venv / "bin" / "horovod.tar.gz", "w:gz") as archive:
        archive.add(machine.root.parent / "horovod-0.28.1", "horovod-0.28.1")


def cached_wheel(machine, key=KEY):
    folder = machine.cache / key
    folder.mkdir(parents=True)
    (folder / WHEEL).touch()


def compiler(machine):
    machine.program("c++", "")
    machine.program("make", "")


def assert_one_sentence(done, *words):
    """An error is one sentence on standard error that says what to do, and exit status 1."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("disttrain: ")
    assert done.stderr.endswith(".\n")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def assert_nothing_left(machine):
    assert list(machine.tmp.iterdir()) == []
    assert [entry.name for entry in machine.cache.glob("*") if entry.name != "lock"] == []


# --- What is missing ---------------------------------------------------------------------------


def test_no_compiler(machine):
    machine.program("make", "")
    assert_one_sentence(machine.run("setup.sh"), "no C++ compiler found", "install one", "g++")
    assert not machine.venv.exists()
    assert_nothing_left(machine)


def test_no_make(machine):
    machine.program("c++", "")
    assert_one_sentence(machine.run("setup.sh"), "make not found", "install it")
    assert not machine.venv.exists()


def test_no_python(machine):
    machine.remove("python3.11")
    assert_one_sentence(machine.run("setup.sh"), "no Python 3.11", "install one")


def test_a_python_that_is_found_but_does_not_run_is_passed_over(machine):
    machine.program("python3.11", "exit 127")
    machine.program("python3.10", "exit 127")
    machine.program("python3", "echo 3.12")
    assert_one_sentence(machine.run("setup.sh"), "no Python 3.11", "install one")
    machine.program("python3", "echo 3.11")
    assert_one_sentence(machine.run("setup.sh"), "no C++ compiler found")


def test_a_python_without_the_venv_module(machine):
    machine.program("python3.11", 'case "$*" in *version_info*) echo 3.11 ;; *) exit 1 ;; esac')
    assert_one_sentence(machine.run("setup.sh"), "lacks the venv module", "python3.11-venv")


@pytest.mark.parametrize("answer", ["exit 127", "echo 3.12"])
def test_python_chosen_by_name_is_not_replaced_by_another(machine, answer):
    chosen = machine.program("chosen", answer)
    done = machine.run("setup.sh", PYTHON=str(chosen))
    assert_one_sentence(done, f"PYTHON={chosen}", "set PYTHON")


def test_too_little_disk(machine):
    compiler(machine)
    machine.remove("df")
    machine.program("df", "printf 'Filesystem x\\nnone 9 9 2097152 1%% /\\n'")
    done = machine.run("setup.sh")
    assert_one_sentence(done, "2048 MB free", "are needed", "free some disk space")
    assert not machine.venv.exists()


def test_an_unknown_option(machine):
    assert_one_sentence(machine.run("setup.sh", "--fast"), "--fast", "--check")


def test_no_network_and_a_moved_venv_made_anew(machine):
    compiler(machine)
    fake_venv(machine)
    moved = machine.root / "elsewhere"
    machine.venv.rename(moved)
    moved.rename(machine.venv)
    pip = machine.venv / "bin" / "pip"
    pip.write_text(pip.read_text().replace("a clone", "another clone"))
    done = machine.run(
        "setup.sh",
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_CONFIG_FILE=os.devnull,
        PIP_RETRIES="0",
    )
    assert_one_sentence(done, "cannot reach its package index", "connect this machine")
    assert "making it anew" in done.stdout
    assert not (machine.venv / "bin" / "versions").exists()
    assert not (machine.venv / "setup.stamp").exists()
    assert subprocess.run([machine.venv / "bin" / "python", "-c", ""]).returncode == 0
    assert_nothing_left(machine)


def test_a_check_that_fails_leaves_the_old_venv(machine):
    fake_venv(machine)
    write_program(machine.venv / "bin" / "python", "exit 127")
    assert_one_sentence(machine.run("setup.sh"), "no C++ compiler found")
    assert (machine.venv / "bin" / "versions").exists()


# --- The wheel ---------------------------------------------------------------------------------


def key(machine, versions="cp311 2.21.0 none", **env):
    fake_venv(machine, versions)
    done = machine.run("setup.sh", "--print-key", **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_key_tells_apart_python_tensorflow_horovod_and_gpu_support(machine):
    keys = [key(machine), key(machine, "cp310 2.21.0 none"), key(machine, "cp311 2.21.1 none")]
    assert keys[0] == KEY
    machine.program("nvidia-smi", "echo 'GPU 0: one'")
    assert key(machine) == KEY  # no nvcc: the same Gloo build
    machine.program("nvcc", "echo 'Cuda compilation tools, release 12.9, V12.9.1'")
    keys.append(key(machine))
    assert "nccl-cuda12.9" in keys[-1]
    assert key(machine, DISTTRAIN_NCCL="0") == KEY
    machine.program("nvcc", "echo 'Cuda compilation tools, release 13.0, V13.0.88'")
    assert key(machine) == KEY  # not the CUDA of TensorFlow
    machine.program("nvidia-smi", "echo 'No devices found.'; exit 6")
    assert key(machine) == KEY
    script = machine.root / "launch" / "setup.sh"
    script.write_text(script.read_text().replace("horovod=0.28.1", "horovod=0.28.2"))
    keys.append(key(machine))
    assert len(set(keys)) == 5


def test_a_cached_wheel_is_installed_without_a_compiler(machine):
    fake_venv(machine)
    cached_wheel(machine)
    done = machine.run("setup.sh")
    assert done.returncode == 0, done.stderr
    assert any(f"{KEY}/{WHEEL}" in call for call in machine.called())
    assert not any(" wheel " in call for call in machine.called())


def test_a_build_is_kept_once_it_has_run(machine):
    fake_venv(machine)
    fake_source(machine)
    compiler(machine)
    done = machine.run("setup.sh")
    assert done.returncode == 0, done.stderr + done.stdout
    assert [entry.name for entry in (machine.cache / KEY).iterdir()] == [WHEEL]
    called = machine.called()
    calls = "\n".join(called)
    assert re.search(r"mend_horovod\.py \S+/source\n(.*\n)*.* wheel .*/source\n", calls), calls
    assert f"HOROVOD_LOCAL_VERSION=disttrain.m{MENDED}" in called
    assert {"HOROVOD_WITH_GLOO=1", "HOROVOD_WITHOUT_MPI=1"} <= set(called)
    assert list(machine.tmp.iterdir()) == []


def test_a_gpu_and_its_nvcc_make_a_build_with_nccl(machine):
    fake_venv(machine)
    fake_source(machine)
    compiler(machine)
    machine.program("nvidia-smi", "echo 'GPU 0: one'")
    machine.program("nvcc", "echo '#$ TOP=/opt/cuda'; echo 'tools, release 12.9, V12.9.1'")
    done = machine.run("setup.sh")
    assert done.returncode == 0, done.stderr + done.stdout
    called = machine.called()
    assert any("install -e" in call and "tensorflow[and-cuda]" in call for call in called)
    assert {"HOROVOD_GPU_OPERATIONS=NCCL", "HOROVOD_CUDA_HOME=/opt/cuda"} <= set(called)
    assert any("AsGpuStreamValue(Stream* stream) {" in call for call in called)
    assert "Gloo alone" not in done.stdout


@pytest.mark.parametrize("release", [None, "13.0"])
def test_a_gpu_without_a_fitting_nvcc_is_said_to_use_gloo(machine, release):
    fake_venv(machine)
    cached_wheel(machine)
    machine.program("nvidia-smi", "echo 'GPU 0: one'")
    if release:
        machine.program("nvcc", f"echo 'tools, release {release}, V{release}'")
    done = machine.run("setup.sh")
    assert done.returncode == 0, done.stderr
    assert "Gloo alone, not NCCL" in done.stdout
    assert ("of CUDA 13.0" in done.stdout) == (release is not None)


@pytest.mark.parametrize("fault", ["BUILD_FAILS", "HOROVOD_BROKEN"])
def test_a_build_that_fails_or_does_not_run_is_not_kept(machine, fault):
    fake_venv(machine)
    fake_source(machine)
    compiler(machine)
    done = machine.run("setup.sh", **{fault: "1"})
    assert_one_sentence(done, "Horovod failed", "setup.log")
    assert ("half a file" in done.stdout) == (fault == "BUILD_FAILS")
    assert_nothing_left(machine)
    assert machine.run("setup.sh", "--check").returncode == 1
    assert machine.run("setup.sh").returncode == 0


def test_a_cached_wheel_that_does_not_run_is_built_anew(machine):
    fake_venv(machine)
    fake_source(machine)
    compiler(machine)
    cached_wheel(machine)
    done = machine.run("setup.sh", HOROVOD_BROKEN="1")
    assert "building it anew" in done.stdout
    assert any(" wheel " in call for call in machine.called())


# --- Again -------------------------------------------------------------------------------------


def state(folder):
    """Every file's size and time of change, byte-compiled files aside: any Python writes them."""
    return {
        path: (found.st_size, found.st_mtime_ns)
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts and path.is_file()
        for found in [path.stat()]
    }


def finished(machine):
    fake_venv(machine)
    cached_wheel(machine)
    assert machine.run("setup.sh").returncode == 0
    machine.calls.write_text("")
    return machine


def test_a_second_run_changes_nothing(machine):
    finished(machine)
    before = state(machine.root) | state(machine.cache)
    done = machine.run("setup.sh")
    assert (done.returncode, done.stdout) == (0, "disttrain: .venv is up to date\n")
    assert state(machine.root) | state(machine.cache) == before
    assert not any("install" in call for call in machine.called())


@pytest.mark.parametrize("name", ["setup.cfg", "pyproject.toml", "launch/setup.sh"])
def test_a_changed_file_is_noticed(machine, name):
    finished(machine)
    with open(machine.root / name, "a") as file:
        file.write("\n# changed\n")
    assert machine.run("setup.sh", "--check").returncode == 1
    assert machine.run("setup.sh").returncode == 0
    assert any("pip" in call and "install -e" in call for call in machine.called())
    assert not any(WHEEL in call for call in machine.called())  # it is the right one already
    assert machine.run("setup.sh", "--check").returncode == 0


def test_another_tensorflow_gets_another_horovod(machine):
    finished(machine)
    newer = KEY.replace("2.21.0", "2.21.1")
    cached_wheel(machine, newer)
    (machine.venv / "bin" / "versions").write_text("cp311 2.21.1 0.28.1 12")
    assert machine.run("setup.sh").returncode == 0
    assert any(newer in call for call in machine.called())


def test_a_run_waits_for_another(machine):
    finished(machine)
    with open(machine.root / "setup.cfg", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [machine.root / "launch" / "setup.sh"], env=machine.env, stdout=subprocess.PIPE
        )
        assert b"another setup is at work here" in waiting.stdout.readline()
        script = psutil.Process(waiting.pid)
        while waiting.poll() is None and "flock" not in [one.name() for one in script.children()]:
            time.sleep(0.01)
        assert waiting.poll() is None
    with waiting:
        assert b"up to date" in waiting.stdout.read()


def test_a_second_run_in_this_repository_changes_nothing():
    script = ROOT / "launch" / "setup.sh"
    if subprocess.run([script, "--check"], capture_output=True).returncode != 0:
        skip_or_fail(".venv was not made by this launch/setup.sh")
    watched = [ROOT / ".venv" / "bin", *ROOT.glob(".venv/lib/*/site-packages/*.dist-info")]
    before = [state(folder) for folder in watched]
    done = subprocess.run([script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "disttrain: .venv is up to date\n")
    assert [state(folder) for folder in watched] == before

"""Every script: what shellcheck says, and what launch/test.sh runs."""

import os
import pathlib
import shutil
import subprocess
import time

import psutil
import pytest

from tests.launch.conftest import ROOT, skip_or_fail, write_program
from tests.patience import PATIENCE

SCRIPTS = [
    *sorted(ROOT.glob("launch/*.sh")),
    ROOT / "launch" / "slurm.sbatch",
    ROOT / ".ci" / "run",
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_and_mode(script):
    assert os.access(script, os.X_OK)
    if shutil.which("shellcheck") is None:
        skip_or_fail("shellcheck is not installed")
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def checks(machine):
    """A clone whose ruff, shellcheck and pytest write down that they ran."""
    for path in (".venv/bin/ruff", ".venv/bin/python", "launch/setup.sh"):
        name = path.rpartition("/")[2]
        write_program(machine.root / path, f'echo "{name}" "$@" >>"$CALLS"')
    machine.program("find", "echo launch/test.sh")
    return machine


def test_everything_is_checked(checks):
    checks.program("shellcheck", 'echo "shellcheck $*" >>"$CALLS"')
    assert checks.run("test.sh").returncode == 0
    *called, first, second = checks.called()
    assert [*called, *sorted([first, second])] == [
        "setup.sh",
        "ruff check .",
        "ruff format --check .",
        "shellcheck launch/test.sh .ci/run",
        "python -m pytest --half=1",
        "python -m pytest --half=2",
    ]


def test_arguments_are_pytest_s_and_then_only_pytest_runs(checks):
    assert checks.run("test.sh", "-k", "a b", DISTTRAIN_STRICT="1").returncode == 0
    assert checks.called() == ["setup.sh", "python -m pytest -k a b"]


@pytest.mark.parametrize("failing", [1, 2])
def test_either_half_may_fail(checks, failing):
    program = f'echo "half $2 was here"; [[ $* != *--half={failing}* ]] || exit 5'
    write_program(checks.venv / "bin" / "python", program.replace("$2", "$3"))
    done = checks.run("test.sh")
    assert done.returncode == 5
    said = done.stdout.splitlines()[-2:]
    assert said == ["half --half=1 was here", "half --half=2 was here"]


def test_ctrl_c_ends_both_halves(checks):
    program = """
case $3 in
--half=2) echo $$ >"$CALLS.second"; exec sleep 5000 ;;
--half=1) until [[ -s $CALLS.second ]]; do sleep 0.1; done; exit 2 ;;
esac
"""
    write_program(checks.venv / "bin" / "python", program)
    assert checks.run("test.sh").returncode == 2
    second = int(pathlib.Path(f"{checks.calls}.second").read_text())
    end = time.monotonic() + PATIENCE
    while psutil.pid_exists(second) and time.monotonic() < end:
        time.sleep(0.1)
    assert not psutil.pid_exists(second)


def test_a_failing_check_ends_it(checks):
    write_program(checks.venv / "bin" / "ruff", "exit 3")
    assert checks.run("test.sh").returncode == 3
    assert checks.called() == ["setup.sh"]


def test_without_shellcheck_it_says_so_and_fails_where_strict(checks):
    done = checks.run("test.sh")
    assert done.returncode == 0
    assert "skipping shellcheck" in done.stdout
    done = checks.run("test.sh", DISTTRAIN_STRICT="1")
    assert done.returncode == 1
    assert "shellcheck not found; install it" in done.stderr

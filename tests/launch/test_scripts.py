"""Every script: what shellcheck says, and what launch/test.sh runs."""

import os
import shutil
import subprocess

import pytest

from tests.launch.conftest import ROOT, skip_or_fail, write_program

pytestmark = pytest.mark.processes

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


LINT = ["ruff check .", "ruff format --check .", "shellcheck launch/test.sh .ci/run"]


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ([], [*LINT, "python -m pytest -n auto"]),
        (["--all"], [*LINT, "python -m pytest -n auto --all"]),
        (["unit"], [*LINT, "python -m pytest -n auto -m unit"]),
        (["browser", "-x"], [*LINT, "python -m pytest -n auto -m browser -x"]),
        (["exhaustive", "--slice=2/3"], ["python -m pytest -n auto -m exhaustive --slice=2/3"]),
        (["-k", "a b"], ["python -m pytest -k a b"]),
        (["tests/gradients", "--all"], ["python -m pytest tests/gradients --all"]),
    ],
    ids=lambda value: " ".join(value)[:30] or "nothing",
)
def test_each_command_runs_its_checks_and_tests(checks, arguments, called):
    checks.program("shellcheck", 'echo "shellcheck $*" >>"$CALLS"')
    assert checks.run("test.sh", *arguments).returncode == 0
    assert checks.called() == ["setup.sh --check", *called]


def test_the_number_of_workers_can_be_chosen(checks):
    checks.program("shellcheck", "")
    assert checks.run("test.sh", "unit", WORKERS="4").returncode == 0
    assert checks.called()[-1] == "python -m pytest -n 4 -m unit"


def test_setup_runs_only_where_it_would_change_something(checks):
    setup = 'echo "setup.sh" "$@" >>"$CALLS"; [[ ${1:-} != --check ]]'
    write_program(checks.root / "launch" / "setup.sh", setup)
    assert checks.run("test.sh", "-k", "a").returncode == 0
    assert checks.called() == ["setup.sh --check", "setup.sh", "python -m pytest -k a"]


def test_the_status_of_pytest_is_that_of_the_script(checks):
    write_program(checks.venv / "bin" / "python", "exit 5")
    assert checks.run("test.sh").returncode == 5


def test_a_failing_check_ends_it(checks):
    write_program(checks.venv / "bin" / "ruff", "exit 3")
    assert checks.run("test.sh").returncode == 3
    assert checks.called() == ["setup.sh --check"]


def test_without_shellcheck_it_says_so_and_fails_where_strict(checks):
    done = checks.run("test.sh")
    assert done.returncode == 0
    assert "skipping shellcheck" in done.stdout
    done = checks.run("test.sh", DISTTRAIN_STRICT="1")
    assert done.returncode == 1
    assert "shellcheck not found; install it" in done.stderr

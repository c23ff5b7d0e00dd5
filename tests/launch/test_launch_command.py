"""`disttrain launch`: the scripts for who installed with pip."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from disttrain import cli
from disttrain.launching import scripts
from tests._support.timeouts import TIMEOUT
from tests.launch.conftest import ROOT


@pytest.mark.unit
@pytest.mark.parametrize("kind", scripts.KINDS)
def test_each_kind_is_the_file_of_the_repository(kind, capsys):
    assert cli.main(["launch", kind]) == 0
    file, _ = scripts.KINDS[kind]
    assert capsys.readouterr().out == (ROOT / "launch" / file).read_text()


@pytest.mark.unit
def test_no_script_is_forgotten():
    own = {
        "setup.sh",
        "mend_horovod.py",
        "demo.sh",
        "test.sh",
    }  # they belong to the repository alone
    files = {path.name for path in (ROOT / "launch").iterdir() if path.is_file()}
    assert files == own | {file for file, _ in scripts.KINDS.values()}


@pytest.mark.processes
def test_a_copy_runs_and_is_not_written_over(tmp_path, capsys):
    target = tmp_path / "my script.sh"
    assert cli.main(["launch", "local", "--to", str(target)]) == 0
    assert os.access(target, os.X_OK)
    assert subprocess.run([target, "--help"], capture_output=True).returncode == 0
    target.write_text("mine")
    assert cli.main(["launch", "local", "--to", str(target)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert cli.main(["launch", "local", "--to", str(target), "--force"]) == 0
    assert target.read_text() != "mine"


@pytest.mark.unit
def test_a_folder_takes_the_file_by_its_name(tmp_path):
    assert cli.main(["launch", "mpijob", "--to", str(tmp_path)]) == 0
    assert not os.access(tmp_path / "mpijob.yaml", os.X_OK)
    assert cli.main(["launch", "slurm", "--to", str(tmp_path / "none" / "x")]) == 2


@pytest.mark.processes
def test_a_wheel_holds_the_scripts(tmp_path):
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("disttrain", "launch"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, tree]
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, command)],
        check=True,
        timeout=TIMEOUT,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for file, _ in scripts.KINDS.values():
        assert f"disttrain/launching/scripts/{file}" in names

"""`disttrain doctor` as a command: what it prints, and its exit status."""

import json
import os
import subprocess
import sys

import pytest

from disttrain import cli, doctor
from disttrain.doctor.findings import Finding
from tests._support.timeouts import TIMEOUT


@pytest.fixture
def findings(monkeypatch):
    found = [Finding("Keras", "ok", "3.15.1")]
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: found)
    monkeypatch.setenv("COLUMNS", "100")
    return found


@pytest.mark.unit
def test_without_an_error_it_ends_well(findings, capsys):
    findings.append(Finding("NCCL", "warning", "not built", "./launch/setup.sh"))
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "Mend it: ./launch/setup.sh" in printed
    assert printed.splitlines()[-1] == "Ready to train, with 1 warning."


@pytest.mark.unit
def test_an_error_is_told_by_the_exit_status(findings, capsys):
    findings.append(Finding("Port 2", "error", "taken \x1b[31m", "choose another"))
    assert cli.main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "Training would fail: 1 error."
    assert "\x1b" not in printed


@pytest.mark.unit
def test_json_has_everything(findings, capsys):
    findings.append(Finding("Port 2", "error", "taken", "choose another"))
    assert cli.main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "version": 1,
        "healthy": False,
        "findings": [
            {"subject": "Keras", "level": "ok", "message": "3.15.1", "mend": None},
            {"subject": "Port 2", "level": "error", "message": "taken", "mend": "choose another"},
        ],
    }


@pytest.mark.unit
def test_hosts_that_are_none_are_a_mistake(capsys):
    assert cli.main(["doctor", "-H", "a:0"]) == 2
    assert "host1:4" in capsys.readouterr().err


def run(*arguments, **extra):
    command = [os.path.join(os.path.dirname(sys.executable), "disttrain"), "doctor", "--json"]
    done = subprocess.run(
        [*command, *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **extra},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    found = json.loads(done.stdout)["findings"]
    return done.returncode, {one["subject"]: one for one in found}


@pytest.mark.processes
def test_on_this_machine_two_processes_really_reduce():
    status, found = run("--seconds", str(TIMEOUT))
    assert found["TensorFlow"]["level"] == found["Keras"]["level"] == "ok"
    assert found["Reduction"]["level"] == "ok", found["Reduction"]
    assert "have reduced" in found["Reduction"]["message"]
    assert status == 0, found


@pytest.mark.processes
@pytest.mark.exhaustive
def test_a_reduction_that_takes_too_long_and_a_wrong_tf_config_are_errors():
    status, found = run("--seconds", "1", TF_CONFIG="{")
    assert status == 1
    assert "no answer within 1 s" in found["Reduction"]["message"]
    assert "more than 1 s" in found["Python"]["message"]
    assert found["TF_CONFIG"]["level"] == "error"

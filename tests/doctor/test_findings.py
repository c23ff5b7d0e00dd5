"""What the doctor makes of what it sees."""

import contextlib
import json
import socket
import sys
import types

import pytest

from disttrain.doctor import boards, cluster, devices, others, packages, probe
from disttrain.launching.hosts import Host

pytestmark = pytest.mark.unit


def healthy(**changes):
    """What the probe tells of a machine on which nothing is wrong."""
    return {
        "host": "here",
        "python": "3.11.7",
        "executable": sys.executable,
        "versions": {
            "tensorflow": "2.21.0",
            "keras": "3.15.1",
            "tensorboard": "2.21.0",
            "numpy": "2.1.0",
            "horovod": "0.28.1",
            "tensorflow-addons": "0.23.0",
        },
        "broken": {},
        "gpus": [],
        "cuda": "12.5",
        "onednn": True,
        "address": "10.0.0.1",
        "horovod": dict.fromkeys(("gloo", "mpi", "nccl", "ddl", "ccl", "cuda"), False)
        | {"gloo": True},
        "code": "0.1.0 (abc)",
        "compiled": True,
        **changes,
    }


def versions(**changes):
    found = healthy()["versions"]
    return {**found, **{name.replace("_", "-"): value for name, value in changes.items()}}


def by_subject(findings):
    return {one.subject: one for one in findings}


def test_a_healthy_machine_has_no_complaints():
    found = list(packages.check(healthy()))
    assert {one.level for one in found} == {"ok"}
    assert all(one.mend is None for one in found)
    horovod = by_subject(found)["Horovod"]
    assert horovod.message == "0.28.1; controllers Gloo; operations Gloo"


@pytest.mark.parametrize(
    ("changes", "subject", "level", "mend"),
    [
        ({"python": "3.12.1"}, "Python", "error", "PYTHON=python3.11"),
        ({"versions": versions(tensorflow=None)}, "TensorFlow", "error", "pip install"),
        ({"versions": versions(tensorflow="2.20.0")}, "TensorFlow", "error", ">=2.21,<2.22"),
        ({"broken": {"tensorflow": "ImportError: x"}}, "TensorFlow", "error", "pip install"),
        ({"versions": versions(keras="2.15.0")}, "Keras", "error", "keras>=3.12"),
        ({"versions": versions(tensorboard=None)}, "TensorBoard", "warning", "pip install"),
        ({"versions": versions(horovod=None)}, "Horovod", "note", "launch/setup.sh"),
        ({"broken": {"horovod": "NotFoundError: x"}}, "Horovod", "error", "launch/setup.sh"),
        ({"horovod": dict.fromkeys(healthy()["horovod"], False)}, "Horovod", "error", "setup.sh"),
        ({"versions": versions(tensorflow_addons=None)}, "Addons", "note", "disttrain[addons]"),
        ({"broken": {"tensorflow-addons": "E: x"}}, "Addons", "warning", "disttrain[addons]"),
        ({"broken": {"disttrain": "E: x"}}, "disttrain", "error", "pip install -e ."),
        ({"compiled": False}, "disttrain", "note", "python -m disttrain.kernels"),
    ],
)
def test_each_complaint_has_what_mends_it(changes, subject, level, mend):
    found = by_subject(packages.check(healthy(**changes)))
    assert found[subject].level == level
    assert mend in found[subject].mend
    assert all(one.level == "ok" for name, one in found.items() if name != subject)


def test_a_python_that_does_not_even_start_is_an_error():
    (found,) = packages.check({"failed": "No module named disttrain"})
    assert (found.level, found.mend) == ("error", "./launch/setup.sh")


# GPUs.


@pytest.mark.parametrize(
    ("seen", "nccl", "levels"),
    [
        (["H", "H"], True, {"GPUs": "ok", "NCCL": "ok"}),
        (["H"], True, {"GPUs": "warning", "NCCL": "ok"}),
        (["H", "H"], False, {"GPUs": "ok", "NCCL": "warning"}),
    ],
)
def test_gpus_that_are_not_used_are_told(monkeypatch, seen, nccl, levels):
    monkeypatch.setattr(devices, "_nvidia_smi", lambda: ("550.1", ["H", "H"]))
    told = healthy(gpus=seen, horovod={**healthy()["horovod"], "nccl": nccl})
    found = by_subject(devices.check(told))
    assert {name: one.level for name, one in found.items()} == levels
    assert "550.1" in found["GPUs"].message
    assert all((one.mend is not None) == (one.level != "ok") for one in found.values())


def test_without_gpus_the_cpu_is_right(monkeypatch):
    monkeypatch.setattr(devices, "_nvidia_smi", lambda: None)
    for onednn in (True, None):
        (found,) = devices.check(healthy(onednn=onednn))
        assert found.level == "ok"


def test_a_cpu_whose_fast_operations_are_off_is_told(monkeypatch):
    monkeypatch.setattr(devices, "_nvidia_smi", lambda: None)
    found = by_subject(devices.check(healthy(onednn=False)))
    assert {name: one.level for name, one in found.items()} == {"GPUs": "ok", "oneDNN": "note"}
    assert found["oneDNN"].mend.startswith("export TF_ENABLE_ONEDNN_OPTS=1")


@pytest.mark.parametrize("chosen", ["0", "1"])
def test_who_has_chosen_is_not_told_of_fast_operations(chosen, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", chosen)
    assert probe._onednn() is None


@pytest.mark.parametrize(("used", "machine"), [(True, "x86_64"), (False, "x86_64"), (None, "arm")])
def test_tensorflow_is_asked_whether_it_uses_onednn(used, machine, monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    monkeypatch.setattr(probe.platform, "machine", lambda: machine)
    name = "tensorflow.python.util._pywrap_util_port"
    port = types.SimpleNamespace(IsMklEnabled=lambda: used)
    monkeypatch.setattr(probe.importlib, "import_module", {name: port}.__getitem__)
    assert probe._onednn() is used


# TensorBoard.


class Point:
    def __init__(self, name, error=None):
        self.name, self.error = name, error
        self.dist = type("Distribution", (), {"name": f"{name}-package"})

    def load(self):
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    ("points", "level", "mend"),
    [
        ([Point("disttrain"), Point("other")], "ok", None),
        ([Point("other")], "warning", "--force-reinstall"),
        ([Point("disttrain", ImportError("x"))], "warning", "--force-reinstall"),
        ([Point("disttrain"), Point("b", KeyError("x"))], "warning", "pip uninstall b-package"),
    ],
)
def test_the_plugin_is_looked_for_as_tensorboard_does(monkeypatch, points, level, mend):
    monkeypatch.setattr(boards.importlib.metadata, "entry_points", lambda group: points)
    (found,) = boards.check()
    assert found.level == level
    assert (mend is None and found.mend is None) or mend in found.mend


# TF_CONFIG and ports.


def config(workers, index=0):
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


@contextlib.contextmanager
def taken():
    with socket.socket() as one:
        one.bind(("", 0))
        one.listen(1)
        yield one.getsockname()[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (config(["a:1", "b:1"], 2), "index 2, outside of 0 to 1"),
        (config(["a:1", "a:1"]), "twice"),
        (config(["a:1", "localhost:1"]), "localhost beside other hosts"),
        ("{", "not JSON"),
    ],
)
def test_a_wrong_tf_config_is_an_error(monkeypatch, text, words):
    monkeypatch.setenv("TF_CONFIG", text)
    (found,) = cluster.check()
    assert found.level == "error"
    assert words in found.message
    assert "multi_worker.sh" in found.mend


def test_the_port_of_a_right_one_has_to_be_free(monkeypatch):
    with taken() as port:
        monkeypatch.setenv("TF_CONFIG", config([f"localhost:{port}", "localhost:1"]))
        right, wrong = cluster.check()
        assert right.level == "ok"
        assert "worker 0 of 2" in right.message
        assert wrong.level == "error"
        assert f"sport = :{port}" in wrong.mend
    _, free = cluster.check()
    assert free.level == "ok"


@pytest.mark.parametrize(("port", "level"), [(0, "error"), (70000, "error")])
def test_a_port_that_is_none(monkeypatch, port, level):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    unset, found = cluster.check(port)
    assert unset.level == "ok"
    assert found.level == level


# Other hosts.


def test_hosts_that_run_the_same_are_fine():
    (found,) = others.check(healthy(), [others.Reached("b", None, healthy(host="b"))])
    assert found.level == "ok"


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({"versions": versions(keras="3.14.0")}, "keras 3.14.0 (here 3.15.1)"),
        ({"versions": versions(horovod=None)}, "horovod is missing (here 0.28.1)"),
        ({"python": "3.10.2"}, "Python 3.10.2 (here 3.11.7)"),
        ({"code": "0.1.0 (def)"}, "disttrain 0.1.0 (def) (here 0.1.0 (abc))"),
    ],
)
def test_other_versions_are_an_error_with_the_copy_that_mends_it(there, words):
    (found,) = others.check(healthy(), [others.Reached("b", None, healthy(**there))])
    assert found.level == "error"
    assert words in found.message
    assert found.mend.startswith("rsync -a ")
    assert " b:" in found.mend


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("root@b: Permission denied (publickey).", "ssh-copy-id b"),
        ("ssh: connect to host b port 22: Connection refused", "systemctl start ssh"),
        ("ssh: Could not resolve hostname b", "getent hosts b"),
        ("ssh: connect to host b port 22: Connection timed out", "ping b"),
        ("Host key verification failed.", "ssh-keygen -R b"),
        ("something else", "ssh -v b true"),
    ],
)
def test_a_host_that_ssh_does_not_reach(said, mend):
    (found,) = others.check(healthy(), [others.Reached("b", said, {})])
    assert found.level == "error"
    assert said in found.message
    assert mend in found.mend


def test_a_host_without_this_python():
    gone = {"failed": "bash: line 1: /x/python: No such file or directory"}
    (found,) = others.check(healthy(), [others.Reached("b", None, gone)])
    assert found.level == "error"
    assert "rsync" in found.mend


@pytest.mark.parametrize(("hosts", "level"), [(["b", "c"], "error"), (["b"], "ok")])
def test_a_host_that_takes_its_name_for_itself(hosts, level):
    reached = [others.Reached(name, None, healthy(address="127.0.1.1")) for name in hosts]
    found = list(others.check(healthy(), reached))
    assert found[0].level == level
    if level == "error":
        assert "127.0.1.1" in found[0].message
        assert "/etc/hosts" in found[0].mend


def test_a_mended_horovod_needs_no_name():
    mended = healthy(address="127.0.1.1", versions=versions(horovod="0.28.1+disttrain"))
    reached = [others.Reached(name, None, mended) for name in ("b", "c")]
    assert [one.level for one in others.check(mended, reached)] == ["ok", "ok"]


def test_this_machine_is_reached_without_ssh():
    reached = others.reach([Host("localhost")], (None, None), 1)
    (found,) = others.check(healthy(), reached)
    assert (found.subject, found.level) == ("Host localhost", "ok")


def test_a_probe_that_prints_nothing_says_why():
    assert probe.read("noise\n", "a\nNo module named disttrain\n") == {
        "failed": "No module named disttrain"
    }
    assert probe.read("noise\ndisttrain-probe: {}\n", "") == {}

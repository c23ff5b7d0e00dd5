"""The walls of the house: what imports what, and what an import costs."""

import pathlib
import re
import subprocess
import sys

import pytest

import disttrain
from tests._support.timeouts import TIMEOUT

ROOT = pathlib.Path(__file__).resolve().parents[1]
IMPORT = re.compile(r"^\s*(?:import|from)\s+([\w.]+)", re.MULTILINE)


def imports(folder):
    """`(file, module)` of each import statement in a folder."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for module in IMPORT.findall(path.read_text()):
            yield path.relative_to(ROOT).as_posix(), module


def modules_after(statement):
    """Names of all modules that a new Python has loaded after a statement."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    return set(result.stdout.split())


@pytest.mark.unit
def test_every_public_name_can_be_imported():
    for name in disttrain.__all__:
        assert getattr(disttrain, name) is not None
    assert set(disttrain.__all__) <= set(dir(disttrain))


@pytest.mark.unit
def test_a_name_that_does_not_exist_is_an_attribute_error():
    assert not hasattr(disttrain, "Traner")


@pytest.mark.processes
def test_importing_disttrain_loads_neither_tensorflow_nor_keras():
    loaded = modules_after("import disttrain")
    assert not loaded & {"tensorflow", "keras", "numpy", "horovod"}


@pytest.mark.processes
def test_the_plugin_loads_no_tensorflow():
    loaded = modules_after("import tensorboard_plugin.loader, tensorboard_plugin.plugin")
    assert not loaded & {"tensorflow", "keras", "disttrain"}


@pytest.mark.unit
def test_horovod_is_imported_in_one_module_alone():
    found = {path for path, module in imports("disttrain") if module.split(".")[0] == "horovod"}
    assert found == {"disttrain/replication/horovod.py"}


@pytest.mark.unit
def test_the_plugin_imports_neither_tensorflow_nor_the_trainer():
    forbidden = {"tensorflow", "keras", "disttrain"}
    found = [(p, m) for p, m in imports("tensorboard_plugin") if m.split(".")[0] in forbidden]
    assert found == []


@pytest.mark.unit
def test_arrows_point_one_way():
    """What lies lower does not import what lies higher."""
    order = [
        ("disttrain.heartbeat", "disttrain.agreement", "disttrain.optional", "disttrain.tracing"),
        ("disttrain.replication", "disttrain.gradients", "disttrain.schedules"),
        ("disttrain.optimizers", "disttrain.losses", "disttrain.data", "disttrain.batches"),
        ("disttrain.custom_step",),
        ("disttrain.custom_checks",),
        ("disttrain.telemetry", "disttrain.task"),
        ("disttrain.checkpoints",),
        ("disttrain.train_step",),
        ("disttrain.eval_step", "disttrain.callbacks", "disttrain.progress"),
        ("disttrain.custom_run",),
        ("disttrain.loop", "disttrain.peers"),
        ("disttrain.summary", "disttrain.range_test"),
        ("disttrain.trainer",),
        ("disttrain.experiments.shared",),
        (
            "disttrain.experiments.comparisons",
            "disttrain.experiments.searches",
            "disttrain.experiments.trajectories",
        ),
        ("disttrain.experiments",),
        ("disttrain.launching", "disttrain.examples", "disttrain.inspect"),
        ("disttrain.doctor",),
        ("disttrain.cli",),
    ]
    height = {name: i for i, names in enumerate(order) for name in names}

    def level(module):
        known = [name for name in height if module == name or module.startswith(name + ".")]
        return height[known[0]] if known else None

    checked = 0
    for path, module in imports("disttrain"):
        own = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        here, there = level(own), level(module)
        if here is not None and there is not None:
            checked += 1
            assert there <= here, f"{path} imports {module}"
    assert checked > 20


@pytest.mark.processes
def test_the_command_says_its_version():
    command = [sys.executable, "-m", "disttrain.cli", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert result.stdout.strip() == f"disttrain {disttrain.__version__}"
    config = (ROOT / "setup.cfg").read_text()
    assert f"version = {disttrain.__version__}\n" in config


@pytest.mark.processes
def test_the_command_without_a_word_says_what_there_is():
    command = [sys.executable, "-m", "disttrain.cli"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert result.returncode == 2
    assert "COMMAND" in result.stderr

"""What the README shows has been run as written."""

import glob
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from tests._support.timeouts import TIMEOUT

#: Asks each module for its help, in one process, because the imports take seconds.
HELP = """
import runpy, sys
modules = sys.argv[1:]
for module in modules:
    sys.argv = [module, "--help"]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        assert ended.code in (0, None), module
    else:
        raise AssertionError(f"{module} does not end with --help")
print(len(modules), "have help")
"""

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def build_model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def parse(record):
    numbers = tf.io.decode_raw(record, tf.float32)
    return numbers[:4], tf.cast(numbers[4], tf.int32)


@pytest.fixture
def namespace(tmp_path, monkeypatch):
    """What the shorter snippets take for granted, in a folder with a few records."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with tf.io.TFRecordWriter("data/one.tfrecord") as file:
        for i in range(2048):
            file.write(np.float32([i % 7, 1, 2, 3, i % 3]).tobytes())
    trainer = disttrain.Trainer(
        build_model,
        optimizer="sgd",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    names = {"glob": glob, "tf": tf, "parse": parse, "trainer": trainer}
    return {**names, "build_model": build_model, "keras": keras, "disttrain": disttrain}


@pytest.mark.graph
@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_runs(number, namespace):
    exec(compile(blocks("python")[number], f"README, block {number}", "exec"), namespace)
    if number == 0:
        assert list(pathlib.Path("runs/first").glob("events.*"))
        assert namespace["trainer"].model.history.history["val_accuracy"][-1] > 0.5
    elif "accumulate_steps" in blocks("python")[number]:
        made = namespace["trainer"]
        made.fit(np.ones((40, 4), np.float32), np.zeros(40, np.int32), batch_size=8, verbose=0)
        assert made.optimizer.iterations.numpy() == 2


@pytest.mark.processes
def test_the_commands_exist():
    commands = "\n".join(blocks("bash"))
    for script in set(re.findall(r"\./(launch/\w+\.sh)", commands + README)):
        assert (ROOT / script).stat().st_mode & 0o111, script
    modules = sorted(set(re.findall(r"python -m ([\w.]+)", commands)))
    assert modules
    result = subprocess.run(
        [sys.executable, "-c", HELP, *modules],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == f"{len(modules)} have help"


@pytest.mark.unit
def test_links_and_pictures_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


@pytest.mark.unit
def test_names_that_the_readme_speaks_of_exist():
    for name in set(re.findall(r"`disttrain\.((?:\w+\.)?\w+)", README)):
        first, _, second = name.partition(".")
        if first != "examples":
            found = getattr(disttrain, first)
            assert not second or hasattr(found, second), name

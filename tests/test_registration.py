"""`keras.models.load_model` knows our classes, whatever is imported first."""

import importlib
import pathlib
import re
import subprocess
import sys

import keras
import pytest

import disttrain
from disttrain import registration
from tests._support.timeouts import TIMEOUT

ROOT = pathlib.Path(__file__).resolve().parents[1]

LOAD = """
import keras, sys
model = keras.models.load_model(sys.argv[1])
assert type(model.optimizer).__module__ == "disttrain.optimizers.distributed"
assert model.optimizer.inner.get_config()["learning_rate"]["class_name"] == "Warmup"
"""


@pytest.mark.unit
def test_the_table_has_every_class_that_is_registered():
    for module in registration.CLASSES:
        importlib.import_module(module)
    known = keras.saving.get_custom_objects()
    found = {(v.__module__, v.__name__) for k, v in known.items() if k.startswith("disttrain>")}
    assert found == {(m, name) for m, names in registration.CLASSES.items() for name in names}
    texts = [path.read_text() for path in (ROOT / "disttrain").rglob("*.py")]
    decorated = re.compile(r'^@(?:[\w.]*serializable\("disttrain"\)|register)\nclass (\w+)', re.M)
    names = {name for text in texts for name in decorated.findall(text)}
    assert "SAM" in names
    assert names <= {name for names in registration.CLASSES.values() for name in names}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    rate = disttrain.schedules.Warmup(0.1, 3)
    optimizer = disttrain.DistributedOptimizer(
        keras.optimizers.Adam(rate), clip=disttrain.ClipByGlobalNorm(1.0), loss_scale="dynamic"
    )
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path


@pytest.mark.processes
@pytest.mark.parametrize(
    "first",
    [
        "import disttrain, keras",
        pytest.param("import keras, disttrain", marks=pytest.mark.exhaustive),
        pytest.param("import disttrain, tensorflow", marks=pytest.mark.exhaustive),
        pytest.param("from disttrain import schedules", marks=pytest.mark.exhaustive),
    ],
)
def test_a_saved_model_loads_whatever_is_imported_first(first, saved):
    command = [sys.executable, "-c", first + LOAD, str(saved)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.unit
def test_a_placeholder_makes_the_real_class():
    sam = disttrain.optimizers.SAM(keras.optimizers.SGD(0.1), rho=0.2)
    make = registration._placeholder("disttrain.optimizers.sam", "SAM").from_config
    assert isinstance(make(sam.get_config()), disttrain.optimizers.SAM)
    clip = registration._placeholder("disttrain.gradients.clipping", "AutoClip")
    assert clip.from_config({"window": 7}) == disttrain.AutoClip(window=7)


@pytest.mark.unit
def test_a_class_that_is_imported_is_not_replaced():
    registration.register_with_keras()
    name = "disttrain>DistributedOptimizer"
    assert keras.saving.get_registered_object(name) is disttrain.DistributedOptimizer

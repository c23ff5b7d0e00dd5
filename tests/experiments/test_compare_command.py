"""`disttrain compare`, and the files that it reads."""

import json
import pathlib
import re
import sys

import keras
import pytest

from disttrain import cli
from disttrain.experiments.comparisons import configuration
from disttrain.schedules import Warmup

MODULE = """
import keras
from tests.experiments import problems

build = problems.build
TRAIN = problems.TRAIN

def data(seed):
    return problems.TRAIN, problems.VALIDATION

def broken():
    return 1 / 0
"""

TOML = """
model = "MODULE:build"
data = "MODULE:data"
loss = "mean_squared_error"
metrics = ["mae"]
epochs = 1
batch_size = 16
seeds = 2
replication = "single"

[optimizers.good]
class = "SGD"
learning_rate = 0.1

[optimizers.scheduled]
class = "SGD"
learning_rate = { class = "Warmup", schedule = 0.01, steps = 3 }

[options]
clip = { class = "ClipByGlobalNorm", limit = 1.0 }
"""

PYTHON = """
import keras
from tests.experiments.problems import TRAIN, VALIDATION, build as build_model, sgd

data = TRAIN
validation_data = VALIDATION
loss = "mean_squared_error"
optimizers = {"good": sgd(0.1), "slow": sgd(0.01)}
seeds, epochs, batch_size, replication = 1, 1, 16, "single"
something_else = 3
options = {"clip": None}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, own_path):
    """A directory with a module of a name of its own, which is also the working directory."""
    name = f"experiment_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder, text=TOML, name="experiment.toml", **changes):
    module = next(folder.glob("experiment_*.py")).stem
    text = text.replace("MODULE", module)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.unit
def test_toml_names_model_data_and_optimizers(folder):
    found = configuration.read(written(folder))
    assert found["build_model"].__name__ == "build"
    assert found["seeds"] == 2
    good, scheduled = (found["optimizers"][name]() for name in ("good", "scheduled"))
    assert isinstance(good, keras.optimizers.SGD)
    assert float(good.learning_rate) == pytest.approx(0.1)
    assert isinstance(scheduled._learning_rate, Warmup)
    assert found["clip"].limit == 1.0
    assert found["optimizers"]["good"]() is not good


@pytest.mark.graph
def test_the_command_compares_and_shows(folder, capsys):
    path = written(folder)
    assert cli.main(["compare", path, "--out", "here"]) == 0
    output = capsys.readouterr().out
    assert "good, seed 1: val_loss" in output
    assert "final val_loss" in output
    assert "ended with a lower val_loss" in output or "No difference in val_loss" in output
    assert "index.html" in output
    assert (folder / "here" / "index.html").exists()
    # Nothing is left to do, and JSON is all that is printed.
    assert cli.main(["compare", path, "--out", "here", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {row["optimizer"] for row in content["summary"]} == {"good", "scheduled"}
    assert len(content["tests"]) == 1


@pytest.mark.graph
def test_python_says_the_same_and_options_overrule_it(folder, capsys):
    path = written(folder, PYTHON, "experiment.py")
    assert cli.main(["compare", path, "--seeds", "2", "--quiet"]) == 0
    assert "seed 1:" not in capsys.readouterr().out
    runs = folder / "experiment-comparison" / "runs"
    assert sorted(p.name for p in runs.glob("*/seed-*")) == ["seed-0", "seed-0", "seed-1", "seed-1"]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({'model = "MODULE:build"': ""}, "does not say what model is"),
        ({":build": ":bild"}, "has no 'bild'"),
        ({"MODULE:build": "no_such_module:build"}, "there is no module 'no_such_module'"),
        ({'"MODULE:build"': "3"}, "model must be a text 'module:function'"),
        ({'loss = "mean_squared_error"': ""}, "does not say which loss"),
        ({"epochs = 1": "epocs = 1"}, "has 'epocs', which means nothing"),
        ({"epochs = 1": "epochs = 0"}, "epochs must be a whole number from 1, not 0"),
        ({'class = "SGD"\nlearning_rate = 0.1': 'class = "SDG"'}, "optimizers.good.class is 'SDG'"),
        ({"learning_rate = 0.1": "rate = 0.1"}, "optimizers.good cannot be made: SGD:"),
        ({'class = "SGD"\nlearning_rate = 0.1': "rate = 1"}, "must be a table with class = 'Adam'"),
        ({"seeds = 2": "seeds = two"}, "is no TOML:"),
        ({"clip =": "klip ="}, "unknown option 'klip'"),
        ({'replication = "single"': 'replication = "tripled"'}, "unknown replication 'tripled'"),
    ],
)
def test_a_wrong_configuration_is_a_sentence_and_status_2(folder, capsys, change, told):
    text = TOML
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    assert cli.main(["compare", written(folder, text)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("disttrain compare: ")
    assert told in captured.err
    assert not captured.out


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("c.yaml", "", "is no .toml or .py file"),
        ("c.py", "x = (", "is no Python:"),
        ("c.py", "data = 1", "does not define build_model, optimizers"),
        ("c.toml", "model = 'm:f'\ndata = 'm:f'", "names no optimizer"),
    ],
)
def test_what_is_no_configuration_is_told(folder, capsys, name, text, told):
    assert cli.main(["compare", written(folder, text, name)]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.unit
def test_a_file_that_is_not_there_is_told(capsys):
    assert cli.main(["compare", "/no/such/file.toml"]) == 2
    assert "there is no file '/no/such/file.toml'" in capsys.readouterr().err


@pytest.mark.unit
def test_what_a_users_own_code_raises_keeps_its_traceback(folder):
    path = written(folder, TOML.replace("MODULE:data", "MODULE:broken"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["compare", path])


@pytest.mark.unit
def test_an_old_python_is_told_what_reads_toml(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    assert cli.main(["compare", written(folder)]) == 2
    assert "pip install tomli, or write the configuration in Python" in capsys.readouterr().err


# docs/experiments.md


def blocks(language):
    text = (pathlib.Path(__file__).resolve().parents[2] / "docs/experiments.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.graph
def test_the_page_on_experiments_runs_as_written(folder):
    """But for fewer seeds and trials."""
    compare, search = (
        next(block for block in blocks("python") if f"experiments.{name}(" in block)
        for name in ("compare", "search")
    )
    names = {}
    exec(compare.replace("range(5)", "range(1)").replace("epochs=5", "epochs=1"), names)
    assert set(names["found"].optimizers) == {"adam", "sgd", "lars"}
    exec(search.replace("trials=6", "trials=1"), names)
    assert set(names["best"].best_parameters) == {"learning_rate", "units", "batch_size"}


@pytest.mark.unit
def test_the_toml_on_the_page_is_read(folder):
    (text,) = blocks("toml")
    module = next(folder.glob("experiment_*.py")).stem
    found = configuration.read(written(folder, text.replace("my_model", module)))
    assert isinstance(found["optimizers"]["sgd"]()._learning_rate, Warmup)
    assert isinstance(found["loss"], keras.losses.SparseCategoricalCrossentropy)
    assert found["target"] == 0.3

"""The image example, run as a user runs it."""

import re

import keras
import numpy as np
import pytest

from disttrain.examples import images
from tests.examples.test_datasets import write_fashion


def accuracy(out):
    """The validation accuracy that was printed last."""
    return float(re.findall(r"Validation accuracy ([\d.]+)%", out)[-1]) / 100


@pytest.mark.graph
def test_two_epochs_of_the_digits_reach_nine_in_ten(capsys, tmp_path):
    images.main(["--epochs", "2", "--batch", "32", "--logdir", str(tmp_path / "run")])
    out = capsys.readouterr().out
    assert re.search(
        r"digits: 1,437 images to train on, 360 to validate; 1 replica \(single\), global batch 32",
        out,
    )
    assert re.search(r"Epoch 2/2 .*val_accuracy", out)
    assert accuracy(out) >= 0.9
    assert str(tmp_path / "run") in out
    assert list((tmp_path / "run").glob("events.*"))


@pytest.mark.graph
def test_mirrored_replicas_reach_the_same(logical_devices, capsys):
    images.main(["--epochs", "2", "--batch", "32", "--replication", "mirrored"])
    out = capsys.readouterr().out
    assert f"{len(logical_devices)} replicas (mirrored), global batch 32" in out
    assert accuracy(out) >= 0.9


@pytest.mark.graph
def test_the_same_seed_prints_the_same_accuracy(tmp_path, capsys):
    write_fashion(tmp_path)
    arguments = ["--dataset", "fashion-mnist", "--data-dir", str(tmp_path), "--batch", "10"]
    lines = []
    for seed in ("3", "3", "4"):
        images.main([*arguments, "--epochs", "1", "--optimizer", "sgd", "--seed", seed])
        lines.append(capsys.readouterr().out.splitlines()[-1])
    assert lines[0] == lines[1] != lines[2]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--dataset", "fashion-mnist", "--data-dir", "nowhere"],
            r"^disttrain: nowhere.*does not exist; install .*dataset-fashion-mnist",
        ),
        (["--replication", "horovod", "--replicas", "2"], r"--replicas goes with.*mirrored"),
        (["--optimizer", "adman"], r"adman"),
        (["--epochs", "-1"], r"epochs.*-1|-1.*epochs"),
        (["--batch", "0"], r"batch.*0"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        images.main(arguments)
    said = str(caught.value) if caught.value.code != 2 else capsys.readouterr().err
    assert re.search(message, said)
    assert "Traceback" not in said


@pytest.mark.unit
def test_an_unknown_data_set_is_refused_by_the_options(capsys):
    with pytest.raises(SystemExit) as caught:
        images.main(["--dataset", "mnits"])
    assert caught.value.code == 2
    assert "'digits', 'fashion-mnist', 'cifar10'" in capsys.readouterr().err.replace(
        "choose from digits, fashion-mnist, cifar10",
        "choose from 'digits', 'fashion-mnist', 'cifar10'",
    )


@pytest.mark.unit
def test_the_schedule_warms_up_and_decays():
    rates = [float(images.schedule(1.0, 100)(step)) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.0, abs=1e-6)
    assert all(np.diff(rates[:11]) > 0)
    assert all(np.diff(rates[10:]) < 0)


@pytest.mark.unit
def test_the_model_has_the_size_that_it_claims():
    model = images.build_model((8, 8, 1))()
    assert isinstance(model, keras.Model)
    assert model.output_shape == (None, 10)
    assert model.count_params() == pytest.approx(60_000, rel=0.6)

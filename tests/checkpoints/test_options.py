"""What `Checkpoint` takes."""

import pytest

import disttrain

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"directory": 3}, TypeError, "directory must be a path"),
        ({"directory": ""}, TypeError, "directory must be a path"),
        ({"every_steps": 0}, ValueError, "every_steps must be a whole number from 1, not 0"),
        ({"every_steps": 2.5}, ValueError, "every_steps must be a whole number"),
        ({"every_steps": True}, ValueError, "every_steps must be a whole number"),
        ({"every_seconds": 0}, ValueError, "every_seconds must be a finite number above 0"),
        ({"every_seconds": float("inf")}, ValueError, "every_seconds must be a finite number"),
        ({"keep": 0}, ValueError, "keep must be a whole number from 1, not 0"),
        ({"best": 1}, TypeError, "best must be"),
        ({"best_mode": "most"}, ValueError, "unknown best_mode 'most'"),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, says):
    with pytest.raises(error, match=says):
        disttrain.Checkpoint(**{"directory": "ckpt", **options})


def test_the_trainer_takes_nothing_else():
    with pytest.raises(TypeError, match=r"checkpoint must be a disttrain\.Checkpoint or None"):
        disttrain.Trainer(lambda: None, loss="mse", checkpoint="ckpt")


@pytest.mark.parametrize(
    ("best", "mode", "value", "than", "better"),
    [
        ("val_loss", "auto", 1.0, 2.0, True),
        ("val_loss", "auto", 2.0, 2.0, False),
        ("val_accuracy", "auto", 1.0, 2.0, False),
        ("val_accuracy", "auto", 3.0, 2.0, True),
        ("val_loss", "max", 3.0, 2.0, True),
        ("val_loss", "auto", float("nan"), None, False),
        ("val_loss", "auto", 9.0, None, True),
    ],
)
def test_which_value_is_better(best, mode, value, than, better):
    options = disttrain.Checkpoint("ckpt", best=best, best_mode=mode)
    assert options.better(value, than) == better


def test_a_change_of_the_working_directory_does_not_move_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = disttrain.Checkpoint("ckpt")
    monkeypatch.chdir("/")
    assert options.directory == str(tmp_path / "ckpt")

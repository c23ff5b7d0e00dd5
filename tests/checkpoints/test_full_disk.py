"""A disk that is really full, while checkpoints and events are written: a small tmpfs."""

import os
import subprocess
import warnings

import numpy as np
import pytest

import disttrain
from disttrain.checkpoints.store import Store
from tests.checkpoints.training import X, Y, build_plain, trainer

pytestmark = pytest.mark.processes


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own, of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("only root may mount a file system, and here not even it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder, left):
    """Leaves so many bytes free."""
    with open(folder / "ballast", "wb") as file:
        free = os.statvfs(folder)
        file.write(bytes(free.f_bavail * free.f_frsize - left))


def fit(made, epochs):
    made.fit(X, Y, batch_size=4, epochs=epochs, verbose=0)


def test_training_goes_on_and_the_old_checkpoint_stays(small_disk):
    directory, logdir = small_disk / "checkpoints", small_disk / "log"
    whole = trainer(None, build_plain, metrics=None)
    fit(whole, 3)

    made = trainer(str(directory), build_plain, metrics=None)
    fit(made, 1)
    before = sorted(Store(made._run._options).names())
    fill(small_disk, 8_000)
    options = {"logdir": str(logdir), "telemetry": disttrain.Telemetry(every=1)}
    going_on = trainer(str(directory), build_plain, metrics=None, **options)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit(going_on, 3)
    texts = [str(one.message) for one in told]
    assert any("checkpoint" in text and "No space left" in text for text in texts), texts
    assert any("event file could not be written" in text for text in texts), texts
    for found, expected in zip(
        going_on.model.get_weights(), whole.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)

    (small_disk / "ballast").unlink()
    assert before[-1] in Store(going_on._run._options).names()
    again = trainer(str(directory), build_plain, metrics=None)
    fit(again, 3)
    for found, expected in zip(again.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)

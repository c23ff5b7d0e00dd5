"""A checkpoint that is not as it was written is found out, and says which file and why."""

import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from disttrain.checkpoints import bundle
from disttrain.checkpoints.bundle import Damaged

pytestmark = pytest.mark.unit

TENSORS = {
    "model/0/kernel": np.arange(600, dtype=np.float32).reshape(20, 30),
    "optimizer/0/iteration": np.asarray(7, np.int64),
    "seeds/0/state": np.asarray([3, 2**40], np.int64),
    "half": np.asarray([1.5, -2.0], tf.bfloat16.as_numpy_dtype),
}


@pytest.fixture
def folder(tmp_path):
    path = str(tmp_path / "step")
    bundle.write(path, TENSORS, {"step": 3})
    return path


def test_what_was_written_is_read_to_the_last_bit(folder):
    assert bundle.verify(folder)["step"] == 3
    found = bundle.read(folder)
    assert found.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert found[name].dtype == array.dtype
        assert found[name].tobytes() == array.tobytes()


def test_tensorflow_reads_the_tensors_by_itself(folder):
    listed = dict(tf.train.list_variables(os.path.join(folder, "state")))
    assert listed["model/0/kernel"] == [20, 30]


FILES = ("state.index", "state.data-00000-of-00001", "manifest.json")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    os.remove(os.path.join(folder, name))
    with pytest.raises(Damaged, match=f"{name}: is missing"):
        bundle.verify(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(folder, name):
    path = os.path.join(folder, name)
    os.truncate(path, os.path.getsize(path) - 5)
    with pytest.raises(Damaged) as caught:
        bundle.verify(folder)
    assert caught.value.file == path


def is_sound(folder):
    try:
        return bundle.verify(folder)["step"] == 3
    except Damaged:
        return False


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_wherever_it_is(folder, name):
    path = pathlib.Path(folder, name)
    sound = path.read_bytes()
    # Every 41st byte keeps the test short.
    for place in range(0, len(sound), 41):
        broken = bytearray(sound)
        broken[place] ^= 1 << (place % 8)
        path.write_bytes(broken)
        if is_sound(folder):
            # White space between JSON values means nothing.
            assert name == "manifest.json"
            assert json.loads(broken) == json.loads(sound)


def test_an_empty_manifest_is_not_a_whole_one(folder):
    open(os.path.join(folder, "manifest.json"), "w").close()
    with pytest.raises(Damaged, match="is not a whole manifest"):
        bundle.verify(folder)


def test_a_manifest_of_a_later_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "VERSION", 99)
    bundle.write(str(tmp_path / "step"), TENSORS, {"step": 3})
    monkeypatch.undo()
    with pytest.raises(Damaged, match="has version 99, and this disttrain reads up to 1"):
        bundle.verify(str(tmp_path / "step"))


def test_tensors_that_tensorflow_cannot_read_are_damage(folder):
    with open(os.path.join(folder, "state.index"), "wb") as file:
        file.write(b"no table")
    with pytest.raises(Damaged, match="cannot be read"):
        bundle.read(folder)


def test_everything_is_flushed_before_it_counts(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(bundle, "flush_path", lambda path: flushed.append(os.path.basename(path)))
    bundle.write(str(tmp_path / "step"), TENSORS, {"step": 3})
    assert sorted(flushed) == sorted([*FILES, "step"])
    assert flushed[-1] == "step"

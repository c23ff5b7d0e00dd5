"""The text example, run as a user runs it."""

import re

import numpy as np
import pytest

from disttrain.examples import text

TINY = ["--epochs", "1", "--layers", "1", "--width", "16", "--length", "16", "--batch", "8"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 60)
    return str(path)


def bits(out):
    """The validation loss that was printed last, bits a byte."""
    return float(re.findall(r"Validation loss ([\d.]+) bits a byte", out)[-1])


@pytest.mark.graph
def test_a_tiny_transformer_learns_something_of_a_text(file, capsys):
    text.main([*TINY, "--learning-rate", "0.02", file])
    out = capsys.readouterr().out
    assert "151 windows of 16 bytes to train on; 1 replica (single), global batch 8" in out
    assert 0 < bits(out) < 7, "a uniform guess costs 8 bits"


@pytest.mark.graph
@pytest.mark.exhaustive
def test_mirrored_replicas_make_the_same_model(file, logical_devices, capsys):
    losses = []
    for replication in ("single", "mirrored"):
        text.main([*TINY, "--optimizer", "sgd", "--replication", replication, file])
        losses.append(bits(capsys.readouterr().out))
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)


@pytest.mark.unit
def test_too_little_text_is_said_in_a_sentence(tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("a few words")
    with pytest.raises(SystemExit, match=r"^disttrain: the text gives 0 windows.*give more text"):
        text.main([*TINY, str(short)])


@pytest.mark.unit
def test_a_missing_file_is_named():
    with pytest.raises(SystemExit, match=r"^disttrain: .*nowhere\.txt"):
        text.main([*TINY, "nowhere.txt"])


@pytest.mark.unit
def test_targets_are_the_next_bytes():
    x, y = text.windows(np.arange(12, dtype=np.uint8), 5)
    np.testing.assert_array_equal(x, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
    np.testing.assert_array_equal(y, [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    assert x.dtype == y.dtype == np.int32


@pytest.mark.unit
def test_files_are_read_one_after_the_other_up_to_a_limit(tmp_path):
    for name, content in (("a", "abc"), ("b", "def"), ("c", "ghi")):
        (tmp_path / name).write_text(content)
    files = [tmp_path / name for name in "abc"]
    assert text.read_bytes(files, 5).tobytes() == b"abcde"
    assert text.read_bytes(files, 100).tobytes() == b"abcdefghi"
    assert len(text.read_bytes([], 1000)) == 1000, "Python's own library by default"

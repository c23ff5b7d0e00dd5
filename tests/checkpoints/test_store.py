"""What is kept, what counts, and what a killed process leaves behind."""

import errno
import os
import pathlib

import numpy as np
import pytest

from disttrain.checkpoints import bundle, store
from disttrain.checkpoints.options import Checkpoint
from disttrain.checkpoints.store import NoneIsGood, Store

pytestmark = pytest.mark.unit


def made(path, **options):
    found = Store(Checkpoint(path / "ckpt", **options))
    found.make()
    return found


def save(where, step, monitor=None):
    return where.save({"x": np.full(50, step, np.float32)}, {"step": step, "monitor": monitor})


def damage(where, name, file="state.data-00000-of-00001"):
    os.truncate(pathlib.Path(where.directory, name, file), 3)


def test_the_newest_is_read(tmp_path):
    where = made(tmp_path)
    for step in (5, 10, 15):
        save(where, step)
    manifest, tensors = where.newest()
    assert manifest["step"] == 15
    assert tensors["x"][0] == 15


def test_an_empty_directory_has_none(tmp_path):
    assert made(tmp_path).newest() is None


def test_so_many_are_kept(tmp_path):
    where = made(tmp_path, keep=2)
    for step in (5, 10, 15, 20):
        save(where, step)
    assert where.names() == ["step-00000015", "step-00000020"]


def test_the_order_is_that_of_steps_not_of_letters(tmp_path):
    where = made(tmp_path, keep=2)
    for step in (99_999_999, 100_000_000, 1_000_000_000):
        save(where, step)
    assert where.names() == ["step-100000000", "step-1000000000"]


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [("val_loss", (0.5, 0.2, 0.4, 0.3), 10), ("val_accuracy", (0.1, 0.3, 0.2, float("nan")), 10)],
)
def test_the_best_is_kept_beside_the_newest(tmp_path, metric, values, best):
    where = made(tmp_path, keep=1, best=metric)
    for step, value in zip((5, 10, 15, 20), values, strict=True):
        save(where, step, {metric: value})
    save(where, 25)
    assert where.names() == [f"step-{best:08d}", "step-00000025"]
    assert where.best_value() == values[1]


def test_a_damaged_one_falls_back_to_the_one_before_and_says_why(tmp_path):
    where = made(tmp_path)
    for step in (5, 10, 15):
        save(where, step)
    damage(where, "step-00000015")
    damage(where, "step-00000010", "manifest.json")
    with pytest.warns(UserWarning, match="is damaged") as warned:
        manifest, _ = where.newest()
    assert manifest["step"] == 5
    said = [str(one.message) for one in warned]
    assert "state.data-00000-of-00001 has 3 bytes where " in said[0]
    assert "'step-00000015'" in said[0]
    assert "manifest.json is not a whole manifest" in said[1]
    assert where.names() == ["step-00000005"]
    assert "damaged-step-00000015" in os.listdir(where.directory)
    # Its steps can be written again.
    save(where, 15)
    assert where.newest()[0]["step"] == 15


def test_if_all_are_damaged_that_is_an_error_and_nothing_is_moved(tmp_path):
    where = made(tmp_path)
    for step in (5, 10):
        save(where, step)
        damage(where, f"step-{step:08d}")
    with pytest.raises(NoneIsGood, match=r"step-00000010/state\.data.*; .*step-00000005/state"):
        where.newest()
    assert len(where.names()) == 2


def test_a_step_that_is_saved_again_takes_the_place_of_the_first_one(tmp_path):
    where = made(tmp_path)
    assert save(where, 5) == "step-00000005"
    assert save(where, 5) == "step-00000005-2"
    assert where.names() == ["step-00000005-2"]
    save(where, 10)
    assert where.names() == ["step-00000005-2", "step-00000010"]


def test_what_was_half_done_is_removed(tmp_path):
    where = made(tmp_path)
    save(where, 5)
    for name in (".writing-step-00000010", ".removing-step-00000001"):
        (tmp_path / "ckpt" / name).mkdir()
        (tmp_path / "ckpt" / name / "state.index").touch()
    assert where.newest()[0]["step"] == 5
    where.clean()
    assert os.listdir(where.directory) == ["step-00000005"]


@pytest.mark.parametrize("phase", ["write_tensors", "write_manifest", "flush"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, phase):
    where = made(tmp_path, keep=1)
    save(where, 5)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bundle, phase, full)
    with pytest.raises(OSError, match="No space left"):
        save(where, 10)
    monkeypatch.undo()
    assert os.listdir(where.directory) == ["step-00000005"]
    assert where.newest()[0]["step"] == 5
    save(where, 10)
    assert where.names() == ["step-00000010"]


def test_it_has_its_name_only_when_all_is_on_the_disk(tmp_path, monkeypatch):
    where, order = made(tmp_path, keep=1), []
    save(where, 5)
    for module, name in ((bundle, "flush_path"), (store, "rename"), (store, "remove")):
        original = getattr(module, name)

        def noting(*args, name=name, original=original):
            order.append((name, os.path.basename(args[0])))
            original(*args)

        monkeypatch.setattr(module, name, noting)
    save(where, 10)
    names = [name for name, _ in order]
    assert names == [*["flush_path"] * 4, "rename", "flush_path", "remove"]
    assert order[5] == ("flush_path", "ckpt")


def test_an_old_one_that_cannot_be_removed_is_no_failure_of_the_new_one(tmp_path, monkeypatch):
    where = made(tmp_path, keep=1)
    save(where, 5)

    def refuse(path, aside):
        raise PermissionError("not allowed")

    monkeypatch.setattr(store, "remove", refuse)
    with pytest.warns(UserWarning, match="an old checkpoint could not be removed"):
        assert save(where, 10) == "step-00000010"

"""Checkpoints as a user of the trainer meets them."""

import errno
import json
import os
import signal
import threading
import time
import types

import keras
import numpy as np
import pytest

import disttrain
from disttrain.checkpoints import bundle, run
from disttrain.checkpoints.comparing import Changed
from disttrain.checkpoints.lock import InUse, Lock
from disttrain.checkpoints.signals import Preempted
from disttrain.checkpoints.store import NoneIsGood
from tests._support.timeouts import TIMEOUT
from tests.checkpoints import training
from tests.checkpoints.training import Settled, assert_same_bits, everything, interrupt

pytestmark = pytest.mark.graph


def fit(made, callbacks=(), epochs=2, **options):
    return made.fit(
        training.X,
        training.Y,
        batch_size=4,
        epochs=epochs,
        verbose=0,
        callbacks=list(callbacks),
        **options,
    )


def names(directory):
    return sorted(name for name in os.listdir(directory) if name.startswith("step-"))


def status(directory):
    return json.loads((directory / "status.json").read_text())


class At(keras.callbacks.Callback):
    """Calls a function after one batch of this process."""

    def __init__(self, batch, function):
        super().__init__()
        self.left, self.function = batch, function

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.function()


def test_checkpoints_come_every_so_many_steps_and_at_the_end(tmp_path):
    saved = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            saved.append(names(tmp_path)[-1:])

    made = training.trainer(tmp_path, kept={"every_steps": 5, "keep": 2})
    fit(made, [Look(), Settled(made)])
    assert names(tmp_path) == ["step-00000020", "step-00000022"]
    assert saved[3] == []
    assert saved[-1] == ["step-00000020"]


def test_without_an_interval_each_epoch_is_saved(tmp_path):
    fit(training.trainer(tmp_path, kept={"every_steps": None, "keep": 9}), epochs=3)
    assert names(tmp_path) == ["step-00000011", "step-00000022", "step-00000033"]


def test_seconds_pass_between_checkpoints(tmp_path, monkeypatch):
    now = [100.0]
    clock = types.SimpleNamespace(monotonic=lambda: now[0], time=time.time)
    monkeypatch.setattr(run, "time", clock)

    class Clock(keras.callbacks.Callback):
        """A step takes a second."""

        def on_train_batch_end(self, batch, logs=None):
            now[0] += 1

    made = training.trainer(tmp_path, kept={"every_steps": None, "every_seconds": 5, "keep": 99})
    fit(made, [Clock(), Settled(made)])
    # The last one is the end's.
    assert [int(name[-8:]) for name in names(tmp_path)] == [5, 10, 15, 20, 22]


def test_the_best_is_there_beside_the_newest(tmp_path, monkeypatch):
    losses = iter([0.5, 0.1, 0.3, 0.4])
    kept = {"every_steps": 100, "keep": 1, "best": "val_loss"}
    made = training.trainer(tmp_path, kept=kept)
    monkeypatch.setattr(made._eval_loop, "evaluate", lambda *_: {"loss": next(losses)})
    fit(made, epochs=4, validation_data=(training.X, training.Y))
    assert names(tmp_path) == ["step-00000022", "step-00000044"]
    other = training.build()
    assert disttrain.checkpoints.load_weights(other, tmp_path, "best", best="val_loss") == 22
    whole = training.trainer()
    fit(whole, epochs=2)
    for one, expected in zip(other.weights, whole.model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), expected.numpy())


def test_the_newest_weights_go_into_any_model_of_the_same_shape(tmp_path):
    made = training.trainer(tmp_path)
    fit(made)
    other = training.build()
    assert disttrain.checkpoints.load_weights(other, tmp_path) == 22
    for one, expected in zip(other.weights, made.model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), expected.numpy())
    with pytest.raises(ValueError, match="the model has other variables"):
        disttrain.checkpoints.load_weights(training.build_plain(), tmp_path)
    with pytest.raises(FileNotFoundError, match="it holds .*step-00000022"):
        disttrain.checkpoints.load_weights(other, tmp_path, "step-00000099")
    with pytest.raises(ValueError, match="say which metric"):
        disttrain.checkpoints.load_weights(other, tmp_path, "best")


def test_a_whole_model_is_exported_or_nothing(tmp_path, monkeypatch):
    made = training.trainer()
    fit(made, epochs=1)
    path = tmp_path / "models" / "last.keras"
    made.export(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(
        loaded.predict(training.X, verbose=0), made.model.predict(training.X, verbose=0)
    )
    before = path.read_bytes()

    def half(model, target):
        with open(target, "wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", half)
    with pytest.raises(OSError, match="No space"):
        made.export(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["last.keras"]
    with pytest.raises(ValueError, match=r"must end in \.keras"):
        made.export(tmp_path / "last.h5")


def damage(directory, name, how):
    path = directory / name / "state.data-00000-of-00001"
    if how == "truncated":
        os.truncate(path, 100)
        return "has 100 bytes where"
    if how == "flipped":
        contents = bytearray(path.read_bytes())
        contents[len(contents) // 2] ^= 4
        path.write_bytes(contents)
        return "does not have the contents that were written"
    path.unlink()
    return "is missing"


@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, how):
    whole = training.trainer()
    fit(whole)
    interrupt(fit, training.trainer, tmp_path, 15)
    newest = names(tmp_path)[-1]
    says = damage(tmp_path, newest, how)
    resumed = training.trainer(tmp_path)
    with pytest.warns(UserWarning, match=f"{newest}.*state.data-00000-of-00001 {says}"):
        fit(resumed)
    assert_same_bits(everything(resumed), everything(whole))


def test_if_all_are_damaged_nothing_begins_anew(tmp_path):
    interrupt(fit, training.trainer, tmp_path, 15)
    for name in names(tmp_path):
        damage(tmp_path, name, "missing")
    with pytest.raises(NoneIsGood, match="or choose another directory to begin anew"):
        fit(training.trainer(tmp_path))
    assert status(tmp_path)["status"] == "failed"
    assert "NoneIsGood" in status(tmp_path)["error"]
    assert len(names(tmp_path)) > 0


def test_a_full_disk_warns_and_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    original, calls = bundle.write_tensors, []

    def sometimes_full(*args):
        calls.append(args)
        if len(calls) in (2, 3):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(*args)

    monkeypatch.setattr(bundle, "write_tensors", sometimes_full)
    made = training.trainer(tmp_path, kept={"every_steps": 3, "keep": 9})
    with pytest.warns(UserWarning, match="could not be saved .*No space left.*goes on") as warned:
        fit(made, [Settled(made)])
    said = [str(one.message) for one in warned if "could not be saved" in str(one.message)]
    assert [text.split(" could")[0] for text in said] == [
        "the checkpoint of step 6",
        "the checkpoint of step 9",
    ]
    assert "step-00000003" in names(tmp_path)
    assert names(tmp_path)[-1] == "step-00000022"
    assert status(tmp_path)["status"] == "finished"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"optimizer": lambda: keras.optimizers.SGD(0.1)},
            "class_name was 'Adam', now 'SGD'.* optimizer no longer has adam/iteration",
        ),
        ({"optimizer": lambda: keras.optimizers.Adam(0.5)}, "learning_rate was .* now 0.5"),
        ({"model": training.build_plain}, r"model no longer has .*batch_normalization/gamma"),
        ({"clip": None}, r"optimizer\.clip was .* now None"),
        ({"loss_scale": None}, "step no longer has distributed_adam/loss_scale"),
        ({"metrics": None}, "metrics no longer has accuracy/total"),
        ({"seed": 3}, "seed was 0, now 3"),
        ({"accumulate_steps": 2}, r"optimizer\.accumulate_steps was 1, now 2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_changed_program_is_told_what_has_changed(saved, change, says):
    with pytest.raises(Changed, match=says):
        fit(training.trainer(saved, **change))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with checkpoints of an interrupted training."""
    directory = tmp_path_factory.mktemp("saved")
    interrupt(fit, training.trainer, directory, 15)
    return directory


def test_an_epoch_of_another_length_is_told_in_the_middle_of_it(saved):
    with pytest.raises(Changed, match=r"data\.steps was 11, now 9"):
        training.trainer(saved).fit(training.X[:36], training.Y[:36], batch_size=4, verbose=0)


def test_a_switched_optimizer_goes_into_the_checkpoint(tmp_path):
    class Switch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                made.switch_optimizer(keras.optimizers.SGD(0.1, momentum=0.9), warmup_steps=3)

    made = training.trainer(tmp_path)
    fit(made, [Switch()])
    manifest = bundle.verify(str(tmp_path / names(tmp_path)[-1]))
    assert "sgd/sequential_dense_kernel_momentum" in str(manifest["variables"])
    # The program begins with Adam again.
    with pytest.raises(Changed, match="class_name was 'SGD', now 'Adam'"):
        fit(training.trainer(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_stops_and_the_rest_follows(tmp_path, number):
    whole = training.trainer()
    history = fit(whole)
    made = training.trainer(tmp_path, kept={"every_steps": 1000})
    with pytest.raises(Preempted) as caught:
        fit(made, [At(15, lambda: os.kill(os.getpid(), number))])
    assert caught.value.code == 128 + number
    found = status(tmp_path)
    assert (found["status"], found["step"], found["epoch"]) == ("preempted", 15, 1)
    assert names(tmp_path) == [found["checkpoint"]] == ["step-00000015"]
    resumed = training.trainer(tmp_path)
    assert fit(resumed).history == history.history
    assert_same_bits(everything(resumed), everything(whole))
    assert status(tmp_path)["status"] == "finished"
    assert status(tmp_path)["step"] == 22


def test_a_signal_between_epochs_stops_there(tmp_path):
    def send(epoch, logs):
        os.kill(os.getpid(), signal.SIGTERM)

    made = training.trainer(tmp_path, kept={"every_steps": 1000})
    with pytest.raises(Preempted):
        fit(made, [keras.callbacks.LambdaCallback(on_epoch_end=send)])
    assert names(tmp_path) == ["step-00000011"]
    assert status(tmp_path)["epoch"] == 1


def test_a_signal_while_the_disk_is_full_still_stops_and_says_what_there_is(tmp_path, monkeypatch):
    made = training.trainer(tmp_path, kept={"every_steps": 4})

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def send():
        made._run._writer.wait()
        monkeypatch.setattr(bundle, "write_tensors", full)
        os.kill(os.getpid(), signal.SIGTERM)

    with (
        pytest.warns(UserWarning, match="the checkpoint of step 6 could not be saved"),
        pytest.raises(Preempted),
    ):
        fit(made, [At(6, send)])
    assert status(tmp_path)["status"] == "preempted"
    assert status(tmp_path)["checkpoint"] == "step-00000004"


def test_a_failure_is_in_the_status_with_rank_and_error(tmp_path):
    interrupt(fit, training.trainer, tmp_path, 6)
    found = status(tmp_path)
    assert (found["status"], found["rank"], found["step"]) == ("failed", 0, 6)
    assert "Interrupted" in found["error"]
    assert found["checkpoint"] == "step-00000004"


def test_a_second_job_in_the_directory_is_refused_and_leaves_no_trace(tmp_path):
    first = Lock(str(tmp_path))
    first.acquire()
    with pytest.raises(InUse, match=f"in use by process {os.getpid()} on .*, started at 2"):
        fit(training.trainer(tmp_path))
    assert os.listdir(tmp_path) == ["lock"]
    first.release()
    fit(training.trainer(tmp_path), epochs=1)


def test_another_trainer_of_the_process_is_refused_while_the_first_one_trains(tmp_path):
    def second():
        with pytest.raises(InUse):
            fit(training.trainer(tmp_path))
        seen.append(status(tmp_path)["status"])

    seen = []
    fit(training.trainer(tmp_path), [At(5, second)], epochs=1)
    assert seen == ["running"]


def test_a_step_waits_for_the_copy_alone(tmp_path, monkeypatch):
    go, original = threading.Event(), bundle.write_tensors

    def slow(*args):
        go.wait(TIMEOUT)
        original(*args)

    monkeypatch.setattr(bundle, "write_tensors", slow)
    made = training.trainer(tmp_path, kept={"every_steps": 3})
    steps = []

    def note():
        steps.append(names(tmp_path))
        go.set()

    fit(made, [At(9, note)], epochs=1)
    # Steps went by while the first one was being written, and their own checkpoints waited.
    assert steps == [[]]
    assert names(tmp_path)[0] == "step-00000003"


def test_a_mirrored_model_is_exported_too(tmp_path, mirrored):
    made = training.trainer(replication=mirrored(2))
    fit(made, epochs=1)
    made.export(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(training.X, verbose=0), made.predict(training.X), atol=1e-6
    )

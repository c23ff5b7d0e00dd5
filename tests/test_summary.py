"""The block at the start of a run, and what processes compare before it."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain import heartbeat, peers, schedules, summary
from disttrain.replication import Topology
from disttrain.schedules.scaling import ScaledRate
from tests._support.tiny_models import CROSSENTROPY, LABELS, X, batches, dense, sgd, trainer_of

ROWS = tf.TensorSpec([None, 4])


def block(output):
    """The lines of the block, label to text."""
    lines = output.splitlines()
    end = [line.startswith("Epoch") for line in lines].index(True)
    return {line[:15].strip(): line[15:].strip() for line in lines[:end]}


@pytest.mark.graph
def test_the_block_says_what_is_about_to_happen(capsys, tmp_path, mirrored):
    trainer = trainer_of(
        replication=mirrored(2),
        optimizer=sgd(schedules.scaled_learning_rate(0.1, 2)),
        clip=disttrain.ClipByGlobalNorm(1.0),
        loss_scale="dynamic",
        compression="bf16",
        accumulate_steps=3,
        logdir=tmp_path / "run",
        checkpoint=disttrain.Checkpoint(tmp_path / "saved"),
    )
    trainer.fit(X, LABELS, batch_size=4)
    seen = block(capsys.readouterr().out)
    assert seen["Replication"] == "mirrored, 2 replicas"
    assert seen["Devices"] == "2 x CPU"
    assert seen["Batch"] == "4 global, 2 for each replica; 3 batches make an update of 12"
    assert seen["Optimizer"] == "SGD"
    assert seen["Learning rate"] == "0.2, scaled for 2 replicas by the linear rule, 2 times"
    assert seen["Precision"] == "float32"
    assert seen["Clip"] == "ClipByGlobalNorm(limit=1.0)"
    assert seen["Loss scale"] == "dynamic, 32768 at the first step"
    assert seen["Reduction"] == "mean, travels as bf16"
    assert seen["Logs"] == str(tmp_path / "run")
    assert seen["Checkpoints"] == str(tmp_path / "saved")


@pytest.mark.graph
def test_what_is_not_there_is_said_to_be_none(capsys):
    trainer_of(optimizer="adam").fit(X, LABELS, batch_size=5)
    seen = block(capsys.readouterr().out)
    assert {seen[name] for name in ("Clip", "Loss scale", "Logs", "Checkpoints")} == {"none"}
    assert seen["Learning rate"] == "0.001, not scaled by the number of replicas"


@pytest.mark.graph
def test_it_is_printed_once_and_not_at_all_where_silence_is_wanted(capsys):
    trainer = trainer_of()
    trainer.fit(X, LABELS)
    assert capsys.readouterr().out.count("Replication") == 1
    trainer.fit(X, LABELS)
    assert "Replication" not in capsys.readouterr().out
    trainer_of().fit(X, LABELS, verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.graph
def test_a_batch_that_does_not_divide_is_explained(capsys, mirrored):
    trainer_of(replication=mirrored(3)).fit(X, LABELS, batch_size=10)
    assert block(capsys.readouterr().out)["Batch"] == (
        "10 global, 3 or 4 for each replica; replicas with fewer wait for the others, and a "
        "multiple of 3 keeps all busy"
    )


@pytest.mark.graph
@pytest.mark.parametrize(
    ("data", "size"),
    [
        (lambda: X, 7),
        (lambda: {"a": X[:3]}, 3),
        (lambda: batches(X, LABELS, size=4), 4),
        (lambda: batches(X, LABELS, size=4).shuffle(3).prefetch(2).repeat(), 4),
        (lambda: tf.data.Dataset.from_tensor_slices(X).batch(5, drop_remainder=True), 5),
        (lambda: tf.data.Dataset.from_generator(lambda: [X], output_signature=ROWS), None),
        (lambda: lambda context: None, None),
    ],
)
def test_the_global_batch_is_found(data, size):
    assert summary.batch_of(data(), 7, Topology()) == size


@pytest.mark.graph
@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (
            lambda: keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5),
            "ExponentialDecay, 0.5 at the first step, not scaled by the number of replicas",
        ),
        (
            lambda: schedules.scaled_learning_rate(0.1, 4, rule="sqrt", warmup_steps=10),
            "Warmup, 0.1 at the first step, scaled for 4 replicas by the sqrt rule, 2 times",
        ),
        (
            lambda: schedules.Warmup(
                schedules.scaled_learning_rate(schedules.InverseSqrt(1.0, 4), 3), 5
            ),
            "Warmup, 0 at the first step, scaled for 3 replicas by the linear rule, 3 times",
        ),
    ],
)
def test_a_schedule_s_scaling_is_found(capsys, rate, text):
    trainer_of(optimizer=sgd(rate())).fit(X, LABELS)
    assert block(capsys.readouterr().out)["Learning rate"] == text


@pytest.mark.unit
@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("make", [lambda: 0.1, lambda: schedules.InverseSqrt(0.5, 10)])
def test_a_rate_that_is_scaled_twice_is_refused(make, warmup):
    once = schedules.scaled_learning_rate(make(), 4, warmup_steps=warmup)
    with pytest.raises(ValueError, match=r"was scaled for 4 replicas already, 4 times; hand in"):
        schedules.scaled_learning_rate(once, 4)


@pytest.mark.unit
def test_a_scaled_rate_is_a_number_like_any_other():
    rate = schedules.scaled_learning_rate(0.1, 4)
    assert isinstance(rate, ScaledRate)
    assert rate == pytest.approx(0.4)
    assert type(rate * 2) is float
    assert keras.optimizers.SGD(rate).get_config()["learning_rate"] == pytest.approx(0.4)


# What processes compare.


def peer(**changes):
    known = {"disttrain": "0.1.0 (abc)", "tensorflow": "2.21.0", "horovod": None}
    return dataclasses.replace(peers.Peer("here", ("CPU",), known, "p"), **changes)


@pytest.mark.unit
def test_processes_that_run_the_same_pass():
    peers.check([peer(), peer(host="there")])


@pytest.mark.unit
@pytest.mark.parametrize("package", ["disttrain", "tensorflow", "horovod"])
def test_other_code_on_a_rank_is_an_error_that_names_it(package):
    other = peer(host="there", versions={**peer().versions, package: "other"})
    with pytest.raises(RuntimeError, match=r"rank 2 on there has other") as caught:
        peers.check([peer(), peer(), other])
    assert f"rank 0 on here has {package} {peer().versions[package]}" in str(caught.value)


@pytest.mark.unit
def test_another_program_on_a_rank_is_a_warning():
    with pytest.warns(
        UserWarning, match="rank 0 on here and rank 1 on there run different programs"
    ):
        peers.check([peer(), peer(host="there", program="q")])


class Two:
    """Stands for a replication of two processes, the other of which says what it is told to."""

    topology = Topology(processes=2)
    pulse = heartbeat.Nobody()

    def __init__(self, change):
        self.change = change

    def all_gather(self, array):
        other = bytes(array.astype(np.uint8)).rstrip(b"\0").replace(*self.change)
        return np.stack([array, np.frombuffer(other.ljust(len(array), b"\0"), np.uint8)])


@pytest.mark.unit
def test_processes_meet_before_the_first_step():
    own, other = peers.meet(Two((b'"CPU"', b'"TPU"')))
    assert (own.devices, other.devices) == (("CPU",), ("TPU",))
    assert own.versions["keras"] == keras.__version__
    with pytest.raises(RuntimeError, match="run different code"):
        peers.meet(Two((disttrain.__version__.encode() + b" (", b"9.9.9 (")))


class Everywhere:
    """Stands for Horovod on the chief of two processes that were given the same callbacks."""

    is_chief = True

    def start_equal(self, variables):
        pass

    def any(self, flag):
        return True


@pytest.mark.graph
def test_checkpoints_on_every_rank_are_a_warning(monkeypatch, tmp_path):
    from disttrain import callbacks

    monkeypatch.setattr(callbacks.replication_module, "resolve", lambda _: Everywhere())
    monkeypatch.setattr(callbacks.kernels, "agree", lambda _: None)
    model = dense()
    model.compile(sgd(), CROSSENTROPY)
    saved = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="ModelCheckpoint runs on several processes"):
        model.fit(X, LABELS, callbacks=[callbacks.BroadcastVariables(), saved], verbose=0)

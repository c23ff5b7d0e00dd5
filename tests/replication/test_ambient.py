"""Code that runs in a strategy's scope adopts the strategy, or is refused."""

import json

import numpy as np
import pytest
import tensorflow as tf

from disttrain.replication import ambient, current, resolve
from tests._support.tiny_models import LABELS, X, assert_same_numbers, sgd, trainer_of


@pytest.fixture(autouse=True)
def nothing_launched(monkeypatch):
    for name in ("TF_CONFIG", "HOROVOD_RANK", "HOROVOD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.unit
@pytest.mark.parametrize("wanted", ["auto", "mirrored"])
def test_a_scope_is_adopted(wanted, mirrored):
    made = mirrored(2)
    with made.scope():
        found = resolve(wanted)
        assert found.strategy is made.strategy
        assert found.replicas == 2
        assert resolve(made) is made
        assert resolve(made.strategy).strategy is made.strategy


@pytest.mark.unit
@pytest.mark.parametrize("wanted", ["single", "multi_worker", "horovod"])
def test_another_name_than_the_scope_s_is_refused(wanted, mirrored):
    with mirrored(2).scope(), pytest.raises(ValueError, match=rf"'{wanted}' contradicts.*2 repl"):
        resolve(wanted)


@pytest.mark.unit
def test_another_strategy_than_the_scope_s_is_refused(mirrored):
    other = mirrored(3)
    with mirrored(2).scope():
        for wanted in (other, other.strategy):
            with pytest.raises(ValueError, match=r"contradicts.*Leave the scope"):
                resolve(wanted)


@pytest.mark.unit
def test_a_scope_of_one_device_is_a_single_replica():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        assert resolve("auto").replicas == 1
        assert resolve("single").replicas == 1
        with pytest.raises(ValueError, match=r"'mirrored' contradicts.*1 replica\."):
            resolve("mirrored")


@pytest.mark.unit
@pytest.mark.parametrize("find", [resolve, current], ids=["resolve", "current"])
@pytest.mark.parametrize("by", ["Horovod", "TF_CONFIG"])
def test_a_strategy_of_one_process_is_refused_in_a_job_of_several(by, find, monkeypatch, mirrored):
    made = mirrored(2)
    if by == "Horovod":
        monkeypatch.setenv("HOROVOD_RANK", "0")
        monkeypatch.setenv("HOROVOD_SIZE", "2")
    else:
        task = {"type": "worker", "index": 0}
        text = {"cluster": {"worker": ["one:1", "two:1"]}, "task": task}
        monkeypatch.setenv("TF_CONFIG", json.dumps(text))
    with made.scope(), pytest.raises(ValueError, match=rf"{by} started 2 processes"):
        find()


@pytest.mark.graph
@pytest.mark.parametrize("name", ["auto", pytest.param("mirrored", marks=pytest.mark.exhaustive)])
def test_a_trainer_in_a_scope_evaluates_all_replicas(name, mirrored):
    def numbers(replication):
        trainer = trainer_of(replication=replication, metrics=["accuracy"])
        options = {"validation_data": (X, LABELS), "shuffle": False, "verbose": 0}
        history = trainer.fit(X, LABELS, batch_size=4, epochs=2, **options).history
        first, second = trainer.evaluate(X, LABELS), trainer.evaluate(X, LABELS)
        assert_same_numbers(first, second)
        trainer.switch_optimizer(sgd(0.2))
        trainer.fit(X, LABELS, batch_size=4, shuffle=False, verbose=0)
        weights = np.concatenate([w.ravel() for w in trainer.model.get_weights()])
        return {**history, **{f"own_{k}": v for k, v in first.items()}, "weights": weights}

    made = mirrored(2)
    with made.scope():
        inside = numbers(name)
    assert_same_numbers(inside, numbers(made))
    assert_same_numbers(inside, numbers("single"))


@pytest.mark.graph
def test_a_trainer_made_outside_may_be_used_in_its_own_scope_and_in_no_other(mirrored):
    made, other = mirrored(2), mirrored(3)
    trainer = trainer_of(replication=made)
    expected = trainer.evaluate(X, LABELS)
    with made.scope():
        assert_same_numbers(trainer.evaluate(X, LABELS), expected)
    with other.scope(), pytest.raises(ValueError, match=r"scope of a MirroredStrategy with 3"):
        trainer.evaluate(X, LABELS)


@pytest.mark.unit
def test_variables_made_outside_of_a_scope_that_was_left_are_plain(mirrored):
    made = mirrored(2)
    with made.scope():
        with ambient.leave(made):
            assert not tf.distribute.has_strategy()
            plain = tf.Variable(1.0)
            with made.scope():
                spread = tf.Variable(1.0)
        assert tf.distribute.get_strategy() is made.strategy
        again = tf.Variable(1.0)
    assert not hasattr(plain, "values")
    assert len(spread.values) == len(again.values) == 2

"""The choice of a replication."""

import json

import pytest
import tensorflow as tf

import disttrain
from disttrain.replication import resolve
from disttrain.replication.tf_distribute import TfDistribute

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def nothing_launched(monkeypatch):
    for name in ("TF_CONFIG", "HOROVOD_RANK", "HOROVOD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_alone_on_a_cpu_it_is_one_replica():
    replication = resolve("auto")
    assert (replication.name, replication.replicas) == ("single", 1)
    assert replication.is_chief


def test_horovod_comes_before_tf_config(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "not json")
    monkeypatch.setenv("HOROVOD_RANK", "0")
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"Horovod is not installed.*launch/setup\.sh"):
        resolve("auto")


def test_tf_config_comes_before_gpus(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "not json")
    with pytest.raises(ValueError, match="TF_CONFIG is not JSON"):
        resolve("auto")


def test_a_tf_config_of_one_worker_is_one_replica(monkeypatch):
    text = {"cluster": {"worker": ["one:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(text))
    assert resolve("auto").name == "single"


def test_several_gpus_are_mirrored(monkeypatch, mirrored):
    made = mirrored(2)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0", "GPU:1"])
    monkeypatch.setattr("disttrain.replication.mirrored", lambda: made)
    assert resolve("auto") is made


def test_a_strategy_and_a_replication_are_taken_as_they_are(mirrored):
    made = mirrored(2)
    assert resolve(made) is made
    wrapped = resolve(made.strategy)
    assert isinstance(wrapped, TfDistribute)
    assert (wrapped.name, wrapped.replicas) == ("MirroredStrategy", 2)


def test_anything_else_is_refused_with_the_choice():
    with pytest.raises(ValueError, match="unknown replication 'ddp'.*'horovod'"):
        resolve("ddp")
    with pytest.raises(TypeError, match="replication must be one of"):
        resolve(2)
    with pytest.raises(ValueError, match="ParameterServerStrategy|not supported|CentralStorage"):
        resolve(tf.distribute.experimental.CentralStorageStrategy(["CPU:0"]))


def test_a_strategys_scope_is_the_current_replication(mirrored):
    made = mirrored(2)
    with made.scope():
        assert disttrain.replication.current().replicas == 2
    assert disttrain.replication.current().replicas == 1


def test_horovod_by_itself_is_one_replica():
    pytest.importorskip("horovod", reason="Horovod is not installed")
    replication = resolve("horovod")
    assert (replication.name, replication.replicas, replication.is_chief) == ("horovod", 1, True)

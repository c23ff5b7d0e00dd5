"""What a rank does with the GPUs of its host, without a GPU."""

import warnings

import pytest
import tensorflow as tf

from disttrain.replication import horovod

pytestmark = pytest.mark.unit


@pytest.fixture
def host(monkeypatch):
    """Gives this process GPUs that only have names; returns what was made visible."""
    monkeypatch.delenv("SLURM_GPUS_PER_TASK", raising=False)
    visible = []

    def with_gpus(count):
        gpus = [f"GPU:{number}" for number in range(count)]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
        monkeypatch.setattr(tf.config, "set_visible_devices", lambda one, kind: visible.append(one))
        monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda one, on: None)
        return visible

    return with_gpus


@pytest.mark.parametrize(("rank", "own"), [(0, "GPU:0"), (3, "GPU:3")])
def test_each_rank_of_a_host_has_a_gpu(host, rank, own):
    visible = host(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        horovod._pin_gpu(rank, 4)
    assert visible == [own]


def test_more_ranks_than_gpus_are_told(host):
    visible = host(2)
    with pytest.warns(UserWarning, match="3 ranks on this host share 2 GPUs"):
        horovod._pin_gpu(2, 3)
    assert visible == ["GPU:0"]


def test_slurm_s_tasks_see_their_own_gpus_alone(host, monkeypatch):
    visible = host(1)
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        horovod._pin_gpu(3, 4)
    assert visible == ["GPU:0"]


def test_gpus_that_are_in_use_already_are_told(host, monkeypatch):
    host(1)

    def in_use(one, kind):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", in_use)
    with pytest.raises(RuntimeError, match="create the Trainer, or call"):
        horovod._pin_gpu(0, 1)

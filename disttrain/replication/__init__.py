"""Ways to run replicas, and the choice between them."""

import os

import tensorflow as tf

from disttrain.replication.base import Replication, Topology, replica_value
from disttrain.replication.horovod import Horovod, launched
from disttrain.replication.tf_distribute import TfDistribute, mirrored, multi_worker, single
from disttrain.tf_config import workers

NAMES = ("auto", "single", "mirrored", "multi_worker", "horovod")

__all__ = ["NAMES", "Replication", "Topology", "current", "replica_value", "resolve"]


def resolve(replication="auto"):
    """Turns what a user asks for into a `Replication`.

    Args:
        replication: One of `NAMES`, a `tf.distribute.Strategy`, or a `Replication`. `"auto"` takes
            Horovod where its launcher started the process, else what the launcher has put into
            `DISTTRAIN_REPLICATION`, else `"multi_worker"` where `TF_CONFIG` names several workers,
            else `"mirrored"` where there are several GPUs, else `"single"`.

    Raises:
        ValueError: The name is unknown, or what it needs is missing or wrong.
        TypeError: It is something else altogether.
        RuntimeError: Horovod is wanted and does not load.
    """
    if isinstance(replication, Replication):
        return replication
    if isinstance(replication, tf.distribute.Strategy):
        return TfDistribute(replication)
    if not isinstance(replication, str):
        raise TypeError(
            f"replication must be one of {', '.join(map(repr, NAMES))}, a tf.distribute.Strategy "
            f"or a disttrain.replication.Replication, not {replication!r}"
        )
    if replication == "auto":
        replication = _detect()
    makers = {
        "single": single,
        "mirrored": mirrored,
        "multi_worker": multi_worker,
        "horovod": Horovod,
    }
    if replication not in makers:
        raise ValueError(
            f"unknown replication {replication!r}; choose one of {', '.join(map(repr, NAMES))}"
        )
    return makers[replication]()


def current():
    """The `Replication` that code without a trainer is in: a strategy's scope, Horovod, or none."""
    if tf.distribute.has_strategy():
        return TfDistribute(tf.distribute.get_strategy())
    return Horovod() if launched() else single()


def _detect():
    if launched():
        return "horovod"
    if os.environ.get("DISTTRAIN_REPLICATION", "auto") != "auto":
        return os.environ["DISTTRAIN_REPLICATION"]
    text = os.environ.get("TF_CONFIG")
    if text:
        # One that cannot be read is taken as several, so that what is wrong with it gets said.
        return "single" if workers(text) == 1 else "multi_worker"
    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "single"

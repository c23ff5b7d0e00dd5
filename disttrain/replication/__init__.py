"""Ways to run replicas, and the choice between them."""

import os

import tensorflow as tf

from disttrain.replication import ambient
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
            the strategy of the scope in which it is called, else Horovod where its launcher started
            the process, else what the launcher has put into `DISTTRAIN_REPLICATION`, else
            `"multi_worker"` where `TF_CONFIG` names several workers, else `"mirrored"` where there
            are several GPUs, else `"single"`.

    Raises:
        ValueError: The name is unknown, what it needs is missing or wrong, or it contradicts the
            strategy of the scope in which this is called.
        TypeError: It is something else altogether.
        RuntimeError: Horovod is wanted and does not load.
    """
    found = ambient.strategy()
    if found is not None and _is_known(replication):
        adopted = ambient.adopt(replication, found)
        if adopted is not None:
            return adopted
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
        found = TfDistribute(tf.distribute.get_strategy())
        ambient.refuse_other_launcher(found)
        return found
    return Horovod() if launched() else single()


def _is_known(replication):
    return replication in NAMES or isinstance(replication, (Replication, tf.distribute.Strategy))


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

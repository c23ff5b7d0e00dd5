"""The strategy in whose `scope()` a user's code runs: what it means for a replication.

`resolve` and `current` adopt that strategy or refuse a contradiction. A trainer enters the scope by
itself where it builds, and leaves it everywhere else, because a variable that is made in a scope
has a copy on each replica.
"""

import contextlib
import os

import tensorflow as tf
from tensorflow.python.distribute import distribute_lib
from tensorflow.python.ops import resource_variable_ops

from disttrain.replication.tf_distribute import TfDistribute
from disttrain.tf_config import workers

#: Name of a replication to the strategies that it may mean.
_STRATEGIES = {
    "mirrored": tf.distribute.MirroredStrategy,
    "multi_worker": tf.distribute.MultiWorkerMirroredStrategy,
}


def strategy():
    """The `tf.distribute.Strategy` of the scope in which this is called, or `None`."""
    return tf.distribute.get_strategy() if tf.distribute.has_strategy() else None


def adopt(wanted, found):
    """The replication of the scope that a user's code is in.

    Args:
        wanted: What the user asks for, as `disttrain.replication.resolve` takes it.
        found: The strategy of the scope.

    Returns:
        A `Replication`; `None` where a scope of one replica leaves the choice to the name.

    Raises:
        ValueError: What the user asks for contradicts the scope or the launcher.
    """
    made = TfDistribute(found)
    if wanted == "auto":
        refuse_other_launcher(made)
        return made
    if getattr(wanted, "strategy", wanted) is found:
        return wanted if isinstance(wanted, TfDistribute) else made
    if wanted == "single" and made.replicas == 1:
        return TfDistribute(found, "single")
    if isinstance(wanted, str) and isinstance(found, _STRATEGIES.get(wanted, ())):
        return TfDistribute(found, wanted)
    if made.replicas == 1 and (wanted == "horovod" or getattr(wanted, "name", "") == "horovod"):
        return None
    raise ValueError(
        f"replication={wanted!r} contradicts the scope in which it is used, that of a "
        f"{made.name} with {_replicas(made.replicas)}. Leave the scope, or use "
        "replication='auto', which adopts the strategy of the scope."
    )


def refuse_other_launcher(replication):
    """Refuses a strategy of one process in a job of several, which would never average.

    Args:
        replication: The `TfDistribute` of the scope.

    Raises:
        ValueError: A launcher has started several processes that the strategy knows nothing of.
    """
    if replication.topology.processes > 1:
        return
    by, processes = _launched()
    if processes > 1:
        raise ValueError(
            f"{by} started {processes} processes, but this code runs in the scope of a "
            f"{replication.name} with {_replicas(replication.replicas)} in one process, so the "
            "processes would train without each other. Leave the scope, or start one process."
        )


def _launched():
    """`(launcher, number of processes)`; one process where nothing else is known."""
    if "HOROVOD_RANK" in os.environ and "HOROVOD_SIZE" in os.environ:
        return "Horovod", int(os.environ["HOROVOD_SIZE"])
    text = os.environ.get("TF_CONFIG")
    return ("TF_CONFIG", workers(text)) if text else ("", 1)


@contextlib.contextmanager
def leave(replication):
    """A context as if no scope had been entered.

    Args:
        replication: The replication whose work is done inside.

    Raises:
        ValueError: The scope belongs to another strategy of several replicas.
    """
    found = strategy()
    if found is None:
        yield
        return
    if found is not getattr(replication, "strategy", None) and found.num_replicas_in_sync > 1:
        raise ValueError(
            f"this runs in the scope of a {type(found).__name__} with "
            f"{_replicas(found.num_replicas_in_sync)}, but the trainer has replication "
            f"{replication.name!r} with {_replicas(replication.replicas)}. Leave the scope, or "
            "create the trainer inside it with replication='auto'."
        )
    # TensorFlow has no public way out of a scope.
    distribute_lib._push_per_thread_mode(distribute_lib._get_default_replica_mode())
    try:
        with tf.variable_creator_scope(_make_plain):
            yield
    finally:
        distribute_lib._pop_per_thread_mode()


def _make_plain(next_creator, **options):
    """Makes a variable without asking the creators outside, of which the strategy's is one."""
    return resource_variable_ops.default_variable_creator_v2(None, **options)


def _replicas(count):
    return f"{count} replica" + ("" if count == 1 else "s")

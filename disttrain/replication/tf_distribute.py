"""Replicas under `tf.distribute`: one device, `MirroredStrategy`, `MultiWorkerMirroredStrategy`."""

import contextlib
import hashlib
import os

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import distribute_lib
from tensorflow.python.ops.control_flow_v2_func_graphs import WhileBodyFuncGraph

from disttrain.replication import adoption, chunks, startup
from disttrain.replication.base import Replication, Topology, by_dtype
from disttrain.tf_config import check_tf_config


class TfDistribute(Replication):
    """Replicas of a `tf.distribute.Strategy`.

    Args:
        strategy: A synchronous strategy, or TensorFlow's default one for a single device.
        name: What the user calls it.

    Raises:
        ValueError: The strategy is not synchronous data parallelism.
    """

    def __init__(self, strategy, name=None):
        unsupported = (
            tf.distribute.experimental.ParameterServerStrategy,
            tf.distribute.TPUStrategy,
            tf.distribute.experimental.CentralStorageStrategy,
        )
        if isinstance(strategy, unsupported):
            raise ValueError(
                f"{type(strategy).__name__} is not supported: disttrain needs synchronous replicas "
                "that each hold the weights; use MirroredStrategy, MultiWorkerMirroredStrategy or "
                "Horovod"
            )
        self.strategy = strategy
        self.name = name or type(strategy).__name__
        self.topology = self._topology()
        self._gathers = {}

    def _topology(self):
        replicas = self.strategy.num_replicas_in_sync
        resolver = self.strategy.cluster_resolver
        spec = resolver.cluster_spec().as_dict() if resolver is not None else {}
        if not spec:
            return Topology(local_replicas=replicas)
        processes = sum(len(hosts) for job, hosts in spec.items() if job in ("chief", "worker"))
        index = int(resolver.task_id or 0)
        if resolver.task_type == "worker" and "chief" in spec:
            index += len(spec["chief"])
        return Topology(processes, index, replicas // processes)

    def scope(self):
        return self.strategy.scope()

    def run(self, function, parts, shared=()):
        if self.replicas == 1:
            return [function(parts[0], *shared)]
        first = self.topology.first_replica
        part = self.strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group - first]
        )
        result = self.strategy.run(lambda part: function(part, *shared), args=(part,))
        if result is None:
            return [None] * len(parts)
        leaves = [
            self.strategy.experimental_local_results(leaf) for leaf in tf.nest.flatten(result)
        ]
        return [
            tf.nest.pack_sequence_as(result, [leaf[i] for leaf in leaves])
            for i in range(len(parts))
        ]

    def is_first_local_replica(self):
        return self.replica_index() == self.topology.first_replica

    def replica_index(self):
        if self.replicas == 1:
            return 0
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        # Inside of a tf.function it may come as a constant tensor.
        return int(tf.get_static_value(index)) if tf.is_tensor(index) else index

    def reduce_sum(self, tensors, name):
        if self.replicas == 1 or not tensors:
            return list(tensors)
        context = tf.distribute.get_replica_context()
        results = [None] * len(tensors)
        # Collectives pack a list into one tensor, which has one dtype.
        for places in by_dtype(tensors):
            # A tensor that replicas share belongs to no device until each has its own.
            own = [tf.identity(tensors[i]) for i in places]
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, own)
            for place, value in zip(places, sums, strict=True):
                results[place] = value
        return results

    def gather(self, tensor, name):
        if self.replicas == 1:
            return tensor
        context = tf.distribute.get_replica_context()
        if _in_loop():
            return context.merge_call(chunks.gather, args=(tf.identity(tensor),))
        return context.all_gather(tf.identity(tensor), axis=0)

    def as_one_replica(self):
        return contextlib.nullcontext() if self.replicas == 1 else _seeing_one_replica()

    def cond(self, predicate, true_function, false_function, args=()):
        if self.replicas == 1 or tf.__internal__.distribute.strategy_supports_no_merge_call():
            super().cond(predicate, true_function, false_function, args)
            return
        # A branch that merges replicas must not stand in a replica's own tf.cond, so the replicas
        # meet, one cond is built for all of them, and each branch parts them again.
        outer = super().cond

        def in_cross_replica(strategy, predicate, *args):
            def on_each(function):
                return lambda: strategy.extended.call_for_each_replica(function, args)

            shared = strategy.experimental_local_results(predicate)[0]
            outer(shared, on_each(true_function), on_each(false_function))

        tf.distribute.get_replica_context().merge_call(in_cross_replica, args=(predicate, *args))

    def all_gather(self, array):
        array = np.asarray(array)
        if self.topology.processes == 1:
            return array[None]
        key = (array.shape, array.dtype.str)
        if key not in self._gathers:
            self._gathers[key] = self._make_gather(tf.TensorSpec(array.shape, array.dtype))
        with self.pulse.waiting():
            gathered = self._gathers[key](tf.constant(array)).numpy()
        return gathered[:: self.topology.local_replicas]

    def _make_gather(self, spec):
        @tf.function
        def gather(array):
            def on_replica():
                return tf.distribute.get_replica_context().all_gather(array[None], axis=0)

            return self.strategy.experimental_local_results(self.strategy.run(on_replica))[0]

        # Called as it is, a function for each shape would have TensorFlow warn of retracing.
        return gather.get_concrete_function(spec)

    def start_equal(self, variables):
        # A strategy creates variables equal. What a program assigns to them afterwards, such as
        # weights from a file, each process does by itself.
        if self.topology.processes == 1 or not variables:
            return
        digests = [hashlib.blake2b(v.numpy().tobytes(), digest_size=8).digest() for v in variables]
        own = np.frombuffer(b"".join(digests), np.int32).reshape(len(variables), -1)
        everyone = self.all_gather(own)
        same = (everyone == everyone[:1]).all(axis=(0, 2))
        self.broadcast([v for v, is_same in zip(variables, same, strict=True) if not is_same])

    def adopt(self, optimizer):
        if max(self.replicas, optimizer._distribution_strategy.num_replicas_in_sync) == 1:
            return optimizer
        return adoption.move_into_scope(optimizer, self.strategy, self.name)


class _OneReplica:
    """A strategy that says it has one replica."""

    num_replicas_in_sync = 1

    def __init__(self, strategy):
        self._strategy = strategy

    def __getattr__(self, name):
        return getattr(self._strategy, name)


@contextlib.contextmanager
def _seeing_one_replica():
    context = tf.distribute.get_replica_context()
    mode = distribute_lib._ThreadMode(_OneReplica(context.strategy), None, context)
    distribute_lib._push_per_thread_mode(mode)
    try:
        yield
    finally:
        distribute_lib._pop_per_thread_mode()


def _in_loop():
    """Whether what is built now runs again and again within one call of a function."""
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        if isinstance(graph, WhileBodyFuncGraph):
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def single():
    """One replica on the first GPU, or else on the CPU."""
    return TfDistribute(tf.distribute.get_strategy(), "single")


def mirrored(devices=None):
    """A replica on each of `devices`; on all GPUs, or all logical CPU devices, by default."""
    if devices is None:
        devices = [device.name for device in tf.config.list_logical_devices("GPU")]
        devices = devices or [device.name for device in tf.config.list_logical_devices("CPU")]
    # On CPU devices TensorFlow takes collectives, whose groups in one process get into each other's
    # way as soon as there are two strategies of different sizes.
    on_cpu = all("CPU" in device.upper() for device in devices)
    reduction = tf.distribute.ReductionToOneDevice() if on_cpu else None
    return TfDistribute(tf.distribute.MirroredStrategy(devices, reduction), "mirrored")


def multi_worker():
    """The replicas of all processes that `TF_CONFIG` names.

    Raises:
        ValueError: `TF_CONFIG` is missing, is not JSON, lacks a key, or points outside the cluster.
        RuntimeError: TensorFlow was in use before disttrain was imported.
    """
    check_tf_config(os.environ.get("TF_CONFIG"))
    return TfDistribute(startup.strategy(), "multi_worker")

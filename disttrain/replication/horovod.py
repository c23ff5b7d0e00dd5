"""Replicas as Horovod ranks, one a process. The only module that imports Horovod.

Only Horovod's raw collectives are used: its Keras layer averages nothing on Keras 3.
"""

import importlib.util
import os
import warnings

import numpy as np
import tensorflow as tf

from disttrain.replication.base import Replication, Topology

_INSTALL = (
    "Horovod is not installed in this Python environment; run ./launch/setup.sh, which builds "
    "Horovod 0.28.1 for the installed TensorFlow, or choose another replication"
)


def launched():
    """Whether this process was started by horovodrun or one of its launchers."""
    return "HOROVOD_RANK" in os.environ and "HOROVOD_SIZE" in os.environ


def _import():
    if importlib.util.find_spec("horovod") is None:
        raise RuntimeError(_INSTALL)
    try:
        import horovod.tensorflow as hvd

        hvd.init()
    except (ImportError, tf.errors.NotFoundError, AttributeError) as error:
        raise RuntimeError(
            f"Horovod is installed but does not load ({error}); it was probably built for another "
            "TensorFlow: run ./launch/setup.sh again"
        ) from error
    return hvd


def _pin_gpu(local_rank, local_size):
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return
    if local_size > len(gpus):
        warnings.warn(
            f"{local_size} ranks on this host share {len(gpus)} GPUs; start at most one rank for "
            "each GPU unless you mean it",
            stacklevel=2,
        )
    gpu = gpus[local_rank % len(gpus)]
    try:
        tf.config.set_visible_devices(gpu, "GPU")
        tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        raise RuntimeError(
            "the GPUs were in use before disttrain could give each rank its own; create the "
            "Trainer, or call disttrain.replication.resolve('horovod'), before the first tensor"
        ) from error


class Horovod(Replication):
    """One replica in each Horovod rank.

    Raises:
        RuntimeError: Horovod is not installed, or was built for another TensorFlow.
    """

    name = "horovod"

    def __init__(self):
        self._hvd = _import()
        _pin_gpu(self._hvd.local_rank(), self._hvd.local_size())
        self.topology = Topology(processes=self._hvd.size(), process=self._hvd.rank())

    def reduce_sum(self, tensors, name):
        if self.replicas == 1:
            return list(tensors)
        results = [None] * len(tensors)
        # A group has one dtype.
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            places = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
            # Horovod matches operations by name; TensorFlow's own may differ between ranks.
            sums = self._hvd.grouped_allreduce(
                [tensors[i] for i in places],
                op=self._hvd.Sum,
                name=f"disttrain.{name}.{dtype.name}",
                ignore_name_scope=True,
            )
            for place, value in zip(places, sums, strict=True):
                # Horovod keeps the shape, but its operation does not always tell TensorFlow.
                results[place] = tf.ensure_shape(value, tensors[place].shape)
        return results

    def all_gather(self, array):
        array = np.asarray(array)
        if self.replicas == 1:
            return array[None]
        return self._hvd.allgather(tf.constant(array[None])).numpy()

    def broadcast(self, variables):
        if self.replicas > 1 and variables:
            self._hvd.broadcast_variables([getattr(v, "value", v) for v in variables], root_rank=0)

    def start_equal(self, variables):
        self.broadcast(variables)

    def metric_results(self, metrics):
        if self.replicas == 1:
            return super().metric_results(metrics)
        variables = [variable for metric in metrics for variable in metric.variables]
        local = [variable.numpy() for variable in variables]
        if not local:
            return super().metric_results(metrics)
        packed = np.concatenate([value.astype(np.float64).ravel() for value in local])
        total = self.all_gather(packed).sum(axis=0)
        sums = np.split(total, np.cumsum([value.size for value in local])[:-1])
        for variable, value, whole in zip(variables, local, sums, strict=True):
            variable.assign(whole.reshape(value.shape).astype(value.dtype))
        results = [tf.nest.map_structure(np.asarray, metric.result()) for metric in metrics]
        # Each rank goes on counting its own share.
        for variable, value in zip(variables, local, strict=True):
            variable.assign(value)
        return results

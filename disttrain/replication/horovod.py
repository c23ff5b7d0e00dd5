"""Replicas as Horovod ranks, one a process. The only module that imports Horovod.

Only Horovod's raw collectives are used: its Keras layer averages nothing on Keras 3.
"""

import contextlib
import functools
import importlib.util
import os
import warnings

import numpy as np
import tensorflow as tf

from disttrain import kernels
from disttrain.replication import elastic, host
from disttrain.replication.base import Replication, Topology, by_dtype
from disttrain.tracing import traced

_INSTALL = (
    "Horovod is not installed in this Python environment; run ./launch/setup.sh, which builds "
    "Horovod 0.28.1 for the installed TensorFlow, or choose another replication"
)


#: Horovod refuses to make the same one twice, and forgets one that nobody holds.
_process_sets = {}

#: Process set to the memory that its ranks share, or `None`.
_hosts = {}

#: What hears of changed hosts, once somebody wants to.
_watches = []


def launched():
    """Whether this process was started by horovodrun or one of its launchers."""
    return "HOROVOD_RANK" in os.environ and "HOROVOD_SIZE" in os.environ


def _import():
    if importlib.util.find_spec("horovod") is None:
        raise RuntimeError(_INSTALL)
    try:
        import horovod.tensorflow as hvd

        elastic.take_place()
        hvd.init(process_sets="dynamic")
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
    # Slurm gives each task GPUs of its own, of which it sees no others.
    if local_size > len(gpus) and not os.environ.get("SLURM_GPUS_PER_TASK"):
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

    Args:
        ranks: Ranks that train together, this process's among them, or `None` for all. Every rank
            of the job makes all groups in the same order: `Horovod([0, 1])` on ranks 0 and 1, and
            `Horovod([2, 3])` on ranks 2 and 3, after `all_groups=[[0, 1], [2, 3]]`.
        all_groups: The groups of all ranks, where `ranks` is given; `[ranks]` by default. A group
            that is done waits for the others, with `Horovod().any(False)`: Horovod ends on all
            ranks as soon as one process ends.

    Raises:
        RuntimeError: Horovod is not installed, or was built for another TensorFlow.
        ValueError: This rank is not one of `ranks`.
    """

    name = "horovod"

    def __init__(self, ranks=None, all_groups=None):
        self._hvd = _import()
        _pin_gpu(self._hvd.local_rank(), self._hvd.local_size())
        # NCCL adds numbers of 16 bits fast; unlike a look for GPUs this is the same on all ranks.
        self._has_nccl = self._hvd.nccl_built()
        rank = self._hvd.rank()
        if ranks is None:
            self._set, self._root = self._hvd.global_process_set, 0
            self.topology = Topology(processes=self._hvd.size(), process=rank)
            return
        ranks = sorted(ranks)
        if rank not in ranks:
            raise ValueError(f"rank {rank} is not one of the ranks {ranks} that train together")
        for group in all_groups or [ranks]:
            self._process_set(sorted(group))
        self._set = self._process_set(ranks)
        self._root = ranks[0]
        self.topology = Topology(processes=len(ranks), process=ranks.index(rank))

    def begins_anew(self, error):
        regroup = isinstance(error, elastic.Regroup) or _lost_a_rank(error)
        return elastic.launched() and regroup

    @contextlib.contextmanager
    def regrouping(self):
        if not elastic.launched():
            yield
            return
        self._watch_hosts()
        try:
            yield
        except BaseException as error:
            if not self.begins_anew(error):
                raise
            reason = "a rank is lost"
            elastic.begin_anew(str(error) if isinstance(error, elastic.Regroup) else reason)

    def hosts_changed(self):
        return any(watch.changed for watch in _watches)

    @property
    def regroups(self):
        return elastic.launched()

    def _watch_hosts(self):
        if not _watches:
            from horovod.common.elastic import notification_manager

            _watches.append(elastic.HostWatch())
            notification_manager.init()
            notification_manager.register_listener(_watches[0])

    def _process_set(self, ranks):
        """The process set of these ranks; all ranks of the job make it together, once."""
        if len(ranks) == self._hvd.size():
            return self._hvd.global_process_set
        key = tuple(ranks)
        if key not in _process_sets:
            _process_sets[key] = self._hvd.add_process_set(ranks)
        return _process_sets[key]

    def reduce_sum(self, tensors, name):
        if self.replicas == 1:
            return list(tensors)
        _refuse_xla()
        results = [None] * len(tensors)
        shared = self._host()
        # A group has one dtype.
        for places in by_dtype(tensors):
            own = [tensors[i] for i in places]
            dtype = own[0].dtype
            # Horovod matches operations by name; TensorFlow's own may differ between ranks.
            label = f"{name}.{dtype.name}"
            if shared is not None and shared.knows(dtype):
                sums = shared.sum(own, label)
            elif dtype == tf.bfloat16 or (dtype == tf.float16 and not self._has_nccl):
                sums = self._sum_of_halves(own, label)
            else:
                sums = self._hvd.grouped_allreduce(
                    own,
                    op=self._hvd.Sum,
                    name=f"disttrain.{label}",
                    ignore_name_scope=True,
                    process_set=self._set,
                )
            for place, value in zip(places, sums, strict=True):
                # Horovod keeps the shape, but its operation does not always tell TensorFlow. Not
                # tf.ensure_shape: Horovod's thread would wake TensorFlow's for each of those.
                value.set_shape(tensors[place].shape)
                results[place] = value
        return results

    @property
    def shares_memory(self):
        """Whether these ranks sum through the memory of their host; all of them ask together."""
        return self.replicas > 1 and self._host() is not None

    def _host(self):
        """The memory that these ranks share, or `None`; all of them ask for it together."""
        key = self._set.process_set_id
        if key not in _hosts:
            with tf.init_scope():
                _hosts[key] = host.meet(
                    self._gathered, self.topology.process, self.topology.processes
                )
        return _hosts[key]

    def reduce_sum_differentiably(self, tensors, name):
        # Horovod has gradients of its own, but gives them names that may differ between ranks.
        @tf.custom_gradient
        def reduced(*values):
            def gradient(*upstream):
                return self.reduce_sum(list(upstream), f"{name}.gradient")

            return self.reduce_sum(list(values), name), gradient

        return list(reduced(*tensors))

    def gather(self, tensor, name):
        if self.replicas == 1:
            return tensor
        _refuse_xla()
        dtype = tensor.dtype
        if dtype == tf.bfloat16:
            tensor = tf.bitcast(tensor, tf.float16)
        gathered = self._hvd.allgather(
            tensor, name=f"disttrain.{name}", ignore_name_scope=True, process_set=self._set
        )
        gathered = tf.ensure_shape(gathered, [None, *tensor.shape[1:]])
        return tf.bitcast(gathered, dtype) if dtype == tf.bfloat16 else gathered

    def _sum_of_halves(self, tensors, name):
        """Sums bfloat16 tensors, which Horovod's allreduce does not know, or float16 ones.

        Gloo adds those one number after another, which takes longer than the bytes that they save.
        Here each rank gets its piece of everyone's tensors, adds in float32, and hands its sums
        round: twice the bytes of the tensors for each rank, as in a ring. Bits travel as float16.
        """
        flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
        piece = -(-flat.shape[0] // self.replicas)
        flat = tf.pad(flat, [[0, piece * self.replicas - flat.shape[0]]])
        mine, _ = self._hvd.alltoall(
            tf.bitcast(flat, tf.float16),
            splits=tf.fill([self.replicas], piece),
            name=f"disttrain.{name}.pieces",
            ignore_name_scope=True,
            process_set=self._set,
        )
        mine = tf.bitcast(tf.reshape(mine, [self.replicas, piece]), flat.dtype)
        own = tf.cast(tf.reduce_sum(tf.cast(mine, tf.float32), axis=0), flat.dtype)
        whole = self.gather(own, f"{name}.sums")
        sizes = [tensor.shape.num_elements() for tensor in tensors]
        parts = tf.split(whole[: sum(sizes)], sizes)
        return [tf.reshape(p, t.shape) for p, t in zip(parts, tensors, strict=True)]

    def all_gather(self, array):
        array = np.asarray(array)
        if self.replicas == 1:
            return array[None]
        shared = self._host()
        if shared is None:
            return self._gathered(array)
        with self.pulse.waiting():
            return shared.gather(array)

    def _gathered(self, array):
        with self.pulse.waiting():
            return self._hvd.allgather(
                tf.constant(array[None]), name="disttrain.all_gather", process_set=self._set
            ).numpy()

    def broadcast(self, variables):
        if self.replicas > 1 and variables:
            values = [getattr(variable, "value", variable) for variable in variables]
            with self.pulse.waiting():
                traced(functools.partial(self._broadcast, values), name="broadcast")()

    def _broadcast(self, variables):
        for number, variable in enumerate(variables):
            # Horovod's broadcast does not know bfloat16.
            half = variable.dtype == tf.bfloat16
            value = tf.convert_to_tensor(variable)
            # Keras numbers names by what else a process has made, so that they may differ.
            chiefs = self._hvd.broadcast(
                tf.bitcast(value, tf.float16) if half else value,
                root_rank=self._root,
                name=f"disttrain.broadcast.{number}",
                ignore_name_scope=True,
                process_set=self._set,
            )
            variable.assign(tf.bitcast(chiefs, tf.bfloat16) if half else chiefs)

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
        places = np.cumsum([value.size for value in local])[:-1]
        of_each = np.split(self.all_gather(packed), places, axis=1)
        for variable, value, values in zip(variables, local, of_each, strict=True):
            whole = _together(variable, values)
            variable.assign(whole.reshape(value.shape).astype(value.dtype))
        results = [tf.nest.map_structure(np.asarray, metric.result()) for metric in metrics]
        # Each rank goes on counting its own share.
        for variable, value in zip(variables, local, strict=True):
            variable.assign(value)
        return results


def _together(variable, values):
    """The value over all ranks of a metric's variable, of which each rank has a row."""
    aggregation = getattr(variable, "aggregation", "sum")
    if aggregation == "only_first_replica":
        return values[0]
    if aggregation == "none":
        raise ValueError(
            f"the metric variable {variable.name!r} has aggregation='none', which does not say how "
            "the ranks' values go together; use 'sum', 'mean' or 'only_first_replica'"
        )
    total = values.sum(axis=0)
    return total / len(values) if aggregation == "mean" else total


def _refuse_xla():
    if kernels.in_xla():
        raise ValueError(
            "Horovod's reductions cannot run inside XLA: pass jit_compile=False to compile, or "
            "use disttrain.Trainer, which compiles around them"
        )


def _lost_a_rank(error):
    """Whether an error says that a collective has failed, as all do once a rank is gone."""
    from horovod.common.exceptions import HorovodInternalError

    if isinstance(error, HorovodInternalError):
        return True
    failed = isinstance(error, (tf.errors.UnknownError, tf.errors.InternalError))
    return failed and "Horovod" in str(error)

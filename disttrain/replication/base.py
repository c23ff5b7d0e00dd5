"""What the rest of disttrain asks of a way to run replicas.

A replica is one copy of the model with its own part of each global batch. A process holds one or
more of them. `tf_distribute.py` and `horovod.py` implement this protocol; nothing above it knows
which of them is at work.
"""

import abc
import contextlib
import dataclasses

import numpy as np
import tensorflow as tf

from disttrain import heartbeat


@dataclasses.dataclass(frozen=True)
class Topology:
    """Where this process stands among all replicas.

    Attributes:
        processes: Number of processes.
        process: Index of this process; the chief is 0.
        local_replicas: Replicas in each process.
    """

    processes: int = 1
    process: int = 0
    local_replicas: int = 1

    @property
    def replicas(self):
        """Number of replicas over all processes."""
        return self.processes * self.local_replicas

    @property
    def first_replica(self):
        """Global index of this process's first replica."""
        return self.process * self.local_replicas


class Replication(abc.ABC):
    """Runs one function on every replica and lets replicas speak to each other.

    Attributes:
        name: `"single"`, `"mirrored"`, `"multi_worker"`, `"horovod"` or a strategy's class name.
        topology: A `Topology`.
        pulse: A `disttrain.heartbeat.Heartbeat` while a training goes on, which is told where
            this process waits for others.
    """

    name: str
    topology: Topology
    pulse = heartbeat.Nobody()

    @property
    def replicas(self):
        """Number of replicas over all processes."""
        return self.topology.replicas

    @property
    def is_chief(self):
        """Whether this process writes files and speaks to the user."""
        return self.topology.process == 0

    def scope(self):
        """The context in which models, optimizers and metrics are built."""
        return contextlib.nullcontext()

    def run(self, function, parts, shared=()):
        """Calls `function(part, *shared)` on every replica of this process.

        Args:
            function: Called in replica context.
            parts: One nested structure of tensors for each local replica.
            shared: Arguments that all replicas get alike.

        Returns:
            The results of the local replicas, a list.
        """
        return [function(parts[0], *shared)]

    def is_first_local_replica(self):
        """Whether the calling replica function runs on this process's first replica."""
        return True

    def replica_index(self):
        """Global index of the replica that calls, in replica context."""
        return self.topology.first_replica

    @abc.abstractmethod
    def reduce_sum(self, tensors, name):
        """Sums each dense tensor over all replicas.

        Args:
            tensors: A list of tensors of any shapes and dtypes, equal in number, order, shape and
                dtype on every replica. Called in replica context.
            name: What is reduced; the same on every replica, and only once in a step.

        Returns:
            The sums, a list in the same order.
        """

    def reduce_sum_differentiably(self, tensors, name):
        """`reduce_sum` through which a gradient flows: the sum of the replicas' gradients."""
        return self.reduce_sum(tensors, name)

    @abc.abstractmethod
    def gather(self, tensor, name):
        """Puts the tensors of all replicas one below the other, in the order of the replicas.

        Args:
            tensor: A tensor of rank 1 or more, equal in dtype and all axes but the first on every
                replica. Called in replica context.
            name: As for `reduce_sum`.

        Returns:
            A tensor whose first axis is the sum of the replicas'.
        """

    def as_one_replica(self):
        """The context in which a function sees one replica, which has the global batch.

        Keras's losses and `tf.nn.compute_average_loss` divide by the replicas that they see. No
        variable is to be assigned inside. Called in replica context.
        """
        return contextlib.nullcontext()

    def cond(self, predicate, true_function, false_function, args=()):
        """`tf.cond` whose branches may update variables that replicas share.

        Args:
            predicate: A boolean scalar, equal on all replicas. Called in replica context.
            true_function: Called with `*args`; its result is dropped. It reads what belongs to this
                replica from `args` alone, for one replica's function may be called for all.
            false_function: The same, for `predicate == False`.
            args: Tensors of this replica, nested.
        """

        def returning(function):
            def branch():
                function(*args)
                return tf.constant(0)

            return branch

        tf.cond(predicate, returning(true_function), returning(false_function))

    @property
    def regroups(self):
        """Whether the processes of the job may change while it goes on."""
        return False

    def begins_anew(self, error):
        """Whether an error is one after which this process begins anew, as a lost process is."""
        return False

    def regrouping(self):
        """The context in which that happens."""
        return contextlib.nullcontext()

    def hosts_changed(self):
        """Whether this process has heard that hosts have come or are to go."""
        return False

    @abc.abstractmethod
    def all_gather(self, array):
        """Gathers one NumPy array from each process.

        Args:
            array: An array, equal in shape and dtype on all processes. Called outside of replica
                context, by all processes.

        Returns:
            An array of shape `[processes, *array.shape]`.
        """

    def broadcast(self, variables):
        """Copies the chief's values into `variables` on all processes."""
        for variable in variables if self.topology.processes > 1 else ():
            own = np.asarray(variable.numpy())
            # Not every collective knows every dtype.
            bits = np.frombuffer(own.tobytes(), np.uint8).astype(np.int32)
            chiefs = self.all_gather(bits)[0].astype(np.uint8).tobytes()
            variable.assign(np.frombuffer(chiefs, own.dtype).reshape(own.shape))

    def start_equal(self, variables):
        """Gives variables the chief's values, where they may differ when a training begins.

        Called by every process with the same variables in the same order.
        """

    def adopt(self, optimizer):
        """Returns `optimizer` with variables that belong to this replication's scope."""
        return optimizer

    def metric_results(self, metrics):
        """Evaluates metrics over the states of all replicas.

        Args:
            metrics: A list of `keras.metrics.Metric` whose variables are sums.

        Returns:
            One result for each metric: a float, an array, or a dictionary of them.
        """
        return [metric.result() for metric in metrics]

    def any(self, flag):
        """Whether `flag` is true on at least one process."""
        return bool(self.all_gather(np.asarray([flag], np.int32)).any())

    def agree(self, array):
        """Whether `array` has the same values on every process."""
        gathered = self.all_gather(np.asarray(array))
        return bool((gathered == gathered[:1]).all())

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}, {self.replicas} replicas>"


def replica_value(variable, local_replica=0):
    """The `tf.Variable` that holds a Keras variable's value on a replica of this process."""
    value = variable.value
    return value.values[local_replica] if hasattr(value, "values") else value


def by_dtype(tensors):
    """Places of tensors in a list, one list for each dtype, in the order of its first tensor."""
    places = {}
    for i, tensor in enumerate(tensors):
        places.setdefault(tensor.dtype, []).append(i)
    return list(places.values())

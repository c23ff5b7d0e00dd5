"""Keras callbacks under several processes: which run where, and those that `Model.fit` needs."""

import sys
import warnings

import keras
import tensorflow as tf

from disttrain import from_horovod, kernels, layers
from disttrain import replication as replication_module
from disttrain.metric_results import named_results
from disttrain.optimizers.distributed import DistributedOptimizer
from disttrain.telemetry.callback import TelemetryCallback

#: These write files or speak to a server; on other processes than the chief they would do it again.
_WRITERS = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)


def on_this_process(callbacks, is_chief):
    """The callbacks that this process runs: all on the chief, elsewhere those that write nothing.

    Args:
        callbacks: `None`, a callback, or a list of them.
        is_chief: Whether this process writes files.

    Raises:
        TypeError: One of them is no `keras.callbacks.Callback`.
    """
    listed = keras.tree.flatten(callbacks) if callbacks is not None else []
    for callback in listed:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(f"callbacks must be keras.callbacks.Callback objects, not {callback!r}")
    return [callback for callback in listed if is_chief or not isinstance(callback, _WRITERS)]


def refuse_telemetry(callbacks):
    """Raises a `ValueError` where a callback would record what the trainer records."""
    for callback in keras.tree.flatten(callbacks) if callbacks is not None else []:
        if isinstance(callback, TelemetryCallback):
            raise ValueError(
                "TelemetryCallback is for Model.fit; the trainer records by itself: "
                "Trainer(..., telemetry=disttrain.Telemetry(...), logdir=...)"
            )


def restores(callbacks):
    """Whether a callback may replace the weights when training begins."""
    return any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in callbacks)


def watch_batches(callbacks):
    """Whether a callback looks at single batches of the training."""
    return overrides(callbacks, "on_train_batch_end", "on_batch_end")


def overrides(callbacks, *hooks):
    """Whether a callback does something in one of these methods.

    Args:
        callbacks: A list of `keras.callbacks.Callback`.
        *hooks: Names of methods.
    """
    base = keras.callbacks.Callback
    return any(
        # LambdaCallback sets its functions on the instance.
        getattr(type(callback), hook) is not getattr(base, hook) or hook in vars(callback)
        for callback in callbacks
        for hook in hooks
    )


class BroadcastVariables(keras.callbacks.Callback):
    """For `Model.fit` under Horovod: all begin with the chief's weights and optimizer state.

    Layers of Keras that speak to `tf.distribute` alone, `BatchNormalization(synchronized=True)`,
    work together over the ranks as `disttrain.layers.SyncBatchNormalization` does.
    It warns where callbacks that write files, such as `ModelCheckpoint`, run on several processes.

    Args:
        replication: As for `disttrain.Trainer`.
        root_rank: Must be 0, the chief, which is the process that reads and writes files.

    Raises:
        ValueError: `root_rank` is another process.
        TypeError: `replication` is a number.
    """

    def __init__(self, replication="auto", root_rank=0):
        super().__init__()
        if isinstance(replication, int):
            raise TypeError(
                f"BroadcastVariables({replication!r}) sets replication, not root_rank; write "
                "BroadcastVariables(), which broadcasts the weights of rank 0"
            )
        if root_rank != 0:
            raise ValueError(
                f"root_rank={root_rank!r} is not the chief; load the weights on rank 0, which "
                "broadcasts them, or call disttrain.broadcast_object(weights, root_rank) before"
            )
        self._replication = replication

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        replication = replication_module.resolve(self._replication)
        kernels.agree(replication)
        replication.start_equal(self._shared(replication))
        layers.refresh(self.model)
        by_itself = hasattr(replication, "strategy")
        if not by_itself and layers.synchronize(self.model):
            # A function of a fit before may have been traced without.
            self.model.make_train_function(force=True)
        # Keras tells a callback nothing of the others; the list that calls knows.
        listed = getattr(sys._getframe(1).f_locals.get("self"), "callbacks", [])
        writers = [type(c).__name__ for c in listed if isinstance(c, _WRITERS)]
        if replication.any(bool(writers) and not replication.is_chief) and replication.is_chief:
            warnings.warn(
                f"{' and '.join(writers) or 'a callback that writes files'} runs on several "
                "processes, which write over each other's files; hand it to the chief's fit "
                "alone: callbacks + [...] if replication.is_chief else callbacks",
                stacklevel=2,
            )

    def on_epoch_end(self, epoch, logs=None):
        if isinstance(self.model.optimizer, DistributedOptimizer):
            self.model.optimizer.check_skipped()

    def _shared(self, replication):
        """The variables that begin with the chief's values."""
        model, optimizer = self.model, self.model.optimizer
        variables = [*model.variables, *optimizer.variables]
        if not isinstance(optimizer, DistributedOptimizer):
            return variables
        variables = optimizer.to_broadcast(variables)
        accumulated = optimizer.accumulator.state
        if accumulated and replication.agree(optimizer.accumulator.pending()):
            # All processes have accumulated the same number of micro-batches. Each keeps its own
            # sums, which the next update reduces.
            kept = {id(variable) for variable in accumulated}
            variables = [variable for variable in variables if id(variable) not in kept]
        return variables


class MetricAverage(keras.callbacks.Callback):
    """For `Model.fit` under Horovod: the logs of an epoch hold the metrics over all processes.

    The metrics' states are summed before their results are taken, so that they are exact. It has to
    stand before callbacks that read the logs.

    Args:
        replication: As for `disttrain.Trainer`.
    """

    def __init__(self, replication="auto"):
        super().__init__()
        self._wanted = replication
        self._training = self._validation = None

    def on_epoch_begin(self, epoch, logs=None):
        self._training = self._validation = None

    def on_test_begin(self, logs=None):
        # Validation begins by resetting what training has summed.
        self._training = self._results()

    def on_test_end(self, logs=None):
        self._validation = self._results()

    def on_epoch_end(self, epoch, logs=None):
        training = self._training or self._results()
        logs.update(training)
        logs.update({f"val_{name}": value for name, value in (self._validation or {}).items()})

    def _results(self):
        replication = replication_module.resolve(self._wanted)
        metrics = self.model.metrics
        return named_results(metrics, replication.metric_results(metrics))


class FlushAccumulation(keras.callbacks.Callback):
    """For `Model.fit` with `accumulate_steps`: applies what is left at the end of each epoch."""

    def on_train_begin(self, logs=None):
        self._flush = None

    def on_epoch_end(self, epoch, logs=None):
        if self._flush is None:
            # The optimizer has its variables by now. Each other epoch has the same trace.
            self._flush = tf.function(self._flushed, autograph=False).get_concrete_function()
        self._flush()

    def _flushed(self):
        optimizer = self.model.optimizer
        replication = optimizer.replication
        parts = [tf.constant(0)] * replication.topology.local_replicas
        replication.run(lambda part: optimizer.flush(), parts)


def __getattr__(name):
    raise AttributeError(from_horovod.missing(name, __name__))

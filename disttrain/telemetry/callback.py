"""Telemetry for `Model.fit`, where no trainer stands around the steps."""

import time

import keras
import tensorflow as tf

from disttrain.optimizers.distributed import DistributedOptimizer
from disttrain.telemetry.divergence import DivergenceCheck
from disttrain.telemetry.log import RunLog
from disttrain.telemetry.options import Telemetry


class TelemetryCallback(keras.callbacks.Callback):
    """Records what a `DistributedOptimizer` does to every layer during `Model.fit`.

    Hand it to `fit` on every process; the chief alone writes. With accumulation the loss of a
    record is that of the last batch before the update.

    Args:
        logdir: The run's directory.
        telemetry: A `disttrain.Telemetry`.

    Raises:
        TypeError: In `fit`: the model was not compiled with a `DistributedOptimizer`.
        RuntimeError: In `fit`: `logdir` cannot be written.
    """

    def __init__(self, logdir, telemetry=Telemetry()):  # noqa: B008, it is immutable
        super().__init__()
        if not isinstance(telemetry, Telemetry):
            raise TypeError(f"telemetry must be a disttrain.Telemetry, not {telemetry!r}")
        self._logdir = logdir
        self._options = telemetry
        self._log = self._observer = self._check = None
        self._updates = 0
        self._began = self._seconds = 0.0

    def set_model(self, model):
        super().set_model(model)
        if not isinstance(model.optimizer, DistributedOptimizer):
            raise TypeError(
                "TelemetryCallback needs the model compiled with a DistributedOptimizer, not "
                f"{type(model.optimizer).__name__}: model.compile(optimizer="
                "disttrain.DistributedOptimizer(...), ...)"
            )
        # XLA can compile neither the buffers nor the statistics into a step.
        model.jit_compile = False
        # Keras makes its function anew, with the observer in it.
        model.train_function = None

    def on_train_begin(self, logs=None):
        model, optimizer = self.model, self.model.optimizer
        variables = model.trainable_variables
        if not optimizer.built:
            optimizer.build(variables)
        if self._log is None:
            self._log = RunLog.open(self._logdir, optimizer.replication)
        self._observer = self._log.observer(
            self._options, optimizer, variables, model.steps_per_execution
        )
        every = self._options.divergence_every
        self._updates = int(optimizer.iterations.numpy())
        if every is not None and optimizer.replication.replicas > 1:
            equal = [v for v in variables if not optimizer.is_local(v)]
            self._check = DivergenceCheck(optimizer.replication, equal, every)
        optimizer.observer = self._observer
        self._note_examples()

    def _note_examples(self):
        """Lets the optimizer know of how many examples a gradient is."""
        model, observer = self.model, self._observer
        if observer is None:
            return
        compute = model.compute_loss

        def noting(*args, **kwargs):
            x = kwargs.get("x", args[0] if args else None)
            first = next((leaf for leaf in tf.nest.flatten(x) if leaf is not None), None)
            if first is not None:
                observer.note("examples", tf.cast(tf.shape(first)[0], tf.float32))
            return compute(*args, **kwargs)

        model.compute_loss = noting

    def on_train_batch_begin(self, batch, logs=None):
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self._seconds += time.perf_counter() - self._began
        self._after_steps()

    def _after_steps(self):
        log = self._log
        steps = self._observer.steps() - log.steps_done if self._observer is not None else 0
        if steps > 0:
            log.executed(self._observer, steps, self._seconds)
            self._seconds = 0.0
        if self._check is None:
            return
        # Unlike the steps, every process knows the updates.
        before, self._updates = self._updates, int(self.model.optimizer.iterations.numpy())
        if self._updates > before and self._check.due(before + 1, self._updates):
            self._check.check(self._updates)

    def on_epoch_end(self, epoch, logs=None):
        # What FlushAccumulation has applied since.
        self._after_steps()
        self._log.read(self._observer)
        self.model.optimizer.check_skipped()
        plain = {k: v for k, v in (logs or {}).items() if k not in ("loss", "learning_rate")}
        self._log.scalars(plain)
        self._log.flush()

    def on_train_end(self, logs=None):
        self._after_steps()
        self._log.read(self._observer)
        self._log.finish()
        self.model.optimizer.observer = self._observer = None
        vars(self.model).pop("compute_loss", None)
        self.model.train_function = None

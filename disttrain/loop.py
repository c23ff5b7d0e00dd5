"""One epoch of training: executions of steps, and what replicas agree on between them.

All processes run the same loop and meet at the same steps; whatever only one of them knows, a
callback's wish to stop or the chief's learning rate, is shared there.
"""

import math
import time

import keras
import numpy as np
import tensorflow as tf

from disttrain import callbacks as callbacks_module
from disttrain.data import limits, pipeline_errors
from disttrain.fingerprints import different_batches
from disttrain.optimizers.named import NamedOptimizers

#: About so many times an epoch the metrics are read over all replicas.
_LOOKS = 50


class TrainingLoop:
    """Trains epochs with one `TrainStep` on one `Feed`.

    Args:
        task: A built `disttrain.task.Task`.
        current_step: Returns the `TrainStep`, its `Observer` or `None`, and the `DivergenceCheck`
            or `None`; others once a callback has switched the optimizer.
        batches: The `disttrain.batches.Batches` of the feed.
        callbacks: A `keras.callbacks.CallbackList`.
        progress: A `disttrain.progress.Progress`.
        log: A `disttrain.telemetry.log.RunLog`.
        run: The `disttrain.checkpoints.run.Run`, or `None`.

    Attributes:
        examples: Examples of the current epoch so far.
    """

    def __init__(self, task, current_step, batches, callbacks, progress, log, run=None):
        self._task = task
        self._replication = task.replication
        self._current_step = current_step
        self._step, self._observer, self._check = current_step()
        self._data, self._feed = batches, batches.feed
        self._callbacks = callbacks
        self._progress = progress
        self._log = log
        self._run = run
        self._several = self._replication.topology.processes > 1
        self._watched = callbacks_module.watch_batches(callbacks.callbacks)
        self._logs = {}
        self._stop = False
        self._batches = 0
        self.examples = 0.0

    def train(self, epoch, last=False, done=0):
        """Trains one epoch, counted from 0.

        Args:
            epoch: Its number.
            last: Whether none is to follow.
            done: Batches that are done, where a training goes on that has begun the epoch.

        Returns:
            Losses and metrics over all replicas, name to number or array; `None` where a generator
            had ended with the epoch before.

        Raises:
            ValueError: There was no batch.
            RuntimeError: Processes read different batches, or the loss was never finite.
        """
        feed, model = self._feed, self._task.model
        step = self._follow_switch()
        if done == 0:
            step.reset()
            self._task.reset_metrics()
        self._callbacks.on_epoch_begin(epoch)
        if done == 0:
            self._data.begin(epoch)
        self._agree_on_learning_rate()
        self._progress.begin(epoch)
        every = self._interval()
        steps = self._data.steps(done)
        batches = steps or self._batches
        if last and batches:
            left = step.updates(batches - done)
            self._log.expect_last(self._observer, self._log.steps_done + left)
        first, shown, stopped = done, done, False
        while steps is None or done < steps:
            self._callbacks.on_train_batch_begin(done)
            step = self._follow_switch()
            wanted = step.batches_per_execution
            if steps is not None:
                wanted = min(wanted, steps - done)
            made = self._execute(wanted)
            if made == 0 and done == 0 and self._data.restart(epoch):
                made = self._execute(wanted)
            if made == 0:
                break
            self._data.took(made)
            if done == first or done + made - shown >= every:
                shown = done + made
                self._refresh(shown)
            done += made
            if self._watched:
                self.examples, losses = step.read()
                self._logs.update(losses)
                self._callbacks.on_train_batch_end(done - 1, dict(self._logs))
            if self._run is not None:
                self._run.after(self._step, self._observer, epoch, done)
            if self._stop or (model.stop_training and not self._several):
                model.stop_training = stopped = True
                break
        if feed.endless and done < feed.steps and not stopped:
            self._data.ran_out()
            model.stop_training = model.stop_training or feed.one_pass
            if self._replication.is_chief:
                limits.warn_of_the_end(done, feed)
            if done == 0 and feed.one_pass and self._data.place.taken:
                return None
        if done == 0:
            raise ValueError("the dataset gave no batch in this epoch; is it empty?")
        self._task.optimizer.check_skipped()
        if not step.any_finite_loss() and not model.stop_training:
            raise RuntimeError(
                f"the loss was NaN or infinite in every one of the {done} steps of epoch "
                f"{epoch + 1}; look for NaN in the data, lower the learning rate, or set "
                "clip=disttrain.ClipByGlobalNorm(1.0)"
            )
        self._batches = done
        self._data.end()
        step.average_state()
        self._log.read(self._observer)
        self._refresh(done, last=True)
        if not self.examples:
            raise ValueError("the batches of this epoch have no examples; is the dataset empty?")
        self._progress.trained()
        self._log.scalars(self._scalars())
        return dict(self._logs)

    def _follow_switch(self):
        """Goes over to the step of another optimizer, in the middle of an epoch too."""
        step, observer, check = self._current_step()
        if step is not self._step:
            self._log.read(self._observer)
            step.go_on_from(self._step)
            self._step, self._observer, self._check = step, observer, check
        return step

    def ended(self, epoch, logs, stopping):
        """Called at the very end of an epoch; for the arguments see `Run.epoch_ended`."""
        if self._run is not None:
            self._run.epoch_ended(self._step, self._observer, epoch, logs, stopping)

    def learning_rate(self):
        """The learning rate of the next step, a float; NaN where the optimizer has none."""
        return _number(getattr(self._task.optimizer, "learning_rate", float("nan")))

    def _execute(self, wanted):
        if self._run is not None:
            self._run.before(self._step.updates(wanted))
        began = time.perf_counter()
        waiting = self._replication.pulse.waiting("a training step")
        with pipeline_errors(), waiting:
            made = int(self._step.execute(self._data.iterator, tf.constant(wanted)))
        first = self._log.steps_done + 1
        self._log.executed(self._observer, self._step.updates(made), time.perf_counter() - began)
        last = self._log.steps_done
        self._replication.pulse.done(last)
        if self._check is not None and last >= first and self._check.due(first, last):
            self._check.check(last)
        return made

    def _interval(self):
        """Steps between two looks at the metrics; the same on all processes."""
        if self._watched and not self._several:
            return 1
        return max(1, math.ceil((self._feed.steps or 10 * _LOOKS) / _LOOKS))

    def _refresh(self, done, last=False):
        """Reads losses and metrics over all replicas. Called by every process at the same steps."""
        if self._several:
            self._meet()
            self._log.read(self._observer)
        self._task.optimizer.check_skipped()
        if not (last or self._several or self._progress.enabled or self._watched):
            return
        self.examples, losses = self._step.read()
        self._logs = {**losses, **self._task.metric_results()}
        self._progress.update(done, self.examples, self._logs, self.learning_rate())

    def _meet(self):
        flags = [self._task.model.stop_training, self._step.disagreed()]
        with self._replication.pulse.waiting("the look at the metrics"):
            gathered = self._replication.all_gather(np.asarray(flags, np.int32))
        self._stop, disagreed = gathered.any(axis=0)
        if disagreed:
            raise different_batches()

    def _scalars(self):
        """What TensorBoard's own pages get at the end of an epoch; the observer writes the rest."""
        optimizer, scalars = self._task.optimizer, dict(self._logs)
        if optimizer.clip is not None:
            scalars["clip_frequency"] = optimizer.clip_frequency()
        scalars |= self._rates_by_name()
        if self._observer is None:
            rate = self.learning_rate()
            return scalars if math.isnan(rate) else {**scalars, "learning_rate": rate}
        del scalars["loss"]
        return scalars

    def _rates_by_name(self):
        """The learning rate of each of several optimizers of a `CustomStep`."""
        inner = self._task.optimizer.inner
        if not isinstance(inner, NamedOptimizers):
            return {}
        rates = {name: inner[name].learning_rate for name in inner.names}
        return {f"learning_rate/{name}": _number(rate) for name, rate in rates.items()}

    def _agree_on_learning_rate(self):
        """Takes over the chief's learning rate where a callback has set it there alone."""
        inner = self._task.optimizer.inner
        for optimizer in getattr(inner, "optimizers", [inner]):
            rate = optimizer._learning_rate
            if self._several and isinstance(rate, keras.Variable):
                rate.assign(self._replication.all_gather(np.asarray(rate.numpy()))[0])


def _number(value):
    return float(value.numpy() if hasattr(value, "numpy") else value)

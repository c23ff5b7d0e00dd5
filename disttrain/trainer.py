"""`Trainer`: what a user calls. It builds the parts and goes through the epochs.

An epoch's steps are `loop.py`'s; what happens inside of a step is `train_step.py`'s.
"""

import contextlib
import functools
import warnings

import keras
import numpy as np

from disttrain import agreement, custom_checks, heartbeat, kernels, layers, summary
from disttrain import callbacks as callbacks_module
from disttrain import replication as replication_module
from disttrain.batches import Batches
from disttrain.checkpoints import Checkpoint, exchange
from disttrain.checkpoints.run import Run
from disttrain.checkpoints.store import Store
from disttrain.checkpoints.weights import export
from disttrain.custom_run import CustomTask, train_step_of
from disttrain.data import limits, split_off
from disttrain.data.feeds import Feeds
from disttrain.eval_loop import EvalLoop
from disttrain.inference import InferenceMethods
from disttrain.loop import TrainingLoop
from disttrain.on_batch import OnBatchMethods
from disttrain.optimizers import named, switching, wrapping
from disttrain.progress import Progress
from disttrain.range_test import automatic, sweep
from disttrain.replication import ambient
from disttrain.task import Task
from disttrain.telemetry import Telemetry
from disttrain.telemetry.divergence import DivergenceCheck
from disttrain.telemetry.log import RunLog
from disttrain.trainer_method import trainer_method


class Trainer(InferenceMethods, OnBatchMethods):
    """Trains a Keras model on all replicas of a replication.

    The same seed and the same global batches give the same weights under every replication, to
    rounding, for models without random layers.

    Args:
        build_model: A function that returns a `keras.Model`; called in the replication's scope.
        optimizer: A Keras optimizer, its name, a `DistributedOptimizer`, or what
            `disttrain.optimizers.from_legacy` takes: an optimizer of the old API, or any object
            with `apply_gradients`. It belongs to this trainer then; `trainer.optimizer.clone()`
            makes one for another trainer. With a `step` also a dictionary from name to optimizer.
        loss: A `keras.losses.Loss`, its name, a function `(y_true, y_pred)`, or a list or
            dictionary of them for several outputs, by which names the targets and sample weights
            may come as well. Means are taken over the global batch.
        step: A `disttrain.CustomStep`, which computes the losses instead of `loss`.
        metrics: A list of metrics or their names, in Keras's structure for several outputs, or a
            function that returns it.
        loss_weights: A number for each loss, as one number, a list or a dictionary by the names of
            the outputs; `None` for 1. Losses are reported without them, but for their sum `"loss"`.
        weighted_metrics: As `metrics`, for metrics that count the sample weights.
        replication: `"auto"`, `"single"`, `"mirrored"`, `"multi_worker"`, `"horovod"`, a
            `tf.distribute.Strategy`, or a `disttrain.replication.Replication`. In the scope of a
            strategy, `"auto"` adopts it, and another choice is refused.
        clip: A clip such as `disttrain.ClipByGlobalNorm(1.0)`.
        loss_scale: `None`, a number, `"dynamic"`, or a `disttrain.DynamicLossScale`. For a model
            with the dtype policy `mixed_float16`, of its own, by `precision` or by
            `keras.config.set_dtype_policy`, `None` means `"dynamic"`; 1 does not scale.
        accumulate_steps: Batches of the dataset whose gradients make one update, weighted by
            their examples. What is left at the end of an epoch makes an update of its own.
        compression: `None`, `"fp16"` or `"bf16"`: the dtype in which gradients travel.
        precision: Name of a Keras dtype policy under which the model is built.
        steps_per_execution: Steps that run without coming back to Python.
        jit_compile: Whether XLA compiles forward and backward; `"auto"` does not.
        telemetry: A `disttrain.Telemetry`, or `None` to record nothing.
        logdir: The run's directory, or `None` to write no files.
        checkpoint: A `disttrain.Checkpoint`: `fit` saves what it takes to go on, and goes on from
            the newest one in the directory; or `None`.
        hang_seconds: Seconds that a process may wait for the others, in a step or while a training
            is set up, or `None` for ever. Then the one that they wait for is named with its last
            step and with what they wait for, and the job ends. It counts from the first exchange
            of the trainer on; where no process can be named, it is three times as long.
        seed: Seeds Python, NumPy and TensorFlow before the model is built, and the order of
            arrays; `None` leaves them alone.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument has a wrong value, or two of them contradict each other.
        RuntimeError: Horovod is wanted and does not load, or `logdir` cannot be written.
    """

    def __init__(
        self,
        build_model,
        *,
        optimizer="adam",
        loss=None,
        step=None,
        metrics=None,
        loss_weights=None,
        weighted_metrics=None,
        replication="auto",
        clip=None,
        loss_scale=None,
        accumulate_steps=1,
        compression=None,
        precision=None,
        steps_per_execution=1,
        jit_compile="auto",
        telemetry=Telemetry(),  # noqa: B008, it is immutable
        logdir=None,
        checkpoint=None,
        hang_seconds=600.0,
        seed=0,
    ):
        several = custom_checks.several(optimizer, step)
        if step is not None:
            custom_checks.step(step, loss, several, loss_weights)
        if not isinstance(steps_per_execution, int) or steps_per_execution < 1:
            raise ValueError(
                f"steps_per_execution must be a whole number from 1, not {steps_per_execution!r}"
            )
        if jit_compile not in (True, False, "auto"):
            raise ValueError(f"jit_compile must be True, False or 'auto', not {jit_compile!r}")
        if telemetry is not None and not isinstance(telemetry, Telemetry):
            raise TypeError(f"telemetry must be a disttrain.Telemetry or None, not {telemetry!r}")
        if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
            raise TypeError(
                f"checkpoint must be a disttrain.Checkpoint or None, not {checkpoint!r}"
            )
        self.replication = replication_module.resolve(replication)
        if jit_compile is True and self.replication.topology.local_replicas > 1:
            raise ValueError(
                "jit_compile=True needs one replica a process, for XLA compiles for one device; "
                "use Horovod or multi_worker with one device each, or jit_compile='auto'"
            )
        self.steps_per_execution = steps_per_execution
        self._jit_compile = jit_compile is True
        self._telemetry = telemetry
        self._seed = seed
        if hang_seconds is not None and not hang_seconds > 0:
            raise ValueError(f"hang_seconds must be above 0 or None, not {hang_seconds!r}")
        self._hang_seconds = hang_seconds
        self._run = None
        if self.replication.regroups and checkpoint is None:
            raise ValueError(
                "an elastic job goes on from its last checkpoint when ranks die or join: give the "
                "Trainer a checkpoint=disttrain.Checkpoint(directory)"
            )
        self._settings = {
            "clip": clip,
            "loss_scale": loss_scale,
            "accumulate_steps": accumulate_steps,
            "compression": compression,
        }
        wrap = named.wrapped if several else wrapping.wrapped
        task = Task if step is None else functools.partial(CustomTask, step)
        with ambient.leave(self.replication), self.replication.regrouping():
            self._listen()
        if seed is not None:
            # After what draws numbers of its own, such as the registration of an elastic job.
            keras.utils.set_random_seed(seed)
        creation = self._waiting_for_variables("the creation of the model's variables")
        with ambient.leave(self.replication), creation:
            optimizer = wrap(optimizer, self.replication, self._settings)
            self._task = task(
                build_model,
                optimizer,
                loss,
                metrics,
                self.replication,
                precision,
                loss_weights=loss_weights,
                weighted_metrics=weighted_metrics,
            )
        self._feeds = Feeds(self.replication, seed)
        goes_on = checkpoint is not None and bool(Store(checkpoint).names())
        self._log = RunLog.open(logdir, self.replication, goes_on)
        if checkpoint is not None:
            self._run = Run(checkpoint, self.replication, self._log, seed)
        self._train_step = self._train_feed = self._observer = self._check = None
        self._eval_loop = EvalLoop(self._task, self._feeds)
        self._ready = self._announced = False
        self._places = {"Logs": logdir, "Checkpoints": getattr(checkpoint, "directory", None)}

    @property
    def model(self):
        """The `keras.Model`."""
        return self._task.model

    @property
    def optimizer(self):
        """The `DistributedOptimizer`; its `inner` is the Keras optimizer."""
        return self._task.optimizer

    @property
    def findings(self):
        """What the health rules have warned of so far, a tuple of findings; on the chief."""
        return self._log.findings

    @trainer_method
    def fit(
        self,
        x,
        y=None,
        *,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
        learning_rate=None,
    ):
        """Trains.

        Args:
            x: A `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)` batched with the global
                batch size; a `keras.utils.PyDataset`, a generator, or another iterable of such
                batches, such as a PyTorch `DataLoader`; or arrays. All processes read the same
                global batches in the same order, so what draws random numbers needs the same seed
                on each. Or a function of a `tf.distribute.InputContext` that returns a dataset of
                this process's part.
            y: Targets, where `x` is arrays.
            batch_size: Global batch size for arrays, 32 by default.
            epochs: Number of the epoch after the last one.
            verbose: 0 is silent, 1 or `"auto"` shows a progress bar, 2 a line an epoch.
            callbacks: Keras callbacks. Those that write files run on the chief alone.
            validation_split: Part of the arrays, from the end, that is kept for validation.
            validation_data: As `x`, or a tuple of arrays `(x, y)` or `(x, y, sample_weight)`.
            shuffle: Whether arrays, and the batches of a finite `PyDataset`, are shuffled in each
                epoch, in an order that follows from the trainer's seed.
            class_weight: Class number to a weight for its examples in training, as in Keras, or
                `None`; with a single target, and without sample weights.
            sample_weight: Weights for arrays.
            initial_epoch: Number of the first epoch.
            steps_per_epoch: Steps of an epoch; by default the whole dataset. The next epoch
                continues where the last one ended. Where the data end, the epoch ends with a
                warning, and the next one reads them from the beginning.
            validation_steps: Steps of a validation, from the beginning of the data; by default
                the whole dataset.
            validation_batch_size: Global batch size for validation arrays.
            validation_freq: Validate after every so many epochs, or a list of epochs from 1.
            learning_rate: `"auto"` begins with a range test, `lr_range`, and trains with what it
                suggests: instead of the optimizer's number, or as the peak of its schedule. Where a
                checkpoint is resumed, the restored rate counts.

        Returns:
            A `keras.callbacks.History`.

        With a checkpoint in the directory of `checkpoint`, it goes on from there, at the epoch and
        batch that come next, and the history is that of the whole training. Calls of `fit` are
        counted: those that were done when the checkpoint was saved do nothing.

        Raises:
            ValueError: The data do not fit, or a checkpoint is of another training, see the
                message.
            TypeError: The data are of no known kind.
            RuntimeError: Processes read different data, the loss was not finite in any step of an
                epoch, no checkpoint is whole, or another job uses their directory.
            SystemExit: A signal has stopped the training, and a checkpoint was saved.
        """
        if validation_split:
            (x, y, sample_weight), validation_data = split_off(
                x, y, sample_weight, validation_split, validation_data
            )
        epochs = limits.limit_epochs(epochs)
        feed = self._feeds.of(
            x,
            y,
            sample_weight,
            batch_size,
            steps_per_epoch,
            shuffle=shuffle,
            training=True,
            steps_name="steps_per_epoch",
            class_weight=class_weight,
        )
        validation = None
        if validation_data is not None:
            validation = self._feeds.validation(
                validation_data, validation_batch_size or batch_size, validation_steps
            )
        limits.check_passes(feed, epochs - initial_epoch, "fit with several epochs")
        if validation is not None:
            times = sum(_due(epoch, validation_freq) for epoch in range(initial_epoch, epochs))
            limits.check_passes(validation, times, "validation after several epochs")
        self._prepare(feed)
        agreement.check_batches(
            self.replication, feed.steps, feed.length if feed.is_finite else None
        )
        if learning_rate is not None:
            updates = feed.steps and sum(
                map(self._train_step.updates, feed.steps_of(epochs - initial_epoch))
            )
            automatic.check(self.optimizer, learning_rate, updates)
            trial = self._feeds.trial(
                x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight
            )
            if self._run is not None:
                automatic.check_feed(trial)
        callbacks_module.refuse_telemetry(callbacks)
        callbacks_module.on_this_process(callbacks, self.replication.is_chief)
        verbose = 1 if verbose == "auto" else int(verbose)
        if not self.replication.is_chief:
            verbose = 0
        if not self._announced:
            batch = summary.batch_of(x, batch_size, self.replication.topology)
            summary.announce(self, batch, self._places, verbose)
            self._announced = True
        batches = Batches(feed)
        surroundings = contextlib.nullcontext()
        if self._run is not None:
            surroundings = self._run.fit(self._task, batches, epochs)
        with surroundings, contextlib.closing(batches):
            if learning_rate is not None:
                resumed = self._run is not None and self._run.goes_on()
                say = automatic.choose(self._task, trial, updates, resumed, self._jit_compile)
                self._train_step = None
                self._prepare(feed)
                if verbose:
                    print(say, flush=True)
            return self._train(
                batches, epochs, initial_epoch, validation, validation_freq, callbacks, verbose
            )

    def _listen(self):
        """Lets the processes find the one that all wait for, from now on."""
        heartbeat.listen(self.replication, self._hang_seconds, self._hung)

    def _waiting_for_variables(self, what):
        """Around what creates variables, where the processes exchange each one's first value."""
        if hasattr(self.replication, "strategy"):
            return self.replication.pulse.waiting(what)
        return contextlib.nullcontext()

    def _hung(self, rank, error):
        """Says on the disk which process has held the others up."""
        if self._run is not None:
            self._run.hung(rank, error)

    def _train(self, batches, epochs, initial_epoch, validation, frequency, callbacks, verbose):
        """Goes through the epochs."""
        feed, done, resumed = batches.feed, 0, None
        if self._run is not None:
            resumed = self._run.go_on(self._train_step, self._observer)
            if resumed is not None and feed.not_resumable and self.replication.is_chief:
                warnings.warn(feed.not_resumable, stacklevel=2)
        chosen = callbacks_module.on_this_process(callbacks, self.replication.is_chief)
        history = keras.callbacks.CallbackList(
            chosen,
            add_history=True,
            model=self.model,
            epochs=epochs,
            steps=feed.steps,
            verbose=verbose,
        )
        progress = Progress(epochs, feed.steps, verbose)

        def current_step():
            if self._train_step is None:
                self._prepare(feed)
            return self._train_step, self._observer, self._check

        loop = TrainingLoop(
            self._task, current_step, batches, history, progress, self._log, self._run
        )
        self.model.stop_training = False
        self.model._initial_epoch = None  # BackupAndRestore sets it, and Keras keeps it.
        history.on_train_begin()
        self._after_restore(callbacks, chosen)
        initial_epoch = getattr(self.model, "_initial_epoch", None) or initial_epoch
        if self._run is not None:
            self._run.begin(history.callbacks, self.model.history)
        if resumed is not None:
            initial_epoch = epochs if resumed.over else resumed.epoch
            done = resumed.batches
        logs = {}
        try:
            for epoch in range(initial_epoch, epochs):
                logs = loop.train(epoch, last=epoch == epochs - 1, done=done)
                done = 0
                if logs is None:
                    break
                if validation is not None and _due(epoch, frequency):
                    self._prepare(validation, training=False, targets=True)
                    values = self._eval_loop.evaluate(validation, history)
                    logs.update({f"val_{name}": value for name, value in values.items()})
                self._log.scalars({k: v for k, v in logs.items() if k.startswith("val_")})
                progress.end(loop.examples, logs, loop.learning_rate())
                history.on_epoch_end(epoch, logs)
                self._log.flush()
                stopping = self.replication.any(self.model.stop_training)
                loop.ended(epoch, logs, stopping)
                if stopping:
                    self.model.stop_training = True
                    break
        except BaseException:
            self._log.rescue(self._observer)
            raise
        finally:
            progress.close()
            self._log.finish()
        if epochs > initial_epoch or (resumed is not None and resumed.restored):
            self.optimizer.finalize_variable_values(self._task.trained_variables)
        history.on_train_end(logs)
        return self.model.history

    @trainer_method
    def lr_range(
        self,
        x,
        y=None,
        *,
        batch_size=None,
        sample_weight=None,
        class_weight=None,
        steps_per_epoch=None,
        shuffle=True,
        **options,
    ):
        """Tries learning rates on a few batches; see `disttrain.experiments.lr_range`."""
        feed = self._feeds.trial(
            x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight
        )
        self._prepare(feed)
        return sweep.run(self._task, feed, jit_compile=self._jit_compile, **options)

    @trainer_method
    def switch_optimizer(self, optimizer, *, carry_over=True, warmup_steps=0):
        """Goes on with another optimizer; weights, step count and the run's files stay.

        If all slots of the new optimizer mean what slots of the old one do, as Adam's and AdamW's
        moments, they go over, and so does the count of iterations. Else they begin anew, and the
        count at 0, as bias corrections need; the schedule still goes on from the step where
        training is.

        Args:
            optimizer: A new Keras optimizer, its name, or a `DistributedOptimizer`. Unless it is
                the latter, the clip, the loss scale and the rest of the trainer's settings stay.
            carry_over: Whether slots go over.
            warmup_steps: Over so many steps the learning rate rises from 0 to its own, so that
                slots which begin at 0 fill before they are relied on.

        Raises:
            TypeError: `optimizer` is no optimizer.
            ValueError: It has been built for other variables.
        """
        before = self._task.optimizer
        custom_checks.can_switch(before, optimizer)
        after = wrapping.wrapped(optimizer, self.replication, self._settings)
        with self.replication.scope():
            wrapping.scale_loss_of(self.model, after)
        self._task.optimizer = self.model.optimizer = after
        self._train_step = None
        if before.built:
            with self.replication.scope():
                variables = self._task.trained_variables
                switching.carry_over(before, after, variables, carry_over, warmup_steps)

    @trainer_method
    def export(self, path):
        """Saves the whole model as a `.keras` file, on the chief; called by every process.

        Args:
            path: The file. It is there complete, or as it was before.

        Raises:
            ValueError: The name does not end in `.keras`.
            OSError: It cannot be written.
        """
        exchange.told_by_chief(self.replication, lambda: export(self.model, path))

    def _prepare(self, feed, training=True, targets=False):
        """Builds what is not built yet, once the structure of the data is known."""
        if (training or targets) and self._task.needs_targets and len(feed.spec) < 2:
            raise ValueError(
                "the data have no targets: fit and evaluate need (x, y) or (x, y, sample_weight)"
            )
        with self._waiting_for_variables("the creation of the optimizer's variables"):
            self._task.build(feed.spec, training)
        if not self._ready:
            self._ready = True
            kernels.agree(self.replication)
            agreement.check_variables(self.replication, self.model.variables, "the model")
            shared = self.optimizer.to_broadcast(self.model.variables)
            with self.replication.pulse.waiting("the broadcast of the chief's weights"):
                self.replication.start_equal(shared)
            layers.refresh(self.model)
            self._task.spread_seeds()
        if not training:
            return
        changed = self._train_feed is None or (
            repr((feed.spec, feed.shared)) != repr((self._train_feed.spec, self._train_feed.shared))
        )
        same_variables = self._train_step is not None and [
            id(v) for v in self._train_step.variables
        ] == [id(v) for v in self._task.trained_variables]
        if self._train_step is None or changed or not same_variables:
            agreement.check_variables(self.replication, self.optimizer.variables, "the optimizer")
            shared = self.optimizer.to_broadcast(self.optimizer.variables)
            with self.replication.pulse.waiting("the broadcast of the chief's optimizer state"):
                self.replication.start_equal(shared)
            variables = self._task.trained_variables
            if not variables and self.replication.is_chief:
                warnings.warn(
                    "The model has no trainable variables: fit computes its loss and metrics, and "
                    "changes nothing but the state of layers such as BatchNormalization.",
                    stacklevel=3,
                )
            self._observer = self._log.observer(
                self._telemetry if variables else None,
                self.optimizer,
                variables,
                self.steps_per_execution,
            )
            self._check = self._divergence_check()
            self._train_step = train_step_of(self._task)(
                self._task,
                feed,
                self.steps_per_execution,
                self._jit_compile,
                self._observer,
                self._run.wishes if self._run is not None else None,
            )
            self._train_feed = feed

    def _divergence_check(self):
        every = self._telemetry.divergence_every if self._telemetry is not None else None
        if every is None or self.replication.replicas == 1:
            return None
        equal = [v for v in self.model.trainable_variables if not self.optimizer.is_local(v)]
        return DivergenceCheck(self.replication, equal, every) if equal else None

    def _after_restore(self, callbacks, chosen):
        """Brings all processes to the state that a callback of the chief has restored."""
        listed = keras.tree.flatten(callbacks) if callbacks is not None else chosen
        if self.replication.topology.processes == 1 or not callbacks_module.restores(listed):
            return
        epoch = np.asarray(getattr(self.model, "_initial_epoch", None) or 0)
        self.model._initial_epoch = int(self.replication.all_gather(epoch)[0])
        variables = [*self.model.variables, *self.optimizer.variables]
        self.replication.broadcast(self.optimizer.to_broadcast(variables))
        layers.refresh(self.model)


def _due(epoch, frequency):
    if isinstance(frequency, int):
        return (epoch + 1) % frequency == 0
    return epoch + 1 in frequency

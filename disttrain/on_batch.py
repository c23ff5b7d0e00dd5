"""`train_on_batch`, `test_on_batch` and `predict_on_batch`, which `Trainer` inherits."""

import time

import tensorflow as tf

from disttrain.batches import let_go
from disttrain.data import pipeline_errors
from disttrain.fingerprints import different_batches
from disttrain.trainer_method import trainer_method


class OnBatchMethods:
    """What a trainer does with a single batch."""

    @trainer_method
    def train_on_batch(
        self,
        x,
        y=None,
        sample_weight=None,
        class_weight=None,
        return_dict=False,
    ):
        """Makes one update with one global batch, the same on every process.

        Args:
            x: Inputs, arrays in the model's structure.
            y: Targets.
            sample_weight: Weights of the examples, or `None`.
            class_weight: As for `fit`.
            return_dict: Whether a dictionary is returned, else a list as in Keras.

        Returns:
            The loss and the metrics of the batch.

        Raises:
            ValueError: The data do not fit, or `accumulate_steps` is above 1.
            RuntimeError: The processes have read different batches.
        """
        if self._task.optimizer.accumulate_steps > 1:
            raise ValueError(
                "train_on_batch makes one update with one batch, but the trainer has "
                f"accumulate_steps={self._task.optimizer.accumulate_steps}; use fit, or leave "
                "accumulate_steps at 1 and give larger batches"
            )
        feed = self._feeds.one_batch(x, y, sample_weight, training=True, class_weight=class_weight)
        self._prepare(feed)
        logs = train(self._task, self._train_step, feed, self._log, self._observer)
        return logs if return_dict else as_list(self._task, logs)

    @trainer_method
    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Computes the loss and the metrics of one global batch, the same on every process.

        Args:
            x: Inputs, arrays in the model's structure.
            y: Targets.
            sample_weight: Weights of the examples, or `None`.
            return_dict: Whether a dictionary is returned, else a list as in Keras.

        Returns:
            The loss and the metrics of the batch.
        """
        feed = self._feeds.one_batch(x, y, sample_weight)
        self._prepare(feed, training=False, targets=True)
        logs = self._eval_loop.evaluate(feed)
        return logs if return_dict else as_list(self._task, logs)

    @trainer_method
    def predict_on_batch(self, x):
        """Computes the model's outputs for one global batch, the same on every process.

        Args:
            x: Inputs, arrays in the model's structure.

        Returns:
            As `predict`.
        """
        feed = self._feeds.one_batch(x, None, None)
        self._prepare(feed, training=False)
        return self._eval_loop.predict(feed)


def train(task, step, feed, log, observer):
    """Makes an update with the batch of a feed. Called by every process.

    Args:
        task: A built `disttrain.task.Task`.
        step: The `TrainStep`.
        feed: A `Feed` of one batch.
        log: The `disttrain.telemetry.log.RunLog`.
        observer: The `Observer` of the step, or `None`.

    Returns:
        Name to number or array: the losses and metrics of the batch alone.

    Raises:
        RuntimeError: The processes have read different batches.
    """
    step.reset()
    task.reset_metrics()
    began = time.perf_counter()
    held = [iter(feed.dataset(0))]
    with pipeline_errors(), task.replication.pulse.waiting("a training step"):
        step.execute(held[0], tf.constant(1))
    task.optimizer.check_skipped()
    let_go(held)
    log.executed(observer, 1, time.perf_counter() - began)
    if task.replication.any(step.disagreed()):
        raise different_batches()
    step.average_state()
    _, losses = step.read()
    return {**losses, **task.metric_results()}


def as_list(task, logs):
    """Numbers in the order in which Keras returns them; a single one by itself.

    Args:
        task: A built `disttrain.task.Task`.
        logs: Name to number or array.
    """
    names = ["loss"]
    if task.metrics is not None:
        names += [metric.name for metric in task.metrics.metrics]
    names += task.losses.names
    first = [name for name in dict.fromkeys(names) if name in logs]
    values = [logs[name] for name in [*first, *sorted(set(logs) - set(first))]]
    return values[0] if len(values) == 1 else values

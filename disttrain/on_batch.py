"""What `train_on_batch` and its like do with a feed of one batch."""

import time

import tensorflow as tf

from disttrain.batches import let_go
from disttrain.data import pipeline_errors
from disttrain.fingerprints import different_batches
from disttrain.optimizers import skips


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
    with (
        pipeline_errors(),
        skips.readable_errors(),
        task.replication.pulse.waiting("a training step"),
    ):
        step.execute(held[0], tf.constant(1))
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

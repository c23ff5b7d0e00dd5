"""Evaluation and prediction over a feed, with their callbacks.

A step without gradients is `eval_step.py`'s. All processes run the same loop: numbers that a
callback of one of them looks at, and its wish to stop, are shared at the same batches.
"""

import math

import keras

from disttrain.callbacks import overrides
from disttrain.custom_run import evaluate_step_of
from disttrain.eval_step import PredictStep

#: How often an evaluation of several processes gathers its results, at most.
_LOOKS = 50


class EvalLoop:
    """Evaluates and predicts with the model of a task.

    Args:
        task: A `disttrain.task.Task`.
        feeds: The `disttrain.data.feeds.Feeds` of the trainer.
    """

    def __init__(self, task, feeds):
        self._task = task
        self._feeds = feeds
        self._replication = task.replication
        self._evaluate_steps = {}
        self._predict_steps = {}

    def evaluate(self, feed, callbacks=None, progress=None):
        """Computes the loss and the metrics over all examples.

        Args:
            feed: A `Feed` for which the task is built.
            callbacks: A `keras.callbacks.CallbackList`, or `None`.
            progress: A `disttrain.progress.BatchProgress`, or `None`.

        Returns:
            Name to number or array.
        """
        step = _step_for(self._evaluate_steps, evaluate_step_of(self._task), self._task, feed)
        callbacks = callbacks or keras.callbacks.CallbackList()
        model, logs = self._task.model, {}
        looks = _Looks(self._replication, callbacks, "test", feed.steps)
        model.stop_evaluating = False
        callbacks.on_test_begin()
        step.reset()
        self._task.reset_metrics()
        for number, element in enumerate(self._feeds.elements(feed)):
            callbacks.on_test_batch_begin(number)
            with self._replication.pulse.waiting("a step of the evaluation"):
                step.execute(element)
            if looks.due(number):
                logs = {**step.read(), **self._task.metric_results()}
            callbacks.on_test_batch_end(number, dict(logs))
            if progress is not None:
                progress.update(number + 1)
            if looks.stops(number, model.stop_evaluating):
                break
        step.check()
        values = {**step.read(), **self._task.metric_results()}
        callbacks.on_test_end(values)
        if progress is not None:
            progress.end(values)
        return values

    def predict(self, feed, callbacks=None, progress=None):
        """Computes the model's outputs for all examples.

        Args:
            feed: As for `evaluate`; all processes read the same.
            callbacks: As for `evaluate`.
            progress: As for `evaluate`.

        Returns:
            Outputs in the model's structure, in the order of the examples.
        """
        step = _step_for(self._predict_steps, PredictStep, self._task, feed)
        callbacks = callbacks or keras.callbacks.CallbackList()
        model = self._task.model
        looks = _Looks(self._replication, callbacks, "predict", feed.steps, each=True)
        model.stop_predicting = False
        callbacks.on_predict_begin()
        step.reset()
        for number, element in enumerate(self._feeds.elements(feed)):
            callbacks.on_predict_batch_begin(number)
            with self._replication.pulse.waiting("a step of the prediction"):
                step.add(element)
            logs = {"outputs": step.last_batch()} if looks.due(number) else {}
            callbacks.on_predict_batch_end(number, logs)
            if progress is not None:
                progress.update(number + 1)
            if looks.stops(number, model.stop_predicting):
                break
        step.check()
        outputs = step.read()
        callbacks.on_predict_end()
        if progress is not None:
            progress.end({})
        return outputs


class _Looks:
    """When callbacks see numbers, and whether one stops; the same on all processes.

    Args:
        replication: A `Replication`. All processes make one.
        callbacks: A `keras.callbacks.CallbackList`.
        mode: `"test"` or `"predict"`.
        steps: Batches, or `None`.
        each: Whether they see each batch, also where there are several processes.
    """

    def __init__(self, replication, callbacks, mode, steps, each=False):
        own = overrides(callbacks.callbacks, f"on_{mode}_batch_begin", f"on_{mode}_batch_end")
        self._replication = replication
        self._several = replication.topology.processes > 1
        self._watched = replication.any(own)
        self._every = 1
        if self._several and not each:
            self._every = max(1, math.ceil((steps or 10 * _LOOKS) / _LOOKS))

    def due(self, number):
        """Whether a callback of any process sees the numbers after this batch."""
        return self._watched and number % self._every == 0

    def stops(self, number, own):
        """Whether a callback of any process has stopped the loop."""
        if not self._several:
            return own
        return self.due(number) and self._replication.any(own)


def _step_for(steps, make, task, feed):
    """The step for data of this structure, a new one where there is none yet."""
    key = repr((feed.spec, feed.shared))
    if key not in steps:
        steps[key] = make(task, feed)
    return steps[key]

"""Metrics that layers and models update by themselves, such as a `keras.metrics.Mean` of a loss.

Their states are summed over the replicas. A mean that gets one number for each batch weights it by
the replica's examples. A replica without examples computes on a borrowed one; its metrics keep
their state.
"""

import contextlib
import threading

import keras
import tensorflow as tf

_thread = threading.local()


def find(model):
    """The metrics of a model beside those of `compile`, each once."""
    compiled = [model._loss_tracker, model._compile_metrics]
    if model._compile_loss is not None:
        compiled += model._compile_loss.metrics
    known = {id(metric) for metric in compiled}
    found = []
    for metric in model.metrics:
        if id(metric) not in known:
            known.add(id(metric))
            found.append(metric)
    return found


def weigh_single_numbers(metrics):
    """Lets the means among `metrics` weigh single numbers by the `share` of `counting`."""
    for metric in metrics:
        if type(metric).update_state is keras.metrics.Mean.update_state:
            metric.update_state = _weighing(metric.update_state)


def _weighing(update_state):
    def weighing(values, sample_weight=None):
        share = getattr(_thread, "share", None)
        if share is not None and sample_weight is None:
            values = tf.convert_to_tensor(values)
            if values.shape.rank == 0:
                sample_weight = share
        return update_state(values, sample_weight=sample_weight)

    return weighing


@contextlib.contextmanager
def counting(metrics, share=None, keep=None):
    """The context in which layers update their metrics.

    Args:
        metrics: A list of `keras.metrics.Metric`.
        share: float32 scalar, by which single numbers count; 1 where all replicas have equally many
            examples. `None` for 1.
        keep: Boolean scalar or bool, whether the updates stay; `None` for yes.
    """
    variables = [variable for metric in metrics for variable in metric.variables]
    before = [] if keep is None else [tf.identity(variable.value) for variable in variables]
    outer = getattr(_thread, "share", None)
    _thread.share = share
    try:
        yield
    finally:
        _thread.share = outer
    if keep is not None:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(tf.where(keep, variable.value, value))

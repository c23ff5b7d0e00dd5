"""The metrics of `compile`, updated so that their states add up over the replicas.

A metric that counts examples does so by itself. A function that returns one number for a batch, or
a loss that is used as a metric, gets the examples of all replicas.
"""

import inspect

import keras
import tensorflow as tf

from disttrain.global_batch import GlobalBatch
from disttrain.keras_loss_scaling import unscaled
from disttrain.shape_probe import returned_shape


class CompiledMetrics:
    """Updates a model's compiled metrics.

    Args:
        metrics: What `model.compile` has made of `metrics` and `weighted_metrics`.
        replication: A `Replication`.
    """

    def __init__(self, metrics, replication):
        self._metrics = metrics
        self._replication = replication
        self._whole = []

    def build(self, y_true, y_pred):
        """Creates the variables, in the replication's scope.

        Args:
            y_true: Symbolic targets, in the structure of the outputs.
            y_pred: Symbolic outputs.

        Raises:
            ValueError: The state of a metric is no sum, so that states of replicas cannot be added.
        """
        if self._metrics.built:
            return
        self._metrics.build(y_true, y_pred)
        if self._replication.replicas == 1:
            return
        targets, outputs = self._metrics._flatten_y(y_true), self._metrics._flatten_y(y_pred)
        for weighted, groups in (
            (False, self._metrics._flat_metrics),
            (True, self._metrics._flat_weighted_metrics),
        ):
            for i, group in enumerate(groups):
                for metric in group.metrics if group else ():
                    self._prepare(metric, i, weighted, targets[i], outputs[i])

    def _prepare(self, metric, i, weighted, y_true, y_pred):
        if isinstance(metric, keras.metrics.MeanMetricWrapper):
            if _is_of_whole_batches(metric, y_true, y_pred):
                self._whole.append((i, weighted, metric.update_state))
                metric.update_state = _nothing
        elif not type(metric).__module__.startswith("keras.") and y_true is not None:
            _check_state_is_sum(metric, y_true, y_pred)

    def update(self, y_true, y_pred, sample_weight, rows):
        """Adds the examples of this replica; in replica context.

        Args:
            y_true: Targets in the structure of the outputs.
            y_pred: Outputs.
            sample_weight: In the structure of the outputs, or `None`.
            rows: The `disttrain.losses.Rows` of this replica.
        """

        def update():
            with unscaled():
                self._metrics.update_state(y_true, y_pred, sample_weight=sample_weight)
            return True

        if rows.may_borrow:
            tf.cond(rows.local > 0, update, lambda: False)
        else:
            update()
        if self._whole:
            self._update_whole(y_true, y_pred, sample_weight, rows)

    def _update_whole(self, y_true, y_pred, sample_weight, rows):
        flatten = self._metrics._flatten_y
        targets, outputs = flatten(y_true), flatten(y_pred)
        weights = [None] * len(outputs) if sample_weight is None else flatten(sample_weight)
        gathered = {}
        for i, weighted, update_state in self._whole:
            if (i, weighted) not in gathered:
                batch = GlobalBatch(self._replication, rows, f"metric.{i}.{weighted}")
                weight = weights[i] if weighted else None
                y_p = batch.gather_with_mask(outputs[i])
                weight = None if weight is None else batch.gather(weight)
                gathered[i, weighted] = (batch.gather(targets[i]), y_p, weight)
            y_t, y_p, weight = gathered[i, weighted]
            # All replicas add the same to a mean, which leaves it as it is.
            with unscaled():
                update_state(y_t, y_p, sample_weight=weight)


def _nothing(*arguments, **options):
    """Leaves a metric as it is."""


def _is_of_whole_batches(metric, y_true, y_pred):
    """Whether a metric's function returns no values of single examples."""
    if inspect.isfunction(metric._fn) and metric._fn.__module__.startswith("keras."):
        return False

    def call(y_true, y_pred):
        return metric._fn(y_true, y_pred, **metric._fn_kwargs)

    shape, examples = returned_shape(call, y_true, y_pred)
    if shape is None or shape.rank is None:
        return False
    # One that leaves examples out returns an unknown number of values, each of one example.
    return shape.rank == 0 or shape[0] not in (None, examples)


def _check_state_is_sum(metric, y_true, y_pred):
    """Raises a `ValueError` if an update does not add the same to any state."""
    if any(getattr(v, "aggregation", "sum") != "sum" for v in metric.variables):
        return
    rng = tf.random.Generator.from_seed(0)

    def example(tensor):
        shape = [5 if size is None else size for size in tensor.shape]
        return tf.cast(rng.uniform(shape, 0.1, 1.0), tensor.dtype)

    arguments = example(y_true), example(y_pred)
    state = [tf.convert_to_tensor(v.value) for v in metric.variables]
    try:
        first = metric.stateless_update_state(state, *arguments)
        second = metric.stateless_update_state(first, *arguments)
    except Exception:  # Not every metric takes such values.
        return
    for start, once, twice in zip(state, first, second, strict=True):
        start, once, twice = (tf.cast(value, tf.float64) for value in (start, once, twice))
        if not bool(tf.reduce_all(tf.abs((twice - once) - (once - start)) < 1e-3)):
            raise ValueError(
                f"the state of the metric {metric.name!r} is not a sum over examples, so the "
                "states of several replicas cannot be added up; let update_state add to its "
                "variables, say with aggregation='mean' or 'only_first_replica' in add_variable "
                "how replicas' values go together, or use replication='single'"
            )

"""Optimizers and metrics that were made outside of the scope of several replicas."""

import importlib.util

import keras
import pytest
import tensorflow as tf

import disttrain
from disttrain.optimizers import Group, Grouped, Lookahead
from tests._support.tiny_models import LABELS, X, batches, compiled, dense, trainer_of
from tests.optimizers import steps


class Fading(keras.optimizers.SGD):
    """An optimizer with state and settings that its configuration lacks."""

    def __init__(self, learning_rate=0.1, fade=1.0, name="fading"):
        super().__init__(learning_rate, name=name)
        self.fade = fade
        self.strength = self.add_variable((), initializer="ones", name="strength")
        self.others = [keras.Variable(2.0, trainable=False)]

    def update_step(self, gradient, variable, learning_rate):
        rate = learning_rate * self.strength * tf.cast(self.others[0], tf.float32)
        super().update_step(gradient, variable, rate)
        self.strength.assign(tf.cast(self.strength, tf.float32) * self.fade)


def later(optimizer):
    """Changes what only the object knows, after it was made."""
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma"])
    optimizer.learning_rate = 0.02
    optimizer.iterations.assign(5)
    return optimizer


def faded():
    optimizer = Fading(0.05, fade=0.5)
    optimizer.strength.assign(3.0)
    return optimizer


MADE = {
    "AdamW": lambda: later(keras.optimizers.AdamW(0.1, weight_decay=0.4)),
    "Lookahead": lambda: later(
        Lookahead(keras.optimizers.AdamW(0.1, weight_decay=0.4), sync_period=2)
    ),
    "Grouped": lambda: later(
        Grouped(keras.optimizers.AdamW(0.1, weight_decay=0.4), [Group("head/*", learning_rate=0.5)])
    ),
    "MultiOptimizer": lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            later(keras.optimizers.AdamW(0.1, weight_decay=0.4)), {".*head.*": faded()}
        )
    ),
    "a subclass": faded,
}


@pytest.mark.graph
@pytest.mark.parametrize("name", MADE)
def test_what_the_configuration_lacks_counts_on_several_replicas(name, mirrored):
    expected, _ = steps.alone(MADE[name], 4)
    weights, _ = steps.together(mirrored(2), MADE[name], 4, adopt=True)
    steps.assert_close(weights, expected)


@pytest.mark.unit
def test_the_optimizer_stays_the_object_that_the_user_holds(mirrored):
    optimizer = keras.optimizers.Adam(0.1)
    trainer = trainer_of(optimizer=optimizer, replication=mirrored(2))
    assert trainer.optimizer.inner is optimizer
    optimizer.learning_rate = 0.5
    assert float(trainer.optimizer.learning_rate.numpy()) == 0.5
    assert [v.path for v in optimizer.variables] == ["adam/iteration", "adam/learning_rate"] or (
        all("/" in v.path for v in optimizer.variables)
    )
    assert len(optimizer.variables) == 2


@pytest.mark.unit
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_addons") is None, reason="there are no Addons"
)
@pytest.mark.parametrize("wrap", [lambda o: o, Lookahead], ids=["alone", "in Lookahead"])
def test_an_adapter_stays_the_object_that_the_user_holds(mirrored, wrap):
    optimizer = disttrain.optimizers.from_addons("LAMB", learning_rate=0.1)
    trainer = trainer_of(optimizer=wrap(optimizer), replication=mirrored(2))
    optimizer.learning_rate = 0.5
    assert float(trainer.optimizer.learning_rate.numpy()) == 0.5


@pytest.mark.unit
def test_variables_that_cannot_be_replaced_are_refused(mirrored):
    class Holder:
        def __init__(self):
            self.variable = tf.Variable(1.0)

    optimizer = keras.optimizers.SGD(0.1)
    optimizer.holder = Holder()
    with pytest.raises(ValueError, match="'holder', outside of the scope"):
        trainer_of(optimizer=optimizer, replication=mirrored(2))


@pytest.mark.unit
def test_a_built_optimizer_is_refused_on_several_replicas(mirrored):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([keras.Variable([1.0])])
    with pytest.raises(ValueError, match="has built its slots outside"):
        trainer_of(optimizer=optimizer, replication=mirrored(2))


@pytest.mark.graph
def test_an_optimizer_made_outside_of_the_scope_is_moved_where_it_is_wrapped_in_it(mirrored):
    replication = mirrored(2)
    inner = later(keras.optimizers.AdamW(0.1, weight_decay=0.4))
    made = lambda: disttrain.DistributedOptimizer(inner).inner  # noqa: E731
    weights, _ = steps.together(replication, made, 3)
    expected, _ = steps.alone(MADE["AdamW"], 3)
    steps.assert_close(weights, expected)


@pytest.mark.unit
def test_one_optimizer_for_two_trainers_is_refused(one_or_two):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    first = trainer_of(optimizer=optimizer, replication=one_or_two)
    first._task.build([tf.TensorSpec((None, 4)), tf.TensorSpec((None,))])
    second = trainer_of(optimizer=optimizer, replication=one_or_two)
    with pytest.raises(ValueError, match=r"was built for the variables of another.*clone\(\)"):
        second._task.build([tf.TensorSpec((None, 4)), tf.TensorSpec((None,))])


@pytest.mark.unit
def test_excluded_variables_of_another_model_are_refused(one_or_two):
    optimizer = keras.optimizers.AdamW(0.1)
    optimizer.exclude_from_weight_decay([dense().trainable_variables[1]])
    trainer = trainer_of(optimizer=optimizer, replication=one_or_two)
    with pytest.raises(ValueError, match="of another model from weight decay, 1"):
        trainer._task.build([tf.TensorSpec((None, 4)), tf.TensorSpec((None,))])


# Metrics


class Threshold(keras.metrics.Metric):
    """Counts predictions above a threshold; its configuration lacks the threshold."""

    def __init__(self, threshold=0.0, width=1, name="threshold", **options):
        super().__init__(name=name, **options)
        self.threshold = threshold
        self.count = self.add_weight(shape=(width,), initializer="zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        above = tf.reduce_sum(tf.cast(y_pred > self.threshold, tf.float32))
        self.count.assign_add(tf.fill(self.count.shape, above))

    def result(self):
        return self.count[0]


@pytest.mark.graph
def test_a_metric_keeps_options_that_its_configuration_lacks(mirrored):
    model = compiled(metrics=[Threshold(0.3)])
    expected = model.fit(batches(X, LABELS), shuffle=False, verbose=0).history["threshold"]
    trainer = trainer_of(metrics=[Threshold(0.3)], replication=mirrored(2))
    found = trainer.fit(batches(X, LABELS), verbose=0).history["threshold"]
    assert found == expected
    assert (
        expected
        != compiled(metrics=[Threshold()])
        .fit(batches(X, LABELS), shuffle=False, verbose=0)
        .history["threshold"]
    )


@pytest.mark.unit
def test_a_metric_whose_copy_has_other_variables_is_refused(mirrored):
    with pytest.raises(ValueError, match=r"variables of another shape: \(1,\), not \(3,\)"):
        trainer_of(metrics=[Threshold(width=3)], replication=mirrored(2))


METRICS = {
    "AUC": {"num_thresholds": 7, "summation_method": "majoring"},
    "F1Score": {"average": "macro", "threshold": 0.3},
    "MeanIoU": {"num_classes": 3, "ignore_class": 1},
    "MeanMetricWrapper": {"fn": keras.losses.mean_squared_error, "name": "own"},
    "Precision": {"thresholds": [0.2, 0.6], "class_id": 1},
    "SparseTopKCategoricalAccuracy": {"k": 2},
}


@pytest.mark.unit
@pytest.mark.parametrize("name", METRICS)
def test_keras_s_metrics_are_copied_whole(name):
    from disttrain.replication.adoption import copy_metric

    metric = getattr(keras.metrics, name)(**METRICS[name])
    for variable in metric.variables:
        variable.assign(variable + 1)
    copy = copy_metric(metric)
    assert copy.get_config() == metric.get_config()
    assert not {id(v) for v in copy.variables} & {id(v) for v in metric.variables}
    assert all((v.numpy() == 0).all() for v in copy.variables)

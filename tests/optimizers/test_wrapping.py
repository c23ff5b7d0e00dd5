"""What `Trainer(optimizer=...)` and `DistributedOptimizer(...)` take for an optimizer."""

import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from tests._support.tiny_models import (
    LABELS,
    X,
    assert_same_weights,
    batches,
    compiled,
    sgd,
    trainer_of,
)

RATE = 0.1


@keras.saving.register_keras_serializable("tests")
class Descent:
    """As in TensorFlow's guides."""

    def __init__(self, learning_rate=RATE):
        self.learning_rate = learning_rate

    def apply_gradients(self, grads, vars):
        for gradient, variable in zip(grads, vars, strict=True):
            variable.assign_sub(self.learning_rate * gradient)

    def get_config(self):
        return {"learning_rate": self.learning_rate}


@keras.saving.register_keras_serializable("tests")
class PairsDescent(Descent):
    """With the signature of Keras's optimizers."""

    def apply_gradients(self, grads_and_vars, name=None):
        super().apply_gradients(*zip(*grads_and_vars, strict=True))


def legacy():
    if importlib.util.find_spec("tf_keras") is None:
        pytest.skip("there is no tf_keras")
    from disttrain.optimizers.legacy_import import tf_keras

    return tf_keras().optimizers.legacy.SGD(RATE)


MADE = {"an object": Descent, "an object that takes pairs": PairsDescent, "the old API": legacy}


@pytest.mark.graph
@pytest.mark.parametrize("name", MADE)
def test_the_trainer_takes_any_optimizer_as_it_is(name, one_or_two):
    trainer = trainer_of(optimizer=MADE[name](), replication=one_or_two)
    trainer.fit(batches(X, LABELS), epochs=2, verbose=0)
    model = compiled(optimizer=sgd(RATE))
    model.fit(batches(X, LABELS), epochs=2, shuffle=False, verbose=0)
    assert_same_weights(trainer.model, model)
    trainer.optimizer.learning_rate = 0.5
    assert float(trainer.optimizer.learning_rate.numpy()) == 0.5


@pytest.mark.graph
@pytest.mark.parametrize("name", MADE)
def test_the_wrapper_takes_any_optimizer_as_it_is(name):
    model = compiled(optimizer=disttrain.DistributedOptimizer(MADE[name](), replication="single"))
    expected = compiled(optimizer=sgd(RATE))
    for one in (model, expected):
        one.fit(batches(X, LABELS), shuffle=False, verbose=0)
    assert_same_weights(model, expected)


@pytest.mark.unit
@pytest.mark.parametrize("wrong", [object(), 3, Descent, keras.optimizers.SGD])
def test_what_is_no_optimizer_is_refused(wrong):
    for make in (lambda o: trainer_of(optimizer=o), disttrain.DistributedOptimizer):
        with pytest.raises(TypeError, match="with apply_gradients, such as"):
            make(wrong)


@pytest.mark.unit
def test_a_setting_beside_a_wrapped_optimizer_is_refused():
    with pytest.raises(ValueError, match="its own loss_scale"):
        trainer_of(optimizer=disttrain.DistributedOptimizer(sgd()), loss_scale=1)


# Optimizers with several learning rates


def multi(kind="keras"):
    if kind == "keras":
        biases = {".*bias": sgd(0.2, name="biases")}
        optimizers = keras.optimizers.OptimizerMap(sgd(0.1, name="others"), biases)
        return keras.optimizers.MultiOptimizer(optimizers)
    make = disttrain.optimizers.from_addons
    parts = [(make("SGDW", learning_rate=0.1, weight_decay=0.0), "kernel")]
    parts += [(make("SGDW", learning_rate=0.2, weight_decay=0.0), "bias")]
    return make("MultiOptimizer", optimizers_and_layers=parts)


def callbacks(folder):
    return [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
        keras.callbacks.ReduceLROnPlateau("loss", patience=0, factor=0.5, min_delta=100.0),
        keras.callbacks.TensorBoard(folder),
    ]


needs_multi = pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer"
)


def by_keras(tmp_path):
    model = compiled(optimizer=multi())
    told = model.fit(
        batches(X, LABELS), epochs=3, shuffle=False, verbose=0, callbacks=callbacks(tmp_path)
    )
    return model, told.history


KINDS = ["keras"]
if importlib.util.find_spec("tensorflow_addons") is not None:
    KINDS.append("addons")


@needs_multi
@pytest.mark.graph
@pytest.mark.parametrize("kind", KINDS)
def test_keras_s_callbacks_set_each_of_several_learning_rates(kind, one_or_two, tmp_path):
    model, told = by_keras(tmp_path / "keras")
    trainer = trainer_of(optimizer=multi(kind), replication=one_or_two)
    found = trainer.fit(
        batches(X, LABELS), epochs=3, verbose=0, callbacks=callbacks(tmp_path / "ours")
    ).history
    assert_same_weights(trainer.model, model)
    names = [name for name in told if name.startswith("learning_rate")]
    assert len(names) == 2
    if kind == "addons":
        names = []  # Both have one name there, by which Keras logs them.
    for name in names:
        np.testing.assert_allclose(found[name], told[name])


@needs_multi
@pytest.mark.graph
def test_model_fit_sets_each_of_several_learning_rates(tmp_path):
    model, _ = by_keras(tmp_path / "keras")
    wrapped = compiled(optimizer=disttrain.DistributedOptimizer(multi(), replication="single"))
    wrapped.fit(
        batches(X, LABELS),
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=callbacks(tmp_path / "ours"),
    )
    assert_same_weights(wrapped, model)
    assert not hasattr(wrapped.optimizer, "learning_rate")
    assert not hasattr(disttrain.DistributedOptimizer(sgd()), "optimizers")


@needs_multi
@pytest.mark.graph
def test_lookahead_around_several_optimizers_sums_once(mirrored):
    from tests.optimizers import steps

    make = lambda: disttrain.optimizers.Lookahead(multi(), sync_period=2)  # noqa: E731
    expected, _ = steps.alone(make, 4)
    for adopt in (False, True):
        weights, _ = steps.together(mirrored(2), make, 4, adopt=adopt)
        steps.assert_close(weights, expected)


# Variables, losses and settings of other kinds


KINDS_OF_OPTIONS = [
    {},
    {"clip": disttrain.ClipByGlobalNorm(0.1)},
    {"accumulate_steps": 2},
    {"loss_scale": "dynamic"},
]


@pytest.mark.graph
@pytest.mark.parametrize("options", KINDS_OF_OPTIONS, ids=str)
@pytest.mark.parametrize("make", [sgd, lambda: disttrain.optimizers.Lookahead(sgd(), 2)])
def test_variables_of_tensorflow_train_as_those_of_keras(make, options, one_or_two):
    from disttrain.replication import resolve

    replication = resolve(one_or_two)

    def after(variable):
        with replication.scope():
            first, second = variable([1.0, 2.0]), keras.Variable([3.0])
            optimizer = disttrain.DistributedOptimizer(make(), replication=replication, **options)
            optimizer.build([first, second])
        parts = [tf.constant([float(i), -1.0]) for i in range(replication.replicas)]

        def on_replica(part):
            scale = optimizer.current_loss_scale()
            optimizer.apply([part * scale, tf.constant([1.0]) * scale], [first, second])

        step = tf.function(lambda: replication.run(on_replica, parts), autograph=False)
        for _ in range(4):
            step()
        return [first.numpy(), second.numpy()]

    for ours, theirs in zip(after(tf.Variable), after(keras.Variable), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert np.abs(theirs - 3.0).max() > 0.01


@pytest.mark.unit
@pytest.mark.parametrize("loss", [1.0, 1, np.float32(1)])
def test_a_number_can_be_scaled_as_a_loss(loss):
    optimizer = disttrain.DistributedOptimizer(sgd(), loss_scale=4.0, replication="single")
    assert float(optimizer.scale_loss(loss)) == 4.0


@pytest.mark.unit
@pytest.mark.parametrize("groups", [[["a"], ["b"]], 0, 1.5, "two", True])
def test_groups_are_a_number(groups):
    with pytest.raises(ValueError, match="groups must be a whole number"):
        disttrain.DistributedOptimizer(sgd(), groups=groups)


@pytest.mark.graph
@pytest.mark.skipif(
    not hasattr(keras.optimizers, "ScheduleFreeAdamW"), reason="this Keras has no such optimizer"
)
def test_an_optimizer_that_begins_with_the_weights_wants_a_built_model():
    inner = keras.optimizers.ScheduleFreeAdamW(0.1)
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile(disttrain.DistributedOptimizer(inner, replication="single"), "mse")
    with pytest.raises(ValueError, match="give the model an Input"):
        model.fit(X, np.zeros((len(X), 3)), verbose=0)


@pytest.mark.unit
def test_a_fixed_batch_size_is_refused_on_several_replicas(mirrored):
    def build():
        return keras.Sequential([keras.Input(batch_shape=(4, 4)), keras.layers.Dense(3)])

    trainer = trainer_of(build, replication=mirrored(2))
    with pytest.raises(ValueError, match=r"fixed shape \(4, 4\), but each of 2 replicas"):
        trainer._task.build([tf.TensorSpec((None, 4)), tf.TensorSpec((None,))])

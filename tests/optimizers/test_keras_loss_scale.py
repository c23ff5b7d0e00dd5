"""Keras's automatic loss scale, which `compile` adds under `mixed_float16`."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.replication import resolve
from tests._support.tiny_models import dense, trainer_of

POLICY = "mixed_float16"
X = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 32)
# Half of float16's largest number: it is finite itself, and not once the loss scale multiplies it.
LARGE = np.concatenate([X[:28], X[28:] * 3e4])


@pytest.fixture
def half():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICY)
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture(params=["single", "mirrored"])
def scope(request, mirrored):
    return contextlib.nullcontext if request.param == "single" else mirrored(2).scope


def compiled(optimizer, scope=contextlib.nullcontext, **options):
    with scope():
        model = dense()
        model.set_weights([np.full(w.shape, 0.1, np.float32) for w in model.get_weights()])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer(), loss, jit_compile=False, **options)
    return model


def fit(model, x=X):
    model.fit(tf.data.Dataset.from_tensor_slices((x, Y)).batch(8), epochs=3, verbose=0)
    return model


def wrapped(**options):
    return disttrain.DistributedOptimizer(keras.optimizers.SGD(0.5, momentum=0.9), **options)


def plain():
    return keras.optimizers.SGD(0.5, momentum=0.9)


@pytest.mark.graph
def test_model_fit_under_mixed_float16_gives_what_keras_gives_on_one_device(half, scope):
    expected = fit(compiled(plain))
    model = fit(compiled(wrapped, scope))
    assert type(model.optimizer) is disttrain.DistributedOptimizer
    assert float(model.optimizer.current_loss_scale()) == 2.0**15
    for ours, theirs in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
        assert np.abs(ours - 0.1).max() > 0.05


@pytest.mark.graph
def test_an_overflow_on_one_replica_skips_the_step_on_all(half, scope):
    """Each batch of the last four rows overflows, on the second replica alone, until it is not."""
    model = fit(compiled(wrapped, scope), LARGE)
    optimizer = model.optimizer
    applied = int(optimizer.iterations.numpy())
    assert 0 < applied < 12
    assert float(optimizer.current_loss_scale()) == 2.0 ** (15 - (12 - applied))
    assert np.isfinite(model.get_weights()[0]).all()


@pytest.mark.unit
def test_keras_s_wrapper_around_ours_is_ours_with_its_settings():
    optimizer = wrapped()
    scaled = keras.optimizers.LossScaleOptimizer(
        optimizer, initial_scale=64.0, dynamic_growth_steps=7
    )
    assert scaled is optimizer
    assert (scaled.loss_scale.initial, scaled.loss_scale.growth_interval) == (64.0, 7)


@pytest.mark.unit
@pytest.mark.parametrize("options", [{"clipnorm": 1.0}, {"dynamic": False}, {"unknown": 1}])
def test_what_keras_refuses_stays_refused(options):
    with pytest.raises(ValueError, match="LossScaleOptimizer"):
        keras.optimizers.LossScaleOptimizer(wrapped(), **options)


@pytest.mark.unit
def test_a_loss_scale_that_is_set_stays():
    optimizer = wrapped(loss_scale=8.0)
    assert keras.optimizers.LossScaleOptimizer(optimizer).loss_scale.initial == 8.0


@pytest.mark.unit
def test_keras_s_wrapper_around_other_optimizers_is_keras_s():
    scaled = keras.optimizers.LossScaleOptimizer(plain(), initial_scale=4.0)
    assert type(scaled) is keras.optimizers.LossScaleOptimizer
    again = keras.optimizers.LossScaleOptimizer.from_config(scaled.get_config())
    assert again.initial_scale == 4.0
    with pytest.raises(TypeError, match="inner_optimizer"):
        keras.optimizers.LossScaleOptimizer()


@pytest.mark.unit
def test_without_automatic_scaling_there_is_none(half):
    assert compiled(wrapped, auto_scale_loss=False).optimizer.loss_scale is None


@pytest.mark.graph
def test_a_saved_model_comes_back_with_its_loss_scale_and_slots(half, tmp_path):
    model = fit(compiled(wrapped), LARGE)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is disttrain.DistributedOptimizer
    for ours, theirs in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert float(loaded.optimizer.current_loss_scale()) < 2.0**15


def mixed_layer():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype=POLICY)])


@pytest.mark.graph
@pytest.mark.parametrize("optimizer", [plain, wrapped])
@pytest.mark.parametrize("kind", ["single", "mirrored"])
def test_the_trainer_scales_the_loss_by_the_policy_of_the_model(half, kind, mirrored, optimizer):
    replication = mirrored(2) if kind == "mirrored" else resolve("single")
    trainer = trainer_of(dense, optimizer=optimizer(), replication=replication)
    trainer.fit(LARGE, Y, batch_size=8, shuffle=False, epochs=3, verbose=0)
    assert isinstance(trainer.optimizer.loss_scale, disttrain.DynamicLossScale)
    assert float(trainer.optimizer.current_loss_scale()) < 2.0**15
    trainer.switch_optimizer(plain())
    assert isinstance(trainer.optimizer.loss_scale, disttrain.DynamicLossScale)


@pytest.mark.unit
def test_the_trainer_looks_at_the_layers_and_keeps_what_is_set(half):
    assert trainer_of(dense, loss_scale=1).optimizer.loss_scale.initial == 1.0
    keras.config.set_dtype_policy("float32")
    assert trainer_of(dense).optimizer.loss_scale is None
    assert trainer_of(mixed_layer).optimizer.loss_scale is not None


@pytest.mark.graph
def test_what_the_trainer_saves_under_a_global_policy_loads(half, tmp_path):
    trainer = trainer_of(dense)
    trainer.fit(X, Y, batch_size=8, verbose=0)
    trainer.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations.numpy()) == 4
    for ours, theirs in zip(loaded.get_weights(), trainer.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)

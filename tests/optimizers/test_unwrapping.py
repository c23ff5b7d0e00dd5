"""What `Trainer.export` saves, which loads without disttrain."""

import warnings
import zipfile

import keras
import numpy as np
import pytest

import disttrain
from tests._support.tiny_models import LABELS, X, dense, trainer_of


def trained(**options):
    trainer = trainer_of(**options)
    trainer.fit(X, LABELS, batch_size=4, shuffle=False, epochs=2, verbose=0)
    return trainer


def exported(trainer, path):
    """The loaded model, and the text of its configuration."""
    trainer.export(path)
    with zipfile.ZipFile(path) as files:
        text = files.read("config.json").decode()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return keras.models.load_model(path), text


@pytest.mark.graph
def test_the_inner_optimizer_is_saved_with_its_state_and_goes_on(one_or_two, tmp_path):
    make = lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1, clipnorm=0.5)  # noqa: E731
    trainer = trained(optimizer=make(), replication=one_or_two, accumulate_steps=1)
    model, text = exported(trainer, tmp_path / "model.keras")
    assert "disttrain" not in text
    assert type(model.optimizer) is keras.optimizers.AdamW
    assert model.optimizer.clipnorm == 0.5
    assert trainer.optimizer.inner.clipnorm is None
    assert trainer.model.optimizer is trainer.optimizer
    for ours, theirs in zip(
        model.optimizer.variables, trainer.optimizer.inner.variables, strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    for one in (model, trainer):
        one.fit(X, LABELS, batch_size=5, shuffle=False, epochs=1, verbose=0)
    for ours, theirs in zip(model.get_weights(), trainer.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.graph
def test_keras_s_loss_scale_is_saved_for_a_model_in_half_precision(one_or_two, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        trainer = trained(
            optimizer=keras.optimizers.Adam(0.05),
            loss_scale=disttrain.DynamicLossScale(64.0, growth_interval=3),
            replication=one_or_two,
        )
        model, text = exported(trainer, tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy(before)
    assert "disttrain" not in text
    assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer
    assert float(model.optimizer.dynamic_scale) == 256.0
    inner = model.optimizer.inner_optimizer
    for ours, theirs in zip(inner.variables, trainer.optimizer.inner.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


OURS = {
    "a wrapper": lambda: disttrain.optimizers.Lookahead(keras.optimizers.SGD(0.1)),
    "a schedule": lambda: keras.optimizers.SGD(disttrain.schedules.Warmup(0.1, 3)),
    "a function": lambda: keras.optimizers.SGD(lambda: 0.1),
}


@pytest.mark.graph
@pytest.mark.parametrize("name", OURS)
def test_an_optimizer_of_ours_is_left_out(name, tmp_path):
    trainer = trained(optimizer=OURS[name]())
    model, text = exported(trainer, tmp_path / "model.keras")
    assert "disttrain" not in text
    assert not model.compiled
    assert trainer.model.compiled
    np.testing.assert_array_equal(model.get_weights()[0], trainer.model.get_weights()[0])
    trainer.fit(X, LABELS, batch_size=4, verbose=0)


# LoRA, which Keras merges when it saves


def adapted():
    model = dense()
    model.layers[0].enable_lora(2)
    return model


@pytest.mark.graph
def test_a_saved_model_with_lora_loads_with_a_warning(tmp_path):
    """A layer inside of another comes back without its LoRA, so slots of others are needed."""
    attention = keras.layers.MultiHeadAttention(1, 4)
    inputs = keras.Input((2, 2))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(attention(inputs, inputs)))
    attention.query_dense.enable_lora(2)
    model, x = keras.Model(inputs, outputs), X.reshape(-1, 2, 2)
    model.compile(
        disttrain.DistributedOptimizer(keras.optimizers.Adam(0.1)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(x, LABELS, verbose=0)
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="Keras merges LoRA"):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
    assert int(loaded.optimizer.iterations.numpy()) == 0
    loaded.fit(x, LABELS, verbose=0)


@pytest.mark.graph
def test_weights_with_lora_come_back_with_the_slots(tmp_path):
    def made():
        model = adapted()
        optimizer = disttrain.DistributedOptimizer(keras.optimizers.Adam(0.1))
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(X, LABELS, verbose=0)
        return model

    first, second = made(), made()
    first.fit(X, LABELS, verbose=0)
    first.save_weights(tmp_path / "model.weights.h5")
    second.load_weights(tmp_path / "model.weights.h5")
    ours, theirs = second.optimizer.variables, first.optimizer.variables
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())

"""`DistributedOptimizer.clone`: one optimizer for several models, as in cross validation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.optimizers import Lookahead
from tests._support.tiny_models import LABELS, X, assert_same_weights, compiled, dense, trainer_of


def adamw():
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.4)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def fit(model, rows):
    model.fit(X[rows], LABELS[rows], batch_size=4, epochs=2, shuffle=False, verbose=0)
    return model


@pytest.mark.graph
def test_folds_of_a_cross_validation_train_as_with_new_optimizers(one_or_two):
    optimizer = adamw()
    for rows in (slice(0, 6), slice(4, 10)):
        trainer = trainer_of(optimizer=optimizer, replication=one_or_two)
        trainer.fit(X[rows], LABELS[rows], batch_size=4, epochs=2, shuffle=False, verbose=0)
        assert_same_weights(trainer.model, fit(compiled(optimizer=adamw()), rows))
        optimizer = trainer.optimizer.clone()


@pytest.mark.graph
def test_a_second_model_in_model_fit_needs_a_clone_and_trains_as_the_first():
    optimizer = disttrain.DistributedOptimizer(adamw(), replication="single")
    first = fit(compiled(optimizer=optimizer), slice(0, 8))
    with pytest.raises(ValueError, match=r"for another model use optimizer.clone\(\)"):
        fit(compiled(optimizer=optimizer), slice(0, 8))
    assert_same_weights(fit(compiled(optimizer=optimizer.clone()), slice(0, 8)), first)


@pytest.mark.unit
def test_a_clone_has_the_settings_and_no_state():
    def rate():
        return 0.5

    inner = Lookahead(keras.optimizers.Adam(rate, use_ema=True, ema_overwrite_frequency=3))
    optimizer = disttrain.DistributedOptimizer(
        inner,
        clip=disttrain.AutoClip(window=3),
        loss_scale=disttrain.DynamicLossScale(16.0, growth_interval=1),
        accumulate_steps=2,
        replication="single",
    )
    variable = keras.Variable([1.0])
    for _ in range(4):
        optimizer.apply([tf.constant([16.0])], [variable])
    made = optimizer.clone()
    assert made.inner.inner._learning_rate is rate
    assert (made.accumulate_steps, made.ema_overwrite_frequency) == (2, 3)
    assert (made.clip, made.loss_scale.initial) == (optimizer.clip, 16.0)
    assert not made.built
    before = [v.numpy() for v in optimizer.variables]
    other = keras.Variable([1.0])
    for _ in range(2):
        made.apply([tf.constant([16.0])], [other])
    assert int(made.iterations.numpy()) == 1
    for value, old in zip(optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(value.numpy(), old)


@pytest.mark.graph
def test_two_optimizers_do_not_share_the_state_of_a_clip_or_a_loss_scale():
    options = {"clip": disttrain.AutoClip(window=3), "loss_scale": disttrain.DynamicLossScale(8.0)}
    pair = [
        disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1), replication="single", **options)
        for _ in range(2)
    ]
    for optimizer in pair:
        optimizer.build([keras.Variable([1.0])])
    pair[1].apply([tf.constant([float("inf")])])
    assert float(pair[0].current_loss_scale()) == 8.0
    assert float(pair[1].current_loss_scale()) == 4.0
    pair[1].apply([tf.constant([1.0])])
    assert int(pair[0].clip._seen.numpy()) == 0


@pytest.mark.unit
def test_settings_that_belong_to_a_model_s_variables_are_refused():
    model = dense()
    optimizer = disttrain.DistributedOptimizer(keras.optimizers.AdamW(0.1), replication="single")
    optimizer.exclude_from_weight_decay([model.trainable_variables[1]])
    with pytest.raises(ValueError, match="excludes variables of one model"):
        optimizer.clone()

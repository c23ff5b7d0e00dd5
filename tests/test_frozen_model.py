"""A model without trainable variables is measured, and moves its state, as in Keras."""

import keras
import numpy as np
import pytest

import disttrain
from tests._support.tiny_models import (
    X,
    Y,
    assert_same_numbers,
    assert_same_weights,
    compiled,
    trainer_of,
)

pytestmark = pytest.mark.graph

OPTIONS = {"batch_size": 4, "shuffle": False, "epochs": 2, "verbose": 0}
SAID = pytest.mark.filterwarnings("ignore:The model")


def frozen():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="ones")])
    model.layers[0].trainable = False
    return model


def normalizing():
    layer = keras.layers.BatchNormalization(center=False, scale=False)
    return keras.Sequential([keras.Input((4,)), layer])


#: A model, its targets and the trainer's options.
CASES = {
    "dense": (
        frozen,
        Y,
        {"loss_scale": "dynamic", "clip": disttrain.ClipByGlobalNorm(1.0), "jit_compile": True},
    ),
    "norm": (normalizing, X, {"accumulate_steps": 2, "steps_per_execution": 2}),
}


@SAID
@pytest.mark.parametrize("case", CASES)
def test_losses_metrics_and_state_are_those_of_keras(case):
    build, y, options = CASES[case]
    model = compiled(build, loss="mse", metrics=["mae"])
    expected = model.fit(X, y, validation_data=(X, y), **OPTIONS)
    trainer = trainer_of(build, loss="mse", metrics=["mae"], **options)
    found = trainer.fit(X, y, validation_data=(X, y), **OPTIONS)
    assert_same_numbers(found.history, expected.history)
    assert_same_weights(trainer.model, model)
    assert int(trainer.optimizer.iterations.numpy()) == 0


@SAID
def test_replicas_share_the_loss_and_a_checkpoint_is_resumed(tmp_path, mirrored):
    made = {"loss": "mse", "replication": mirrored(2)}
    expected = trainer_of(frozen, loss="mse").fit(X, Y, **OPTIONS).history
    kept = {"checkpoint": disttrain.Checkpoint(tmp_path / "kept", every_steps=1)}
    trainer_of(frozen, **made, **kept).fit(X, Y, **{**OPTIONS, "epochs": 1})
    found = trainer_of(frozen, **made, **kept, logdir=tmp_path / "run").fit(X, Y, **OPTIONS)
    assert_same_numbers(found.history, expected)


@SAID
def test_what_is_unfrozen_later_is_trained():
    trainer = trainer_of(frozen, loss="mse")
    trainer.fit(X, Y, **OPTIONS)
    trainer.model.layers[0].trainable = True
    before = trainer.model.get_weights()[0]
    trainer.fit(X, Y, **OPTIONS)
    assert np.abs(trainer.model.get_weights()[0] - before).max() > 0
    assert int(trainer.optimizer.iterations.numpy()) == 6


def test_it_warns():
    with pytest.warns(UserWarning, match="no trainable variables: fit computes its loss"):
        trainer_of(frozen, loss="mse").fit(X, Y, **OPTIONS)

"""`class_weight` weighs examples as `Model.fit` does."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain.data.class_weights import ClassWeights
from tests._support.covering import representatives
from tests._support.tiny_models import (
    CROSSENTROPY,
    LABELS,
    WEIGHTS,
    X,
    assert_same_numbers,
    assert_same_weights,
    batches,
    compiled,
    trainer_of,
)

#: Class 2 is not named and counts once.
WEIGHT = {0: 0.25, 1: 3.0}
ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]


@pytest.mark.graph
@pytest.mark.parametrize(
    "case",
    representatives(
        itertools.product(["arrays", "dataset", "function"], ["flat", "column", "one-hot"], [1, 3]),
        ("arrays", "flat", 3),
        ("dataset", "one-hot", 3),
        ("function", "column", 1),
    ),
    ids=str,
)
def test_class_weights_train_as_in_keras(case, mirrored):
    kind, targets, replicas = case
    y = {"flat": LABELS, "column": LABELS[:, None], "one-hot": ONE_HOT}[targets]
    one_hot = keras.losses.CategoricalCrossentropy(from_logits=True)
    loss = one_hot if targets == "one-hot" else CROSSENTROPY
    options = {"class_weight": WEIGHT, "shuffle": False, "epochs": 2, "verbose": 0}
    model = compiled(loss=loss, metrics=["accuracy"])
    theirs = model.fit(X, y, batch_size=4, validation_data=(X, y), **options)
    trainer = trainer_of(
        loss=loss, metrics=["accuracy"], replication=mirrored(3) if replicas == 3 else "single"
    )
    data = {
        "arrays": ((X, y), {"batch_size": 4}),
        "dataset": ((batches(X, y),), {}),
        "function": ((lambda context: batches(X, y),), {}),
    }[kind]
    ours = trainer.fit(*data[0], **data[1], validation_data=batches(X, y), **options)
    assert_same_weights(trainer.model, model)
    assert_same_numbers(ours.history, theirs.history)


@pytest.mark.graph
@pytest.mark.parametrize("last", [3, None], ids=["known", "unknown"])
@pytest.mark.parametrize("y", [LABELS[:, None], ONE_HOT], ids=["column", "one-hot"])
def test_the_weights_do_not_depend_on_what_is_known_of_the_shape(y, last):
    weights = ClassWeights(WEIGHT)
    spec = tf.TensorSpec([None, None if last is None else y.shape[1]], y.dtype)
    found = tf.function(weights.of, input_signature=[spec])(y)
    np.testing.assert_array_equal(found, [WEIGHT.get(label, 1.0) for label in LABELS.tolist()])


@pytest.mark.unit
def test_classes_that_are_not_named_count_once():
    found = ClassWeights({1: 5.0}).of(tf.constant([-1.0, 0.0, 1.2, 2.0, 700.0]))
    assert found.numpy().tolist() == [1, 1, 5, 1, 1]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ([0.5, 1.0], TypeError, r"dictionary.*\[0\.5, 1\.0\]"),
        ({}, ValueError, "empty"),
        ({"cat": 2.0}, ValueError, "class 'cat'"),
        ({-1: 2.0}, ValueError, "class -1"),
        ({0.5: 2.0}, ValueError, r"class 0\.5"),
        ({0: "2"}, TypeError, r"class_weight\[0\].*'2'"),
        ({0: -2.0}, ValueError, r"class_weight\[0\].*-2\.0"),
        ({0: float("nan")}, ValueError, r"class_weight\[0\].*nan"),
    ],
)
def test_wrong_class_weights_are_named(wrong, error, message):
    with pytest.raises(error, match=message):
        ClassWeights(wrong)


@pytest.mark.graph
def test_class_weights_go_with_one_target_and_without_sample_weights():
    trainer = trainer_of()
    with pytest.raises(ValueError, match="both class_weight and sample weights"):
        trainer.fit(X, LABELS, sample_weight=WEIGHTS, class_weight=WEIGHT)
    with pytest.raises(ValueError, match="both class_weight and sample weights"):
        trainer.fit(batches(X, LABELS, WEIGHTS), class_weight=WEIGHT)
    with pytest.raises(ValueError, match="single target"):
        trainer.fit(X, {"a": LABELS, "b": LABELS}, class_weight=WEIGHT)
    with pytest.raises(ValueError, match="needs targets"):
        trainer.fit(batches(X), class_weight=WEIGHT)

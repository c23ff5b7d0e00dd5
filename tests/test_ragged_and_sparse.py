"""Ragged and sparse batches reach models that take them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain.data import make_feed
from disttrain.replication import Topology
from tests._support.tiny_models import (
    CLOSE,
    LABELS,
    X,
    assert_same_numbers,
    assert_same_weights,
    compiled,
    trainer_of,
)

pytestmark = pytest.mark.graph

TOKENS = [[1, 2], [3], [4, 5, 1], [], [2], [5, 5], [1], [2, 3, 4], [3, 1], [4]]
SPARSE = np.where(X > 0.3, X, 0)


class Mean(keras.Layer):
    """The mean of the vectors of the tokens of each example."""

    def build(self, shape):
        self.table = self.add_weight(shape=(6, 3), initializer="ones")

    def call(self, tokens):
        vectors = tf.gather(self.table, tokens.flat_values)
        sums = tf.math.unsorted_segment_sum(vectors, tokens.value_rowids(), tokens.nrows())
        lengths = tf.cast(tokens.row_lengths(), tf.float32)
        return sums / tf.maximum(lengths, 1)[:, None]

    def compute_output_spec(self, tokens):
        return keras.KerasTensor((tokens.shape[0], 3))


def takes_ragged():
    inputs = keras.Input((None,), dtype="int64", ragged=True)
    return keras.Model(inputs, keras.layers.Dense(3)(Mean()(inputs)))


def takes_sparse():
    return keras.Sequential([keras.Input((4,), sparse=True), keras.layers.Dense(3)])


def tokens():
    return tf.ragged.constant(TOKENS, dtype=tf.int64)


def sparse():
    data = tf.data.Dataset.from_tensor_slices((tf.sparse.from_dense(SPARSE), LABELS))
    return data.batch(4)


def ragged():
    return tf.data.Dataset.from_tensor_slices((tokens(), LABELS)).batch(4)


CASES = {"ragged": (takes_ragged, ragged), "sparse": (takes_sparse, sparse)}


@pytest.mark.parametrize(
    ("kind", "replicas"),
    [
        pytest.param("ragged", 1, marks=pytest.mark.exhaustive),
        ("ragged", 3),
        ("sparse", 3),
    ],
)
def test_they_train_evaluate_and_predict_as_in_keras(kind, replicas, mirrored):
    build, data = CASES[kind]
    model = compiled(build, metrics=["accuracy"])
    expected = model.fit(data(), epochs=2, shuffle=False, verbose=0)
    trainer = trainer_of(
        build, metrics=["accuracy"], replication=mirrored(3) if replicas == 3 else "single"
    )
    found = trainer.fit(data(), epochs=2, verbose=0)
    assert_same_weights(trainer.model, model)
    assert_same_numbers(found.history, expected.history)
    assert_same_numbers(
        trainer.evaluate(data()), model.evaluate(data(), return_dict=True, verbose=0)
    )
    np.testing.assert_allclose(trainer.predict(data()), model.predict(data(), verbose=0), **CLOSE)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_model_that_takes_none_is_named(replicas, mirrored):
    def build():
        return keras.Sequential([keras.Input((None, 1)), keras.layers.LSTM(3)])

    replication = mirrored(2) if replicas == 2 else "single"
    data = tf.data.Dataset.from_tensor_slices((tokens(), LABELS)).batch(4)
    data = data.map(lambda x, y: (tf.cast(tf.expand_dims(x, -1), tf.float32), y))
    with pytest.raises(TypeError, match="the model does not take ragged tensors.*to_tensor"):
        trainer_of(build, replication=replication).fit(data, verbose=0)


def test_a_loss_that_takes_none_is_named():
    ragged_labels = tf.data.Dataset.from_tensor_slices((X, tokens())).batch(4)
    model = lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])  # noqa: E731
    made = trainer_of(model)
    with pytest.raises(TypeError, match="the loss does not take ragged tensors.*dense"):
        made.fit(ragged_labels, verbose=0)


def test_ragged_arrays_are_shuffled_and_cut():
    feed = make_feed(tokens(), Topology(local_replicas=2), batch_size=4, shuffle=True, seed=3)
    rows = [
        part[0].to_list()[: int(count)]
        for element in feed.dataset(1)
        for part, count in zip(element["parts"], element["rows"], strict=True)
    ]
    order = np.random.default_rng([3, 1]).permutation(10)
    assert sum(rows, []) == [TOKENS[i] for i in order]  # noqa: RUF017


@pytest.mark.parametrize("kind", CASES)
def test_processes_cut_and_compare_them(kind):
    _, data = CASES[kind]
    feeds = [make_feed(data(), Topology(2, process, 1)) for process in (0, 1)]
    for one, other in zip(*(feed.dataset(0) for feed in feeds), strict=True):
        assert float(one["fingerprint"]) == float(other["fingerprint"])
        assert float(one["rows"][0] + other["rows"][0]) == float(one["total"])
    fingerprints = [float(element["fingerprint"]) for element in feeds[0].dataset(0)]
    assert len(set(fingerprints)) == 3


def test_a_function_of_an_input_context_makes_them_dense():
    with pytest.raises(TypeError, match=r"RaggedTensorSpec.*to_tensor"):
        make_feed(lambda context: ragged(), Topology())

"""Outputs of batches are put together as Keras does, over processes too."""

import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import potentially_ragged_concat

from disttrain import outputs
from tests._support.threaded_processes import together

pytestmark = pytest.mark.unit


def array(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 3)],
        [(2, 3), (1, 3)],
        [(2, 3), (1, 4)],
        [(2, 3, 2), (1, 4, 2), (2, 1, 2)],
        [(2, 3, 2), (1, 4, 5)],
        [(2, 3, 2), (1, 3, 5)],
        [(2,), (3,)],
    ],
    ids=str,
)
def test_batches_of_different_shapes_become_what_keras_makes_of_them(shapes):
    given = [array(*shape) for shape in shapes]
    found = outputs.concatenated(given)
    expected = potentially_ragged_concat([tf.constant(one) for one in given])
    assert isinstance(found, tf.RaggedTensor) == isinstance(expected, tf.RaggedTensor)
    if isinstance(found, tf.RaggedTensor):
        assert found.to_list() == expected.to_list()
        assert found.shape.as_list() == expected.shape.as_list()
    else:
        np.testing.assert_array_equal(found, expected)


def test_the_rows_of_all_processes_are_in_order():
    # Two batches, of 3 + 2 and 1 + 0 rows, with sequences of 2 and 4 steps.
    whole = [array(5, 2), 100 + array(1, 4)]
    own = [[whole[0][:3], whole[1][:1]], [whole[0][3:], whole[1][1:]]]
    for found in together(2, lambda one: outputs.gathered(one, own[one.topology.process])):
        assert [batch.tolist() for batch in found] == [batch.tolist() for batch in whole]


def test_ragged_outputs_of_all_processes_are_in_order():
    whole = tf.ragged.constant([[1, 2], [], [3], [4, 5, 6]])
    own = [[whole[:2], whole[3:]], [whole[2:], whole[:0]]]
    for found in together(2, lambda one: outputs.gathered(one, own[one.topology.process])):
        assert found[0].to_list() == whole.to_list()
        assert found[1].to_list() == [[4, 5, 6]]


def test_without_batches_nothing_is_gathered():
    assert together(2, lambda one: outputs.gathered(one, [])) == [[], []]

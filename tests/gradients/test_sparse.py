"""Sparse gradients: repeated rows, and what stays sparse."""

import numpy as np
import pytest
import tensorflow as tf

from disttrain.gradients import sparse

pytestmark = pytest.mark.unit


def slices(values, rows, shape=(5, 2)):
    return tf.IndexedSlices(tf.constant(values), tf.constant(rows), tf.constant(shape))


def test_repeated_rows_are_added_and_rows_ascend():
    found = sparse.without_repeats(slices([[1.0, 2], [3, 4], [10, 20]], [3, 0, 3]))
    np.testing.assert_array_equal(found.indices, [0, 3])
    np.testing.assert_array_equal(found.values, [[3, 4], [11, 22]])
    np.testing.assert_array_equal(
        sparse.to_dense(found), sparse.to_dense(slices([[1.0, 2], [3, 4], [10, 20]], [3, 0, 3]))
    )


def test_no_rows_at_all_stay_none():
    found = sparse.without_repeats(slices(np.zeros((0, 2), np.float32), np.zeros(0, np.int32)))
    assert found.values.shape == (0, 2)


def test_scaling_keeps_a_gradient_as_it_is():
    found = sparse.scaled(slices([[1.0, 2]], [4]), 3.0)
    assert sparse.is_sparse(found)
    np.testing.assert_array_equal(found.values, [[3, 6]])
    assert not sparse.is_sparse(sparse.scaled(tf.constant([1.0]), 2.0))

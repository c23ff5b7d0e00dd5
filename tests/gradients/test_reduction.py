"""What is reduced with what, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from disttrain.gradients import reduction
from disttrain.gradients.reduction import Reduction

pytestmark = pytest.mark.unit


class Recording:
    """One replica that notes what would travel."""

    replicas = 1

    def __init__(self):
        self.calls = []

    def reduce_sum(self, tensors, name):
        self.calls.append((name, [tensor.dtype.name for tensor in tensors]))
        return list(tensors)


def run(rule, gradients, extras=()):
    replication = Recording()
    return rule(replication, rule.prepare(gradients), extras), replication.calls


def test_groups_hold_about_equal_bytes_and_begin_with_the_last_layers():
    tensors = [tf.zeros([n]) for n in (100, 10, 10, 100)]
    assert reduction._partition(tensors, 2) == [[3, 2], [1, 0]]
    assert reduction._partition(tensors, 1) == [[3, 2, 1, 0]]
    assert [i for group in reduction._partition(tensors, 9) for i in group] == [3, 2, 1, 0]


def test_small_models_travel_in_one_group_and_large_ones_in_four():
    assert len(reduction._partition([tf.zeros([1000])] * 9, None)) == 1
    assert len(reduction._partition([tf.zeros([2**18])] * 2, None)) == 2
    assert len(reduction._partition([tf.zeros([2**18])] * 20, None)) == 4


def test_results_come_in_the_order_of_the_gradients():
    gradients = [tf.fill([n], float(n)) for n in (4, 1, 3)]
    (found, extras), calls = run(Reduction(groups=2), gradients, [tf.constant(7.0)])
    assert [g.shape[0] for g in found] == [4, 1, 3]
    assert [float(e) for e in extras] == [7.0]
    assert [name for name, _ in calls] == ["gradients.0", "gradients.1"]


def test_compression_is_for_gradients_alone_and_comes_back_as_it_went():
    gradients = [tf.constant([1.0]), tf.constant([2.0], tf.float16)]
    (found, _), calls = run(Reduction(compression="bf16"), gradients, [tf.constant(1.0)])
    assert calls == [("gradients.0", ["float16", "bfloat16", "float32"])]
    assert [g.dtype.name for g in found] == ["float32", "float16"]


def test_sparse_gradients_become_dense_where_that_is_asked_for():
    slices = tf.IndexedSlices(tf.constant([[1.0], [2.0]]), tf.constant([0, 0]), tf.constant([2, 1]))
    (dense,) = Reduction(sparse_as_dense=True).prepare([slices])
    np.testing.assert_array_equal(dense, [[3], [0]])
    with pytest.raises(ValueError, match="Adasum does not take sparse gradients"):
        Reduction("adasum").prepare([slices])


def test_adasum_follows_its_formula():
    """Maleki et al. 2020, equation 6."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 7))
    dot = a @ b
    expected = (1 - dot / (2 * a @ a)) * a + (1 - dot / (2 * b @ b)) * b
    found = reduction._adasum_pair(tf.constant(a), tf.constant(b))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    zero = reduction._adasum_pair(tf.constant(a), tf.zeros(7, tf.float64))
    np.testing.assert_allclose(zero, a)
    poisoned = reduction._adasum_pair(tf.constant(a), tf.constant([np.nan] * 7, tf.float64))
    assert not np.isfinite(poisoned).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "average"}, "unknown reduction 'average'"),
        ({"compression": "int8"}, "unknown compression 'int8'"),
        ({"groups": 0}, "groups"),
        ({"groups": 1.5}, "groups"),
        ({"kind": "adasum", "compression": "fp16"}, "Adasum.*compression='fp16'"),
    ],
)
def test_what_does_not_go_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Reduction(**options)

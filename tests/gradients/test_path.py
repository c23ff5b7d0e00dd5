"""The way of a gradient: what is kept of it, and what is made of that when someone asks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain.gradients import clipping
from disttrain.gradients.path import GradientPath, Reduced
from disttrain.gradients.reduction import Reduction
from disttrain.replication import resolve

pytestmark = pytest.mark.unit

SUMS = ([3.0, 4.0], [[6.0], [8.0]])


def reduced(**options):
    values = {
        "sums": [tf.constant(s) for s in SUMS],
        "unscale": None,
        "factors": None,
        "norms": tf.constant([5.0, 10.0]),
        "finite": tf.constant(True),
        "clip_factor": tf.constant(1.0),
        "extras": [],
    }
    return Reduced(**{**values, **options})


def assert_all(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def times(*factors):
    return [np.multiply(s, factor) for s, factor in zip(SUMS, factors, strict=True)]


class TestReduced:
    def test_sums_that_nothing_becomes_of_are_the_gradients(self):
        found = reduced()
        assert found.gradients is found.clipped is found.sums

    def test_gradients_are_unscaled_sums(self):
        found = reduced(unscale=tf.constant(0.5))
        assert_all(found.gradients, times(0.5, 0.5))
        assert found.clipped is found.gradients

    def test_clipped_are_the_gradients_times_a_factor_each(self):
        found = reduced(unscale=tf.constant(0.5), factors=tf.constant([0.1, 1.0]))
        assert_all(found.gradients, times(0.5, 0.5))
        assert_all(found.clipped, times(0.05, 0.5))

    def test_without_a_scale_the_factors_count_all_the_same(self):
        assert_all(reduced(factors=tf.constant([1.0, 0.25])).clipped, times(1, 0.25))

    def test_what_was_clipped_otherwise_is_taken_as_it_is(self):
        other = [tf.zeros([2]), tf.ones([2, 1])]
        found = reduced(unscale=tf.constant(0.5), otherwise_clipped=other)
        assert found.clipped is other
        assert_all(found.gradients, times(0.5, 0.5))

    def test_a_sparse_gradient_stays_sparse(self):
        rows = tf.IndexedSlices(tf.constant([[2.0]]), tf.constant([7]), tf.constant([9, 1]))
        one, factors = tf.constant([1.0]), tf.constant([0.5])
        found = reduced(sums=[rows], norms=one, unscale=tf.constant(0.5), factors=factors)
        assert isinstance(found.clipped[0], tf.IndexedSlices)
        np.testing.assert_array_equal(found.clipped[0].values, [[0.5]])
        np.testing.assert_array_equal(found.clipped[0].indices, [7])


def follow(clip=None, scale=None, divisor=1, local=()):
    """The gradients `SUMS` along the path on one replica."""
    variables = [keras.Variable(np.ones_like(s), name=n) for s, n in zip(SUMS, "ab", strict=True)]
    path = GradientPath(Reduction(), clip, lambda variable: variable.name in local)
    scale = None if scale is None else tf.constant(scale)
    gradients = [tf.constant(s) for s in SUMS]
    return path(resolve("single"), gradients, variables, [], scale, divisor, 1.0)


#: Norm of both, and of the second.
WHOLE, SECOND = np.sqrt(125.0), 10.0


def test_a_path_without_scale_and_clip_multiplies_nothing():
    found = follow()
    assert found.unscale is found.factors is found.otherwise_clipped is None
    np.testing.assert_allclose(found.norms, [5, 10])


def test_the_scale_and_the_divisor_become_one_number():
    found = follow(scale=8.0, divisor=2)
    assert_all(found.sums, times(1, 1))
    assert float(found.unscale) == 1 / 16
    np.testing.assert_allclose(found.norms, [5 / 16, 10 / 16])
    assert_all(found.clipped, times(1 / 16, 1 / 16))


@pytest.mark.parametrize("scale", [None, 8.0])
def test_a_clip_that_scales_is_kept_as_factors(scale):
    limit = 1.0 / (scale or 1)
    found = follow(clipping.ClipByGlobalNorm(limit), scale)
    assert found.otherwise_clipped is None
    np.testing.assert_allclose(found.factors, [1 / WHOLE] * 2, rtol=1e-6)
    assert float(found.clip_factor) == pytest.approx(1 / WHOLE, rel=1e-6)
    assert_all(found.sums, times(1, 1))
    assert_all(found.clipped, times(limit / WHOLE, limit / WHOLE))


def test_factors_leave_local_variables_alone():
    found = follow(clipping.ClipByGlobalNorm(1.0), scale=2.0, local=("a",))
    np.testing.assert_allclose(found.factors, [1, 2 / SECOND], rtol=1e-6)
    assert_all(found.clipped, times(0.5, 0.1))


def test_a_clip_that_does_more_than_scale_is_kept_as_gradients():
    found = follow(clipping.ClipByValue(3.5))
    assert found.factors is None
    assert_all(found.otherwise_clipped, ([3.0, 3.5], [[3.5], [3.5]]))
    assert found.clipped is found.otherwise_clipped
    assert_all(found.gradients, times(1, 1))


def test_a_clip_before_the_reduction_is_in_the_sums():
    found = follow(clipping.ClipByGlobalNorm(1.0, before_reduce=True))
    assert found.factors is found.otherwise_clipped is None
    assert_all(found.sums, times(1 / WHOLE, 1 / WHOLE))
    assert float(found.clip_factor) == pytest.approx(1 / WHOLE, rel=1e-6)


@pytest.mark.parametrize("clip", [None, clipping.ClipByGlobalNorm(1.0), clipping.ClipByValue(1.0)])
def test_what_is_not_finite_counts_as_not_clipped(clip):
    path = GradientPath(Reduction(), clip, lambda variable: False)
    variables, gradients = [keras.Variable(np.ones(2))], [tf.constant([np.inf, 1.0])]
    found = path(resolve("single"), gradients, variables, [], None, 1, 1.0)
    assert not bool(found.finite)
    assert float(found.clip_factor) == 1.0


class Doubling:
    """Two replicas with equal gradients, whose sums are made in the dtype that travels."""

    replicas = 2

    def reduce_sum(self, tensors, name):
        return [tensor + tensor for tensor in tensors]

    def gather(self, tensor, name):
        return tf.concat([tensor, tensor], 0)


def sparse_rows(values, dtype):
    rows = tf.constant(values, dtype)[:, None]
    return tf.IndexedSlices(rows, tf.range(len(values)), tf.constant([len(values), 1]))


@pytest.mark.parametrize("make", [tf.constant, sparse_rows], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    ("kind", "compression", "dtype", "large"),
    [
        ("mean", "fp16", "float32", 40000.0),
        ("mean", "bf16", "float32", 3e38),
        ("mean", None, "float16", 40000.0),
        ("mean", None, "bfloat16", 3e38),
        ("sum", "fp16", "float32", 40000.0),
    ],
)
def test_a_sum_in_16_bits_does_not_overflow(kind, compression, dtype, large, make):
    path = GradientPath(Reduction(kind, compression), None, lambda variable: False)
    variables, gradients = [keras.Variable(np.ones(2))], [make([large, 1.0], dtype)]
    divisor = 2 if kind == "mean" else 1
    found = path(Doubling(), gradients, variables, [], None, divisor, 1.0)
    expected = np.array([large, 1.0]) * (1 if kind == "mean" else 2)
    assert bool(found.finite)
    values = getattr(found.clipped[0], "values", found.clipped[0])
    np.testing.assert_allclose(np.ravel(values).astype(np.float64), expected, rtol=0.02)
    np.testing.assert_allclose(found.norms, np.linalg.norm(expected), rtol=0.02)


def test_a_sum_of_shares_in_16_bits_is_not_made_smaller():
    """It is the mean already, and what is small would be lost."""
    path = GradientPath(Reduction("mean", "fp16"), None, lambda variable: False)
    variables, gradients = [keras.Variable(np.ones(1))], [tf.constant([2.0**-24])]
    found = path(Doubling(), gradients, variables, [], None, 1, 2.0)
    np.testing.assert_array_equal(found.clipped[0], [2.0**-23])

"""Clips: what they bound, what they leave alone, and what they refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain.gradients import clipping
from disttrain.gradients.norms import norms_and_finite

CLIPS = (clipping.ClipByGlobalNorm, clipping.ClipByNorm, clipping.ClipByValue)


def gradients(scale=1.0):
    rng = np.random.default_rng(0)
    return [
        tf.constant(rng.standard_normal(shape) * scale, tf.float32) for shape in ((4, 3), (5,), ())
    ]


def clip(rule, tensors):
    clipped, factor = rule(tensors, norms_and_finite(tensors)[0])
    return [g.numpy() for g in clipped], float(factor)


def whole(arrays):
    return np.sqrt(sum((np.asarray(a, np.float64) ** 2).sum() for a in arrays))


def test_the_global_norm_never_exceeds_the_limit_and_the_direction_stays():
    before = gradients(10.0)
    clipped, factor = clip(clipping.ClipByGlobalNorm(1.0), before)
    assert whole(clipped) == pytest.approx(1.0, rel=1e-6)
    assert factor == pytest.approx(1.0 / whole(before), rel=1e-6)
    for g, c in zip(before, clipped, strict=True):
        np.testing.assert_allclose(c, g.numpy() * factor, rtol=1e-6)


def test_each_norm_never_exceeds_the_limit():
    before = gradients(10.0)
    clipped, factor = clip(clipping.ClipByNorm(1.0), before)
    for g, c in zip(before, clipped, strict=True):
        norm = np.linalg.norm(g.numpy())
        np.testing.assert_allclose(c, g.numpy() * min(1.0, 1.0 / norm), rtol=1e-6)
    assert factor == pytest.approx(whole(clipped) / whole(before), rel=1e-5)


def test_each_value_stays_within_the_limit():
    before = gradients(10.0)
    clipped, factor = clip(clipping.ClipByValue(1.0), before)
    for g, c in zip(before, clipped, strict=True):
        np.testing.assert_array_equal(c, np.clip(g.numpy(), -1.0, 1.0))
    assert factor == pytest.approx(whole(clipped) / whole(before), rel=1e-5)


@pytest.mark.parametrize("rule", CLIPS)
def test_what_is_within_the_limit_is_left_alone(rule):
    before = gradients(0.01)
    clipped, factor = clip(rule(1.0), before)
    assert factor == pytest.approx(1.0, rel=1e-6)
    for g, c in zip(before, clipped, strict=True):
        np.testing.assert_array_equal(c, g.numpy())


@pytest.mark.parametrize("rule", CLIPS)
def test_clipping_twice_is_clipping_once(rule):
    once, _ = clip(rule(1.0), gradients(10.0))
    twice, _ = clip(rule(1.0), [tf.constant(c) for c in once])
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("rule", CLIPS)
def test_zero_gradients_stay_zero(rule):
    clipped, factor = clip(rule(1.0), [tf.zeros([3]), tf.zeros([2])])
    assert factor == 1.0
    assert whole(clipped) == 0.0


@pytest.mark.parametrize("rule", CLIPS)
@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf"), "1", None, True])
def test_a_limit_that_bounds_nothing_is_refused(rule, limit):
    with pytest.raises(ValueError, match=rule.__name__):
        rule(limit)


@pytest.mark.parametrize("rule", CLIPS)
def test_a_clip_survives_serialization(rule):
    config = keras.saving.serialize_keras_object(rule(0.5))
    assert keras.saving.deserialize_keras_object(config) == rule(0.5)


def test_norms_do_not_overflow_where_their_squares_do():
    norms, finite = norms_and_finite([tf.constant([3e30, 4e30]), tf.constant([1.0])])
    assert bool(finite)
    np.testing.assert_allclose(norms, [5e30, 1.0], rtol=1e-6)
    assert float(clipping.global_norm(norms)) == pytest.approx(5e30, rel=1e-6)
    clipped, _ = clip(clipping.ClipByGlobalNorm(1.0), [tf.constant([3e30, 4e30])])
    np.testing.assert_allclose(clipped[0], [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_one_element_that_is_not_finite_is_found(bad, place, dtype):
    arrays = [np.ones(4), np.ones((2, 2))]
    arrays[place].flat[3] = bad
    _, finite = norms_and_finite([tf.cast(a, dtype) for a in arrays])
    assert not bool(finite)

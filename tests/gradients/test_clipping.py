"""Clips: what they bound, what they leave alone, and what they refuse."""

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain.gradients import clipping
from disttrain.gradients.norms import norms_and_finite

pytestmark = pytest.mark.unit

CLIPS = (clipping.ClipByGlobalNorm, clipping.ClipByNorm, clipping.ClipByValue)


def gradients(scale=1.0):
    rng = np.random.default_rng(0)
    return [
        tf.constant(rng.standard_normal(shape) * scale, tf.float32) for shape in ((4, 3), (5,), ())
    ]


def clip(rule, tensors):
    clipped, factor = rule(tensors, norms_and_finite(tensors)[0], tensors)
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


class TestFactors:
    """What a clip multiplies by, told without the gradients."""

    def test_the_clips_that_only_multiply_say_so(self):
        scaling = {clipping.ClipByGlobalNorm, clipping.ClipByNorm, clipping.AutoClip}
        every = {*CLIPS, clipping.AdaptiveClip, clipping.AutoClip}
        assert {rule for rule in every if issubclass(rule, clipping.Scaling)} == scaling

    @pytest.mark.parametrize(
        ("rule", "factors", "factor"),
        [
            (clipping.ClipByGlobalNorm(1.0), [0.2, 0.2], 0.2),
            (clipping.ClipByNorm(3.5), [1.0, 0.875], np.hypot(3.0, 3.5) / 5.0),
            (clipping.ClipByGlobalNorm(5.5), [1.0, 1.0], 1.0),
            (clipping.ClipByNorm(4.5), [1.0, 1.0], 1.0),
        ],
    )
    def test_one_for_each_gradient_and_one_for_all(self, rule, factors, factor):
        found, of_all = rule.factors(tf.constant([3.0, 4.0]))
        np.testing.assert_allclose(found, factors, rtol=1e-6)
        assert found.shape == [2]
        assert float(of_all) == pytest.approx(factor, rel=1e-6)

    def test_a_percentile_of_the_history(self):
        rule = built(clipping.AutoClip(0.0, 3))
        for norms, expected in (([3.0, 4.0], 1.0), ([6.0, 8.0], 0.5), ([0.3, 0.4], 1.0)):
            found, of_all = rule.factors(tf.constant(norms))
            np.testing.assert_allclose(found, [expected] * 2, rtol=1e-6)
            assert float(of_all) == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
    @pytest.mark.parametrize("rule", [clipping.ClipByGlobalNorm, clipping.ClipByNorm])
    def test_a_norm_that_is_not_finite_is_not_scaled(self, rule, bad):
        found, _ = rule(1.0).factors(tf.constant([0.1, bad]))
        np.testing.assert_array_equal(found, [1.0, 1.0])

    @pytest.mark.parametrize("rule", [clipping.ClipByGlobalNorm(1.0), clipping.ClipByNorm(1.0)])
    def test_they_make_what_the_clip_returns(self, rule):
        before = gradients(10.0)
        factors, factor = rule.factors(norms_and_finite(before)[0])
        clipped, of_call = clip(rule, before)
        assert float(factor) == of_call
        for g, c, by in zip(before, clipped, factors, strict=True):
            np.testing.assert_array_equal(c, g.numpy() * by.numpy())


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


def built(rule):
    def add_variable(name, dtype, value, shape=()):
        return keras.Variable(np.full(shape, value, dtype), trainable=False, name=name)

    rule.build(add_variable)
    return rule


class TestAdaptiveClip:
    """Brock et al. 2021, equation 3, unit by unit."""

    def test_each_column_is_limited_by_the_norm_of_its_weights(self):
        rng = np.random.default_rng(0)
        weight = rng.standard_normal((4, 3)).astype(np.float32)
        weight[:, 1] = 0
        gradient = rng.standard_normal((4, 3)).astype(np.float32)
        gradient[:, 2] *= 1e-4
        rule = clipping.AdaptiveClip(0.1, epsilon=1e-2)
        (clipped,), factor = rule(
            [tf.constant(gradient)], norms_and_finite([tf.constant(gradient)])[0], [weight]
        )
        limits = 0.1 * np.maximum(np.linalg.norm(weight, axis=0), 1e-2)
        norms = np.linalg.norm(gradient, axis=0)
        expected = gradient * np.minimum(1, limits / norms)
        np.testing.assert_allclose(clipped, expected, rtol=1e-5)
        np.testing.assert_array_equal(clipped[:, 2], gradient[:, 2])
        assert float(factor) == pytest.approx(whole([expected]) / whole([gradient]), rel=1e-5)

    def test_a_filter_of_a_convolution_is_one_unit(self):
        weight, gradient = np.ones((3, 3, 2, 5), np.float32), np.ones((3, 3, 2, 5), np.float32)
        gradient[..., 4] = 100.0
        rule = clipping.AdaptiveClip(1.0)
        (clipped,), _ = rule([tf.constant(gradient)], tf.constant([1.0]), [weight])
        np.testing.assert_allclose(clipped, np.ones_like(gradient), rtol=1e-6)

    def test_a_vector_is_one_unit_and_one_of_zeros_can_move(self):
        rule = clipping.AdaptiveClip(0.5, epsilon=0.1)
        gradient = tf.constant([3.0, 4.0])
        (clipped,), _ = rule([gradient], tf.constant([5.0]), [np.zeros(2, np.float32)])
        np.testing.assert_allclose(clipped, [0.03, 0.04], rtol=1e-6)

    def test_gradients_within_the_limit_keep_their_bits(self):
        before = [tf.constant([[1e-3, 2e-3]])]
        norms = norms_and_finite(before)[0]
        clipped, factor = clipping.AdaptiveClip(1.0)(before, norms, [np.ones((1, 2), np.float32)])
        np.testing.assert_array_equal(clipped[0], before[0])
        assert float(factor) == 1.0


class TestAutoClip:
    """Seetharaman et al. 2020, algorithm 1."""

    @pytest.mark.parametrize("percentile", [0.0, 10.0, 50.0, 100.0])
    @pytest.mark.parametrize("window", [3, 20])
    def test_the_limit_is_the_percentile_of_the_last_norms(self, percentile, window):
        rule = built(clipping.AutoClip(percentile, window))
        seen = []
        for norm in np.random.default_rng(1).uniform(1, 10, 12).astype(np.float32):
            seen.append(norm)
            limit = np.percentile(seen[-window:], percentile)
            clipped, factor = clip(rule, [tf.constant([norm, 0.0])])
            assert whole(clipped) == pytest.approx(min(norm, limit), rel=1e-5)
            assert factor == pytest.approx(min(1, limit / norm), rel=1e-5)

    def test_a_norm_that_is_not_finite_does_not_enter_the_history(self):
        rule = built(clipping.AutoClip(50.0, 4))
        for norm in (1.0, float("inf"), 3.0):
            _, factor = clip(rule, [tf.constant([norm])])
        assert factor == pytest.approx(2.0 / 3.0)

    @pytest.mark.parametrize("options", [{"percentile": -1}, {"percentile": 101}, {"window": 0}])
    def test_settings_out_of_range_are_refused(self, options):
        with pytest.raises(ValueError, match=next(iter(options))):
            clipping.AutoClip(**options)


finite = st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False)
tensors = arrays.arrays(np.float32, arrays.array_shapes(max_dims=2, max_side=4), elements=finite)
limits = st.floats(2.0**-10, 2.0**10, width=32)
checked = hypothesis.settings(max_examples=60, deadline=None)


@checked
@hypothesis.given(st.lists(tensors, min_size=1, max_size=3), limits)
def test_no_global_norm_exceeds_its_limit_and_no_direction_turns(given, limit):
    before = [tf.constant(array) for array in given]
    clipped, factor = clip(clipping.ClipByGlobalNorm(limit), before)
    assert whole(clipped) <= limit * (1 + 1e-5)
    for array, after in zip(given, clipped, strict=True):
        np.testing.assert_allclose(after, array * factor, rtol=1e-5, atol=1e-30)


@checked
@hypothesis.given(st.lists(tensors, min_size=1, max_size=3), limits)
def test_no_norm_and_no_value_exceeds_its_limit(given, limit):
    before = [tf.constant(array) for array in given]
    for after in clip(clipping.ClipByNorm(limit), before)[0]:
        assert np.linalg.norm(after.astype(np.float64)) <= limit * (1 + 1e-5)
    for after in clip(clipping.ClipByValue(limit), before)[0]:
        assert np.abs(after).max() <= np.float32(limit)


@checked
@hypothesis.given(st.lists(tensors, min_size=1, max_size=3), limits)
def test_a_clip_factor_lies_between_zero_and_one(given, limit):
    before = [tf.constant(array) for array in given]
    for rule in CLIPS:
        assert 0 <= clip(rule(limit), before)[1] <= 1 + 1e-6


@checked
@hypothesis.given(st.lists(tensors, min_size=1, max_size=3), limits)
def test_clipping_what_was_clipped_changes_nothing(given, limit):
    for rule in CLIPS:
        once, _ = clip(rule(limit), [tf.constant(array) for array in given])
        twice, _ = clip(rule(limit), [tf.constant(array) for array in once])
        for a, b in zip(once, twice, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-30)


def test_new_clips_survive_serialization():
    for rule in (clipping.AdaptiveClip(0.02, 0.1, True), clipping.AutoClip(5, 7, True)):
        config = keras.saving.serialize_keras_object(rule)
        assert keras.saving.deserialize_keras_object(config) == rule

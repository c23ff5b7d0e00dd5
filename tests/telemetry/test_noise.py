"""The noise scale of gradients whose noise is known."""

import numpy as np
import pytest

from disttrain.telemetry.noise import NoiseScale

pytestmark = pytest.mark.unit

NAN = float("nan")


def steps(noise_scale, examples, count, seed=0, size=1024):
    """Norms of gradients with |G| = 1 and normal noise of which a single example has `noise_scale`.

    Args:
        noise_scale: S, and the noise scale too, since |G| = 1.
        examples: `[replicas]`, or `[count, replicas]`.
        count: Number of steps.
        seed: For the random numbers.
        size: Elements of a gradient.

    Yields:
        The arguments of `NoiseScale.update`.
    """
    rng = np.random.default_rng(seed)
    true = rng.standard_normal(size)
    true /= np.linalg.norm(true)
    for own in np.broadcast_to(examples, (count, np.shape(examples)[-1])):
        noise = rng.standard_normal((len(own), size)) * np.sqrt(noise_scale / size)
        with np.errstate(divide="ignore"):
            local = true + noise / np.sqrt(own)[:, None]
        local[own == 0] = np.nan
        whole = (local * own[:, None])[own > 0].sum(axis=0) / own.sum()
        yield np.linalg.norm(local, axis=1), own, np.linalg.norm(whole), own.sum()


def expected(examples, squared_gradient=1.0, noise=1.0):
    """What `update` would get if all norms were as they are in the mean."""
    examples = np.asarray(examples, np.float64)
    with np.errstate(divide="ignore"):
        local = np.sqrt(squared_gradient + noise / examples)
    whole = examples.sum()
    return local, examples, np.sqrt(squared_gradient + noise / whole), whole


EXAMPLES = {
    "two": [32, 32],
    "three": [10, 10, 10],
    "eight": [8] * 8,
    "unequal": [4, 12, 48],
    "one alone": [1, 31],
    "one without": [16, 0, 16, 5],
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("examples", EXAMPLES.values(), ids=EXAMPLES.keys())
@pytest.mark.parametrize("batches", [0.2, 3.0])
def test_a_known_noise_scale_is_recovered_within_a_tenth(batches, examples, seed):
    noise_scale = batches * sum(examples)
    meter = NoiseScale()
    for step in steps(noise_scale, examples, 500, seed):
        found = meter.update(*step)
    assert found == pytest.approx(noise_scale, rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_a_noise_scale_of_many_batches_takes_more_steps(seed):
    """Each step's own estimate of |G|^2 is as often negative as not."""
    noise_scale, examples = 64 * 20.0, [16] * 4
    meter, alone = NoiseScale(decay=0.9995), []
    for step in steps(noise_scale, examples, 4000, seed, size=256):
        found = meter.update(*step)
        alone.append(NoiseScale().update(*step))
    assert found == pytest.approx(noise_scale, rel=0.1)
    assert np.isnan(alone).mean() > 0.1


def test_small_batches_do_not_drown_the_others():
    """An epoch of four batches ends with one of two examples."""
    examples = np.tile([[32, 32]] * 4 + [[1, 1]], (120, 1))
    found = []
    for seed in range(3):
        meter = NoiseScale(decay=0.995)
        for step in steps(200.0, examples, len(examples), seed):
            value = meter.update(*step)
        found.append(value)
    np.testing.assert_allclose(found, 200.0, rtol=0.1)


@pytest.mark.parametrize("examples", EXAMPLES.values(), ids=EXAMPLES.keys())
@pytest.mark.parametrize(("squared_gradient", "noise"), [(1.0, 100.0), (4.0, 0.5), (1e-6, 1.0)])
def test_both_estimates_are_unbiased(examples, squared_gradient, noise):
    """They are linear in the squared norms, so they are exact where these have their means."""
    meter = NoiseScale()
    found = meter.update(*expected(examples, squared_gradient, noise))
    assert meter.squared_gradient == pytest.approx(squared_gradient, rel=1e-6)
    assert meter.noise == pytest.approx(noise, rel=1e-6)
    assert found == pytest.approx(noise / squared_gradient, rel=1e-6)


def test_equal_examples_give_the_formula_of_the_paper():
    local, (small, large) = np.asarray([3.0, 4.0, 5.0]), (8.0, 24.0)
    big, mean = 3.5**2, np.mean(local**2)
    meter = NoiseScale()
    meter.update(local, [small] * 3, 3.5, large)
    assert meter.squared_gradient == pytest.approx((large * big - small * mean) / (large - small))
    assert meter.noise == pytest.approx((mean - big) / (1 / small - 1 / large))


def test_a_global_batch_may_be_larger_than_what_the_replicas_measured():
    local, examples, _, _ = expected([8, 8], 1.0, 40.0)
    found = NoiseScale().update(local, examples, np.sqrt(1 + 40 / 64), 64)
    assert found == pytest.approx(40.0)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_scale_of_the_gradient_does_not_matter(factor):
    meter, scaled = NoiseScale(), NoiseScale()
    for local, examples, whole, batch in steps(50.0, [8, 8, 16], 20):
        found = meter.update(local, examples, whole, batch)
        other = scaled.update(local * factor, examples, whole * factor, batch)
        assert other == pytest.approx(found, rel=1e-9, nan_ok=True)


def test_the_order_of_the_replicas_does_not_matter():
    for local, examples, whole, batch in steps(50.0, [8, 4, 16], 5):
        turned = NoiseScale().update(local[::-1], examples[::-1], whole, batch)
        assert turned == pytest.approx(NoiseScale().update(local, examples, whole, batch))


def test_the_first_steps_are_plain_means():
    """Without a correction the averages would begin near zero, and stay there for 100 steps."""
    meter, squared, noise = NoiseScale(decay=0.999), [], []
    for step in steps(10.0, [8, 8], 5):
        alone = NoiseScale()
        alone.update(*step)
        squared.append(alone.squared_gradient)
        noise.append(alone.noise)
        meter.update(*step)
        assert meter.squared_gradient == pytest.approx(np.mean(squared), rel=0.01)
        assert meter.noise == pytest.approx(np.mean(noise), rel=0.01)
    assert meter.value == pytest.approx(np.mean(noise) / np.mean(squared), rel=0.01)


def test_equal_steps_give_their_own_estimate_from_the_first_on():
    meter = NoiseScale()
    for _ in range(300):
        assert meter.update(*expected([3, 5], 2.0, 60.0)) == pytest.approx(30.0)


def test_the_average_follows_a_change():
    meter = NoiseScale(decay=0.9)
    for noise in [10.0] * 100 + [1000.0] * 100:
        found = meter.update(*expected([8, 8], 1.0, noise))
    assert found == pytest.approx(1000.0, rel=1e-3)


@pytest.mark.parametrize(
    "step",
    {
        "one replica": ([1.0], [8], 1.0, 8),
        "one replica with examples": ([1.0, NAN], [8, 0], 1.0, 8),
        "no replica": ([], [], NAN, 0),
        "no examples": ([NAN, NAN], [0, 0], NAN, 0),
        "unknown examples": ([1.0, 2.0], [NAN, NAN], 1.0, 8),
        "a local NaN": ([1.0, NAN], [8, 8], NAN, 16),
        "an overflow": ([1.0, np.inf], [8, 8], np.inf, 16),
        "a global NaN": ([1.0, 2.0], [8, 8], NAN, 16),
        "a batch of nothing": ([1.0, 2.0], [8, 8], 1.0, 0),
        "a batch smaller than a part of it": ([1.0, 2.0], [8, 8], 1.0, 4),
    }.values(),
)
def test_a_step_that_cannot_be_measured_is_nan_and_changes_nothing(step):
    meter = NoiseScale()
    assert np.isnan(meter.update(*step))
    assert np.isnan(meter.value)
    meter.update(*expected([8, 8], 1.0, 30.0))
    assert np.isnan(meter.update(*step))
    assert meter.value == pytest.approx(30.0)
    assert meter.update(*expected([8, 8], 1.0, 30.0)) == pytest.approx(30.0)


def test_a_gradient_lost_in_its_noise_is_nan_until_it_shows():
    meter = NoiseScale()
    # The global norm is what noise alone would leave of the local ones, and less.
    assert np.isnan(meter.update([1.0, 1.0], [8, 8], np.sqrt(0.45), 16))
    assert meter.squared_gradient < 0
    assert meter.noise > 0
    assert meter.update([1.0, 1.0], [8, 8], np.sqrt(0.6), 16) > 0


def test_zero_gradients_are_nan():
    assert np.isnan(NoiseScale().update([0.0, 0.0], [8, 8], 0.0, 16))


def test_equal_gradients_on_all_replicas_have_no_noise():
    for norm in np.random.default_rng(0).random(50).astype(np.float32):
        found = NoiseScale().update([norm] * 3, [5, 6, 7], np.nextafter(norm, 1), 18)
        assert 0 <= found < 1e-4


def test_the_critical_batch_size_is_the_noise_scale():
    meter = NoiseScale()
    assert np.isnan(meter.critical_batch_size)
    found = meter.update(*expected([8, 8], 1.0, 30.0))
    assert meter.critical_batch_size == found == meter.value


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0, NAN])
def test_a_decay_that_does_not_average_is_refused(decay):
    with pytest.raises(ValueError, match="decay"):
        NoiseScale(decay)

"""Loss scales: how they grow and back off, and what they refuse."""

import keras
import pytest

from disttrain.gradients import loss_scale

pytestmark = pytest.mark.unit


def built(scale):
    def add_variable(name, dtype, value):
        return keras.Variable(value, dtype=dtype, trainable=False, name=name)

    scale.build(add_variable)
    return scale


def value(scale):
    return float(scale.value.numpy())


def test_the_scale_grows_after_the_interval_and_not_before():
    scale = built(loss_scale.DynamicLossScale(8.0, growth_interval=3))
    seen = []
    for _ in range(7):
        scale.after_finite()
        seen.append(value(scale))
    assert seen == [8, 8, 16, 16, 16, 32, 32]


def test_an_overflow_halves_the_scale_and_starts_the_interval_anew():
    scale = built(loss_scale.DynamicLossScale(8.0, growth_interval=3))
    scale.after_finite()
    scale.after_finite()
    scale.after_overflow()
    assert value(scale) == 4.0
    scale.after_finite()
    scale.after_finite()
    assert value(scale) == 4.0
    scale.after_finite()
    assert value(scale) == 8.0


def test_the_scale_never_falls_below_the_minimum():
    scale = built(loss_scale.DynamicLossScale(4.0, minimum=2.0))
    for _ in range(5):
        scale.after_overflow()
    assert value(scale) == 2.0


def test_the_scale_never_grows_to_infinity():
    scale = built(loss_scale.DynamicLossScale(2.0**127, growth_interval=1))
    scale.after_finite()
    assert value(scale) == 2.0**127


def test_other_factors_are_followed():
    scale = built(
        loss_scale.DynamicLossScale(9.0, growth_interval=1, growth_factor=3.0, backoff_factor=0.1)
    )
    scale.after_finite()
    assert value(scale) == pytest.approx(27.0)
    scale.after_overflow()
    assert value(scale) == pytest.approx(2.7)


def test_a_fixed_scale_stays():
    scale = built(loss_scale.resolve(128))
    scale.after_finite()
    scale.after_overflow()
    assert value(scale) == 128.0


def test_names_and_numbers_are_understood():
    assert loss_scale.resolve(None) is None
    assert isinstance(loss_scale.resolve("dynamic"), loss_scale.DynamicLossScale)
    own = loss_scale.DynamicLossScale(2.0)
    assert loss_scale.resolve(own) is own


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "fixed", True, object()])
def test_anything_else_is_refused(bad):
    with pytest.raises(ValueError, match="loss scale"):
        loss_scale.resolve(bad)


@pytest.mark.parametrize(
    "options",
    [
        {"growth_interval": 0},
        {"growth_interval": 1.5},
        {"growth_factor": 1.0},
        {"backoff_factor": 1.0},
        {"backoff_factor": 0.0},
        {"minimum": 0.0},
        {"initial": 1.0, "minimum": 2.0},
        {"hysteresis": 0},
    ],
)
def test_settings_outside_of_their_range_are_refused(options):
    with pytest.raises(ValueError, match=next(reversed(options))):
        loss_scale.DynamicLossScale(**options)


def test_hysteresis_tolerates_overflows_until_the_scale_has_grown():
    scale = built(loss_scale.DynamicLossScale(16.0, growth_interval=2, hysteresis=2))
    scale.after_overflow()
    assert value(scale) == 16.0
    scale.after_finite()
    scale.after_overflow()
    assert value(scale) == 8.0
    scale.after_overflow()
    assert value(scale) == 4.0
    scale.after_finite()
    scale.after_finite()
    assert value(scale) == 8.0
    scale.after_overflow()
    assert value(scale) == 8.0


def test_a_scale_survives_serialization():
    scale = loss_scale.DynamicLossScale(4.0, 5, 3.0, 0.25, 0.5, 3)
    config = keras.saving.serialize_keras_object(scale)
    assert keras.saving.deserialize_keras_object(config).get_config() == scale.get_config()

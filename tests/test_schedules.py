"""Each schedule against its formula in NumPy, inside and outside of a traced function."""

import json
import math
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain import schedules
from tests.distributed import checks

CosineDecay = keras.optimizers.schedules.CosineDecay


def rates(schedule, steps):
    return np.asarray([float(schedule(step)) for step in steps])


def warmup(step):
    return 0.1 + (0.5 - 0.1) * step / 4 if step < 4 else 0.5 * 0.5 ** ((step - 4) / 10)


def sequence(step):
    if step < 3:
        return 0.3
    return 0.2 * 0.5 ** ((step - 3) / 10) if step < 8 else 0.01


def one_cycle(step):
    def cosine(first, last, x):
        return last + (first - last) * (1 + math.cos(math.pi * x)) / 2

    if step < 6:
        return cosine(0.8 / 25, 0.8, step / 6)
    return cosine(0.8, 0.8 / 1000, min(1, (step - 6) / 14))


def linear_one_cycle(step):
    return float(np.interp(step, [0, 5, 10], [0.2, 0.8, 0.008]))


def inverse_sqrt(step):
    """Vaswani et al. 2017, equation 3, with d_model = 16 and 8 warmup steps."""
    number = step + 1
    return 16**-0.5 * min(number**-0.5, number * 8**-1.5)


def cyclical(height_of_cycle):
    def expected(step):
        """Smith 2017, section 3.1, as the code listing there has it."""
        cycle = math.floor(1 + step / (2 * 4))
        x = abs(step / 4 - 2 * cycle + 1)
        return 0.1 + (0.5 - 0.1) * max(0, 1 - x) * height_of_cycle(step, cycle)

    return expected


def exponential(initial):
    return keras.optimizers.schedules.ExponentialDecay(initial, 10, 0.5)


CASES = {
    "warmup": (lambda: schedules.Warmup(exponential(0.5), 4, start=0.1), warmup),
    "warmup-to-a-rate": (lambda: schedules.Warmup(0.5, 5), lambda s: 0.5 * min(1, s / 5)),
    "sequence": (
        lambda: schedules.Sequence([0.3, exponential(0.2), 0.01], [3, 8]),
        sequence,
    ),
    "sequence-of-one": (lambda: schedules.Sequence([0.3], []), lambda s: 0.3),
    "scaled": (lambda: schedules.Scaled(exponential(0.5), 4), lambda s: 2.0 * 0.5 ** (s / 10)),
    "one-cycle": (lambda: schedules.OneCycle(0.8, 20, end_divisor=1000), one_cycle),
    "linear-one-cycle": (
        lambda: schedules.OneCycle(
            0.8, 10, warmup=0.5, start_divisor=4, end_divisor=100, anneal="linear"
        ),
        linear_one_cycle,
    ),
    "inverse-sqrt": (lambda: schedules.InverseSqrt((16 * 8) ** -0.5, 8), inverse_sqrt),
    "triangular": (lambda: schedules.Cyclical(0.1, 0.5, 4), cyclical(lambda s, cycle: 1)),
    "triangular2": (
        lambda: schedules.Cyclical(0.1, 0.5, 4, "triangular2"),
        cyclical(lambda s, cycle: 1 / 2 ** (cycle - 1)),
    ),
    "exp-range": (
        lambda: schedules.Cyclical(0.1, 0.5, 4, "exp_range", decay=0.97),
        cyclical(lambda s, cycle: 0.97**s),
    ),
    "by-epoch": (
        lambda: schedules.ByEpoch(lambda epoch: 0.1 * 0.5**epoch, 3, epochs=4),
        lambda s: 0.1 * 0.5 ** min(3, s // 3),
    ),
    "by-epoch-from-the-rate-before": (
        lambda: schedules.ByEpoch(lambda epoch, rate: rate * 0.5, 2, epochs=5, initial=0.4),
        lambda s: 0.4 * 0.5 ** min(5, s // 2 + 1),
    ),
    "plateau": (
        lambda: schedules.Plateau(exponential(0.5), factor=0.25),
        lambda s: 0.125 * 0.5 ** (s / 10),
    ),
    "nested": (
        lambda: schedules.Warmup(
            schedules.Sequence([schedules.Plateau(0.4, 0.5), exponential(0.2)], [3]), 2
        ),
        lambda s: 0.1 * s if s < 2 else 0.2 if s < 5 else 0.2 * 0.5 ** ((s - 5) / 10),
    ),
}
STEPS = range(26)


@pytest.mark.unit
@pytest.mark.parametrize("name", CASES)
def test_each_schedule_follows_its_formula(name):
    make, formula = CASES[name]
    np.testing.assert_allclose(
        rates(make(), STEPS), [formula(step) for step in STEPS], rtol=1e-5, atol=1e-8
    )


@pytest.mark.graph
@pytest.mark.parametrize("name", CASES)
def test_a_traced_function_and_any_integer_give_the_same_rate(name):
    make, formula = CASES[name]
    schedule = make()
    traced = tf.function(lambda step: schedule(step))
    for step in (0, 3, 7, 25):
        for value in (tf.constant(step, tf.int64), tf.constant(step, tf.int32)):
            rate = traced(value)
            assert (rate.dtype, rate.shape.rank) == (tf.float32, 0)
            np.testing.assert_allclose(rate, formula(step), rtol=1e-5, atol=1e-8)
    assert float(schedule(keras.Variable(3, dtype="int64"))) == float(schedule(3))


@pytest.mark.unit
@pytest.mark.parametrize("name", CASES)
def test_each_schedule_comes_back_from_its_configuration(name):
    make, _ = CASES[name]
    schedule = make()
    written = json.loads(json.dumps(keras.optimizers.schedules.serialize(schedule)))
    assert written["registered_name"].startswith("disttrain>")
    again = keras.optimizers.schedules.deserialize(written)
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    np.testing.assert_array_equal(rates(again, STEPS), rates(schedule, STEPS))
    optimizer = keras.optimizers.SGD(schedule)
    revived = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert float(revived.learning_rate) == float(optimizer.learning_rate)


@pytest.mark.unit
def test_steps_beyond_what_float32_can_count_are_still_told_apart():
    start = 2**24
    schedule = schedules.Sequence([0.5, schedules.Warmup(1.0, 4)], [start])
    got = rates(schedule, [start - 1, start, start + 1, start + 3, start + 4])
    np.testing.assert_allclose(got, [0.5, 0.0, 0.25, 0.75, 1.0])
    cycle = schedules.Cyclical(0.0001, 1.0, 2)
    assert float(cycle(2**25 + 2)) == pytest.approx(1.0)


@pytest.mark.graph
def test_a_negative_step_in_a_traced_function_counts_as_the_first():
    schedule = schedules.Warmup(0.5, 5, start=0.1)
    assert float(tf.function(lambda s: schedule(s))(tf.constant(-3))) == pytest.approx(0.1)


@pytest.mark.unit
def test_the_scaled_rate_ramps_from_the_unscaled_one():
    """Goyal et al. 2017, section 2.2; and horovod#88, where lr is the scaled rate already."""
    assert schedules.scaled_learning_rate(0.1, 8) == pytest.approx(0.8)
    assert schedules.scaled_learning_rate(0.1, 16, rule="sqrt") == pytest.approx(0.4)
    ramp = schedules.scaled_learning_rate(0.1, 8, warmup_steps=10)
    np.testing.assert_allclose(rates(ramp, [0, 5, 10, 99]), [0.1, 0.45, 0.8, 0.8], rtol=1e-6)
    decay = exponential(0.1)
    scaled = schedules.scaled_learning_rate(decay, 4, warmup_steps=10)
    np.testing.assert_allclose(rates(scaled, [0, 5, 10, 20]), [0.1, 0.25, 0.4, 0.2], rtol=1e-6)
    plain = schedules.scaled_learning_rate(decay, 4)
    np.testing.assert_allclose(rates(plain, STEPS), 4 * rates(decay, STEPS), rtol=1e-6)


@pytest.mark.unit
def test_a_table_of_epochs_keeps_no_repeated_end():
    schedule = schedules.ByEpoch(lambda epoch: 0.1 if epoch < 2 else 0.01, 5)
    assert schedule.get_config() == {"function": [0.1, 0.1, 0.01], "steps_per_epoch": 5}
    assert float(schedule(10**9)) == pytest.approx(0.01)


@pytest.mark.unit
@pytest.mark.parametrize("step", [[1, 2], [[3]]])
def test_a_step_that_is_no_scalar_is_refused(step):
    with pytest.raises(ValueError, match=r"Warmup takes one step number.*shape \("):
        schedules.Warmup(0.1, 5)(tf.constant(step))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: schedules.Warmup(0.1, 5)(-1), "got step -1; steps count from 0"),
        (lambda: schedules.Warmup(0.1, 5)(0.5), "whole steps.*float32"),
        (lambda: schedules.Warmup(0.1, 0), "whole number from 1 as steps, not 0"),
        (lambda: schedules.Warmup(0.1, 2.5), "whole number from 1 as steps, not 2.5"),
        (lambda: schedules.Warmup(0.1, True), "as steps, not True"),
        (lambda: schedules.Warmup(-0.1, 5), "from 0 as schedule, not -0.1"),
        (lambda: schedules.Warmup(0.1, 5, start=float("nan")), "as start, not nan"),
        (lambda: schedules.Sequence([0.1, 0.2], [5, 9]), "2 schedules and 2 boundaries"),
        (lambda: schedules.Sequence([], []), "0 schedules"),
        (lambda: schedules.Sequence([1, 2, 3], [5, 5]), r"\[5, 5\].*ascend"),
        (lambda: schedules.Sequence([1, 2], [0]), "from 1 as boundaries, not 0"),
        (lambda: schedules.Scaled(0.1, 0), "above 0 as factor, not 0"),
        (lambda: schedules.OneCycle(0.0, 10), "above 0 as peak, not 0.0"),
        (lambda: schedules.OneCycle(0.1, 1), "from 2 as steps, not 1"),
        (lambda: schedules.OneCycle(0.1, 10, warmup=1.0), "warmup=1.0.*leaves 10 of 10"),
        (lambda: schedules.OneCycle(0.1, 10, warmup=1.5), "between 0 and 1, not 1.5"),
        (lambda: schedules.OneCycle(0.1, 10, start_divisor=0.5), "start_divisor.*not 0.5"),
        (lambda: schedules.OneCycle(0.1, 10, anneal="cos"), "unknown anneal 'cos'"),
        (lambda: schedules.InverseSqrt(-1.0, 10), "as peak, not -1.0"),
        (lambda: schedules.InverseSqrt(1.0, 0), "as warmup_steps, not 0"),
        (lambda: schedules.Cyclical(0.5, 0.1, 4), "low=0.5 and high=0.1"),
        (lambda: schedules.Cyclical(0.1, 0.5, 4, "square"), "unknown mode 'square'"),
        (lambda: schedules.Cyclical(0.1, 0.5, 4, decay=1.5), "decay.*not 1.5"),
        (lambda: schedules.scaled_learning_rate(0.0, 4), "above 0 as value, not 0.0"),
        (lambda: schedules.scaled_learning_rate(0.1, 0), "from 1 as replicas, not 0"),
        (lambda: schedules.scaled_learning_rate(0.1, 4, rule="cubic"), "unknown rule 'cubic'"),
        (lambda: schedules.ByEpoch(lambda e: 0.1 - e, 5), "as rate of epoch 1, not -0.9"),
        (lambda: schedules.ByEpoch(lambda e, rate: rate, 5), "give initial="),
        (lambda: schedules.Plateau(0.1, factor=-1), "as factor, not -1"),
        (lambda: schedules.ReduceOnPlateau(factor=1.5), "factor below 1, not 1.5"),
        (lambda: schedules.ReduceOnPlateau(patience=0), "from 1 as patience, not 0"),
        (lambda: schedules.ReduceOnPlateau(mode="most"), "unknown mode 'most'"),
    ],
)
def test_bad_values_are_named_with_what_was_expected(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.unit
@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.Warmup("0.1", 5),
        lambda: schedules.Sequence([0.1, None], [5]),
        lambda: schedules.Plateau(lambda: 0.1),
        lambda: schedules.ByEpoch(0.1, 5),
    ],
)
def test_what_is_no_schedule_is_a_type_error(make):
    with pytest.raises(TypeError):
        make()


class Logs(keras.callbacks.Callback):
    """Puts a metric of its own into the logs, as validation would."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.values[epoch]


def plateau_factors(values, **options):
    """The factor after each epoch, where `val_loss` takes the given values."""
    callback = schedules.ReduceOnPlateau(**options)
    plateau = schedules.Plateau(0.1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(plateau))
    callback.set_model(model)
    callback.on_train_begin()
    factors = []
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {} if value is None else {"val_loss": value})
        factors.append(float(plateau.factor.numpy()))
    return factors


@pytest.mark.unit
@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([5, 4, 3, 2], {}, [1, 1, 1, 1]),
        ([5, 5, 5, 5, 5], {}, [1, 1, 0.5, 0.5, 0.25]),
        ([5, 4.9999, 4.9998, 4], {"min_delta": 0.1}, [1, 1, 0.5, 0.5]),
        ([5, 5, 5, 5, 5, 5, 5], {"cooldown": 2}, [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]),
        ([5, 5, 5, 5, 5], {"min_factor": 0.4}, [1, 1, 0.5, 0.5, 0.4]),
        ([1, 2, 3, 3, 3], {"mode": "max"}, [1, 1, 1, 1, 0.5]),
        ([5, math.nan, math.nan, 4], {}, [1, 1, 0.5, 0.5]),
    ],
)
def test_the_factor_falls_when_the_metric_stops_improving(values, options, expected):
    options = {"factor": 0.5, "patience": 2, **options}
    np.testing.assert_allclose(plateau_factors(values, **options), expected)


@pytest.mark.unit
def test_keras_own_callback_would_lower_the_rate_in_the_same_epochs():
    rng = np.random.default_rng(0)
    values = list(1 / (1 + np.arange(40)) + rng.normal(0, 0.05, 40))
    own = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=3, cooldown=2, min_delta=0.01)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0))
    own.set_model(model)
    own.on_train_begin()
    expected = []
    for epoch, value in enumerate(values):
        own.on_epoch_end(epoch, {"val_loss": value})
        expected.append(float(model.optimizer.learning_rate.numpy()))
    factors = plateau_factors(values, factor=0.5, patience=3, cooldown=2, min_delta=0.01)
    assert min(expected) < 0.2
    np.testing.assert_allclose(factors, expected)


@pytest.mark.unit
def test_a_metric_that_is_missing_is_said_once():
    with pytest.warns(UserWarning, match="watches 'val_loss'") as caught:
        assert plateau_factors([None, None, 5, 5], factor=0.5, patience=1) == [1, 1, 1, 0.5]
    assert len(caught) == 1


@pytest.mark.unit
def test_without_a_plateau_the_callback_says_how_to_make_one():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1))
    callback = schedules.ReduceOnPlateau()
    callback.set_model(model)
    with pytest.raises(ValueError, match=r"learning_rate=disttrain.schedules.Plateau"):
        callback.on_train_begin()


class TwoProcesses:
    """Stands for a replication in which the chief holds other factors than this process."""

    class topology:
        processes = 2

    is_chief = False

    def __init__(self, chief):
        self.chief = chief

    def all_gather(self, array):
        return np.stack([np.full_like(array, self.chief), array])


@pytest.mark.unit
def test_the_chiefs_factor_counts_on_all_processes():
    plateau = schedules.Plateau(0.1)
    optimizer = keras.optimizers.SGD(schedules.Warmup(plateau, 2))
    optimizer.replication = TwoProcesses(chief=0.25)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer)
    callback = schedules.ReduceOnPlateau(patience=1, factor=0.5)
    callback.set_model(model)
    callback.on_train_begin()
    assert float(plateau.factor.numpy()) == 0.25
    for value in (5.0, 5.0):
        callback.on_epoch_end(0, {"val_loss": value})
        assert float(plateau.factor.numpy()) == 0.25
    optimizer.replication.chief = 0.125
    callback.on_epoch_end(1, {"val_loss": 1.0})
    assert float(plateau.factor.numpy()) == 0.125


@pytest.mark.graph
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_trainer_on_a_plateau_lowers_a_rate_that_has_a_schedule(mirrored, replicas):
    """Traced before the factor falls, the step must see it fall."""
    replication = mirrored(replicas) if replicas > 1 else "single"
    plateau = schedules.Plateau(exponential(0.5))
    made = checks.trainer(replication, optimizer=keras.optimizers.SGD(plateau), telemetry=None)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(checks.flat(self.model.trainable_variables))

    # The second epoch without improvement makes the factor so small that the weights stand still.
    callbacks = [Logs([5, 5, 5]), schedules.ReduceOnPlateau(patience=1, factor=1e-30), Watch()]
    made.fit(checks.dataset(16), epochs=3, verbose=0, callbacks=callbacks)
    assert not np.allclose(seen[0], seen[1])
    np.testing.assert_array_equal(seen[1], seen[2])
    assert float(made.optimizer.learning_rate) == pytest.approx(0, abs=1e-20)


@pytest.mark.unit
def test_the_factor_is_part_of_a_checkpoint_of_the_optimizer(tmp_path):
    def optimizer(factor):
        return keras.optimizers.SGD(schedules.Warmup(schedules.Plateau(0.1, factor), 1))

    saved = tf.train.Checkpoint(optimizer=optimizer(0.25)).save(str(tmp_path / "state"))
    other = optimizer(1.0)
    tf.train.Checkpoint(optimizer=other).restore(saved).assert_existing_objects_matched()
    assert float(other.learning_rate) == 0.0
    assert float(other._learning_rate(5)) == pytest.approx(0.025)


@pytest.mark.graph
def test_a_skipped_step_does_not_advance_a_schedule():
    variable = keras.Variable([0.0])
    optimizer = disttrain.DistributedOptimizer(
        keras.optimizers.SGD(schedules.Sequence([1.0, 0.5], [1]))
    )
    for gradient in (1.0, float("nan"), 1.0):
        optimizer.apply([tf.constant([gradient])], [variable])
    assert variable.numpy()[0] == -1.5


@pytest.mark.unit
def test_plot_writes_a_png_or_gives_the_figure(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "rate.png"
    assert schedules.plot(schedules.Warmup(CosineDecay(0.1, 900), 100), 5000, path) == path
    assert path.read_bytes().startswith(b"\x89PNG")
    figure = schedules.plot(schedules.OneCycle(0.1, 10), 10)
    x, y = figure.axes[0].lines[0].get_data()
    assert list(x) == list(range(10))
    np.testing.assert_allclose(y, rates(schedules.OneCycle(0.1, 10), range(10)))


@pytest.mark.unit
def test_plot_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        RuntimeError, match=r"a picture needs matplotlib, .*pip install .disttrain\[plots\]"
    ):
        schedules.plot(0.1, 10)

"""The range test: its curve, its suggestion, and that it leaves nothing behind."""

import functools

import keras
import numpy as np
import pytest

import disttrain
from disttrain import cli, experiments, schedules
from disttrain.batches import pass_over
from disttrain.examples import datasets
from disttrain.range_test import judging, objections, picture, sweep
from disttrain.telemetry import observer
from tests._support.covering import representatives
from tests._support.tiny_models import one_weight, sgd, trainer_of
from tests.checkpoints import test_resume, training
from tests.checkpoints.training import assert_same_bits, everything
from tests.plugin.health_runs import Training
from tests.telemetry.test_alerts import chunks

RATES = np.geomspace(1e-4, 1, 81)


def mlp():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(64, "relu"),
         keras.layers.Dense(10)]
    )  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def digits_trainer(optimizer, **options):
    return trainer_of(mlp, optimizer=optimizer, metrics=["accuracy"], **options)


def rate(made):
    return float(made.optimizer.learning_rate)


# The curve.


@pytest.mark.unit
def test_the_smoothed_loss_is_the_corrected_average():
    found = judging.smoothed([4.0, 2.0, 6.0], 0.5)
    # Averages 2, 2, 4 over 0.5, 0.75, 0.875.
    np.testing.assert_allclose(found, [4, 8 / 3, 32 / 7])
    np.testing.assert_array_equal(judging.smoothed([4.0, 2.0], 0.0), [4, 2])
    np.testing.assert_allclose(judging.smoothed([3.0] * 50, 0.9), [3.0] * 50)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([2.0, 2.0, np.nan], True),
        ([2.0, np.inf], True),
        ([2.0, 1.9, 7.9], True),
        ([2.0, 1.9, 7.5], False),
        ([2.0, 0.1, 5.0], False),  # Learnt by heart: 4 times 0.1 is nothing yet.
        ([2.0, 0.1, 5.9], True),
        ([-2.0, -3.0, 5.9], False),
        ([-2.0, -3.0, 6.1], True),
    ],
)
def test_an_explosion_is_told_from_noise_and_from_forgetting(curve, expected):
    assert judging.exploded(np.asarray([0.1, *curve]), 4.0, 2) is expected


def valley(at_steepest=-2.0, at_minimum=-1.0):
    """A curve that falls fastest and turns at these powers of 10."""
    logs = np.log10(RATES)
    width = (at_minimum - at_steepest) / np.sqrt(2)
    fall = -np.exp(-((logs - at_minimum) ** 2) / (2 * (width * np.sqrt(2)) ** 2))
    return 2.3 + fall


def judged(curve, healthy=None, noise=0.0):
    losses = curve + noise * np.random.default_rng(0).standard_normal(len(curve))
    return judging.judge(RATES, losses, curve, 0.9, 8, healthy)


@pytest.mark.unit
def test_three_rates_are_read_off_and_the_lowest_is_suggested():
    found = judged(valley())
    assert found.candidates["steepest descent"] == pytest.approx(1e-2, rel=0.07)
    assert found.candidates["minimum divided by 10"] == pytest.approx(1e-2, rel=0.07)
    late = judged(valley(-1.5, -1.0))
    assert late.suggestion == late.candidates["minimum divided by 10"]
    assert late.reason.startswith("minimum divided by 10: the smoothed loss is lowest at 0.1")
    early = judged(valley(-3.0, -1.0))
    assert early.suggestion == early.candidates["steepest descent"] == pytest.approx(1e-3, rel=0.07)
    assert early.reason.startswith("steepest descent: ")
    ill = judged(valley(), healthy=3e-3)
    assert (ill.suggestion, ill.candidates["last rate that is healthy"]) == (3e-3, 3e-3)
    assert "health rules object" in ill.reason
    assert judged(valley(), healthy=0.5).suggestion == pytest.approx(found.suggestion)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("curve", "noise"),
    [
        (np.full(81, 2.3), 0.0),
        (2.3 + 0.01 * np.sin(np.arange(81)), 0.1),
        (np.linspace(2.3, 9, 81), 0.0),
        (valley() * 0.01, 0.1),
    ],
)
def test_noise_and_rising_losses_give_no_suggestion(curve, noise):
    found = judged(curve, noise=noise)
    assert found.suggestion is None
    assert found.candidates == {}
    assert "no more than its noise" in found.reason


# The health rules.


def objection(change):
    """What is said of the records of a sound training of which something was changed."""
    sound = Training(60)
    change(sound)
    (chunk,) = chunks(sound)
    return objections.first(chunk.part, chunk.layers, chunk.quantities)


@pytest.mark.unit
def test_the_rules_object_to_the_first_rate_that_tears_weights_apart():
    assert objection(lambda training: None) is None

    def torn(training, since=40):
        training.layer("update_ratio", "block_2/kernel")[since:] = 0.2

    found = objection(torn)
    assert found.place == 40
    assert found.messages[0].startswith("update ratio high at block_2/kernel: ")

    def from_the_beginning_and_then_worse(training):
        torn(training, 0)
        training.layer("update_norm", "block_2/kernel")[50:] = np.nan
        training.layer("nonfinite", "block_2/kernel")[50:] = 3

    found = objection(from_the_beginning_and_then_worse)
    assert found.place == 50, "what was so at the lowest rate is not the rate's doing"
    assert all("update ratio" not in message for message in found.messages)


@pytest.mark.graph
def test_on_digits_the_rules_object_to_updates_of_a_tenth(digits):
    made = digits_trainer(keras.optimizers.Adam(1e-3))
    found = experiments.lr_range(made, *digits[0], batch_size=64)
    (sentence,) = found.objections
    assert sentence.startswith("update ratio high at ")
    healthy = found.candidates["last rate that is healthy"]
    # Adam's first steps change each of 64 x 640 weights of about 0.05 by the rate.
    assert 3e-3 < healthy < 3e-2
    assert healthy in found.rates


@pytest.mark.graph
def test_the_rules_see_every_rate_however_few_rows_the_telemetry_keeps(digits, monkeypatch):
    def found():
        made = digits_trainer(keras.optimizers.Adam(1e-3))
        return experiments.lr_range(made, *digits[0], batch_size=64).candidates

    many = found()
    monkeypatch.setattr(observer, "_MOST_ROWS", 7)
    assert found() == many


# The suggestion.


@pytest.mark.graph
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(1e-6, momentum=0.9),
        pytest.param(lambda: keras.optimizers.Adam(0.5), marks=pytest.mark.exhaustive),
    ],
    ids=["momentum", "adam"],
)
def test_the_suggestion_trains_digits_to_97_percent(digits, optimizer, capsys):
    train, validation = digits
    made = digits_trainer(optimizer())
    history = made.fit(
        *train, batch_size=64, epochs=12, validation_data=validation, verbose=2,
        learning_rate="auto",
    )  # fmt: skip
    assert history.history["val_accuracy"][-1] >= 0.97
    assert f"learning_rate='auto': {rate(made):.3g}, " in capsys.readouterr().out


@pytest.mark.graph
def test_it_is_the_same_on_two_replicas(digits, mirrored):
    found = [
        experiments.lr_range(
            digits_trainer(sgd(momentum=0.9), replication=r), *digits[0], batch_size=64
        )
        for r in ("single", mirrored(2))
    ]
    one, two = found
    assert one.suggestion == pytest.approx(two.suggestion)
    assert one.candidates.keys() == two.candidates.keys()
    quiet = one.smoothed > 0.1
    n = min(len(one.losses), len(two.losses), int(np.argmin(quiet)) or len(quiet))
    assert n > 50
    np.testing.assert_allclose(one.losses[:n], two.losses[:n], rtol=2e-3)


@pytest.mark.graph
def test_rates_rise_by_a_factor_and_each_is_used_once():
    made = trainer_of(one_weight, loss=lambda y, p: -p * y)
    x = np.ones((4, 1), np.float32)
    found = experiments.lr_range(
        made, x, x, batch_size=4, low=1e-3, high=1e-1, steps=11, smoothing=0.0
    )
    np.testing.assert_allclose(found.rates, np.geomspace(1e-3, 1e-1, 11))
    # The gradient is -1, so the weight is the sum of the rates and the loss behind is minus that.
    np.testing.assert_allclose(found.losses, -np.cumsum(found.rates), rtol=1e-5)
    assert made.model.get_weights()[0] == 0


@pytest.mark.graph
def test_it_ends_where_the_loss_explodes():
    made = trainer_of(
        lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), loss="mse"
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 4)).astype(np.float32)
    found = experiments.lr_range(made, x, x.sum(1, keepdims=True), high=1e6, smoothing=0.5)
    # Gradient descent on a quadratic diverges above 2 over the largest curvature, about 1.
    assert 0.5 < found.exploded_at < 100
    assert len(found.rates) < 90
    assert 0.01 < found.suggestion < 1
    assert "learning rate" in str(found)


# What it leaves behind.

OPTIMIZERS = {
    "adam with a schedule": lambda: keras.optimizers.Adam(training.schedule()),
    "average": lambda: keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True),
    "plateau": lambda: keras.optimizers.RMSprop(schedules.Plateau(training.schedule(), 0.5)),
    "lookahead": lambda: disttrain.optimizers.Lookahead(keras.optimizers.Nadam(0.01)),
    "sam": lambda: disttrain.optimizers.SAM(keras.optimizers.SGD(0.05)),
    "old": lambda: disttrain.optimizers.from_addons("LAMB", learning_rate=0.01),
}


@pytest.mark.graph
@pytest.mark.parametrize(
    ("optimizer", "replicas"),
    [
        *(("average", 2), ("plateau", 1), ("sam", 1), ("old", 1)),
        *(
            pytest.param(*one, marks=pytest.mark.exhaustive)
            for one in (
                *(("average", 1), ("plateau", 2), ("lookahead", 1)),
                ("adam with a schedule", 1),
            )
        ),
    ],
)
def test_every_state_is_put_back_to_the_last_bit(optimizer, replicas, mirrored, tmp_path):
    made = training.trainer(
        optimizer=OPTIMIZERS[optimizer],
        replication="single" if replicas == 1 else mirrored(replicas),
        clip=disttrain.AutoClip(50, 5),
        logdir=str(tmp_path / "run"),
        accumulate_steps=1 if optimizer == "sam" else 2,
    )
    made.fit(training.shuffled(), epochs=1, verbose=0)
    before, schedule = everything(made), made.optimizer.inner._learning_rate
    steps, recorded = made._log.steps_done, made._observer.steps()
    files = {f: f.stat().st_size for f in (tmp_path / "run").iterdir()}
    found = experiments.lr_range(made, training.shuffled(), steps=20)
    assert len(found.losses) > 3
    assert_same_bits(everything(made), before)
    assert made.optimizer.inner._learning_rate is schedule
    assert (made._log.steps_done, made._observer.steps()) == (steps, recorded)
    assert {f: f.stat().st_size for f in (tmp_path / "run").iterdir()} == files


@pytest.mark.graph
def test_a_failure_in_the_middle_leaves_nothing_behind(monkeypatch):
    made = training.trainer()
    made.fit(training.shuffled(), epochs=1, verbose=0)
    before, schedule = everything(made), made.optimizer.inner._learning_rate
    seen = []

    def fail(curve, factor, first):
        seen.append(len(curve))
        if len(curve) == 7:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(judging, "exploded", fail)
    with pytest.raises(KeyboardInterrupt):
        made.lr_range(training.shuffled(), steps=20)
    assert seen[-1] == 7
    assert_same_bits(everything(made), before)
    assert made.optimizer.inner._learning_rate is schedule


@pytest.mark.graph
def test_training_goes_on_as_without_it_but_for_one_pass():
    def train(between):
        made, data = training.trainer(), training.shuffled()
        between(made, data)
        made.fit(data, epochs=2, verbose=0)
        return everything(made)

    # More batches than the dataset has, and fewer.
    one_pass = train(lambda made, data: pass_over(data, 1))
    assert_same_bits(train(lambda made, data: made.lr_range(data, steps=30)), one_pass)
    assert_same_bits(train(lambda made, data: made.lr_range(data, steps=10)), one_pass)


@pytest.mark.graph
def test_a_test_on_arrays_moves_nothing_on():
    def train(test):
        made = training.trainer()
        if test:
            made.lr_range(training.X, training.Y, batch_size=4, steps=20)
        made.fit(training.X, training.Y, batch_size=4, epochs=2, verbose=0)
        return everything(made)

    assert_same_bits(train(True), train(False))


# fit(learning_rate="auto")


@pytest.fixture
def learnable(monkeypatch):
    """Labels that follow from the inputs, so that a range test finds something."""
    weights = np.random.default_rng(1).standard_normal((training.FEATURES, training.CLASSES))
    monkeypatch.setattr(training, "Y", (training.X @ weights).argmax(1).astype(np.int32))


@pytest.mark.graph
def test_a_schedule_is_scaled_to_have_its_peak_at_the_suggestion(learnable):
    peaks = []
    for optimizer in (
        lambda: keras.optimizers.Adam(0.1),
        lambda: keras.optimizers.Adam(schedules.Warmup(0.5, 8)),
        lambda: keras.optimizers.Adam(schedules.Plateau(schedules.Warmup(0.5, 8), 0.1)),
    ):
        made = training.trainer(optimizer=optimizer, model=training.build_plain)
        made.fit(training.X, training.Y, batch_size=11, epochs=4, verbose=0, learning_rate="auto")
        schedule = made.optimizer.inner._learning_rate
        rates = [rate(made)]
        if not isinstance(schedule, keras.Variable):
            assert isinstance(schedule, schedules.Plateau)
            assert isinstance(schedule.schedule, schedules.Warmup), "wrapped once"
            rates = [float(schedule(step)) for step in range(16)]
        peaks.append(max(rates))
    assert peaks[1] == pytest.approx(peaks[0], rel=1e-5)
    assert peaks[2] == pytest.approx(peaks[0], rel=1e-5)
    assert 1e-4 < peaks[0] < 1


@pytest.mark.graph
def test_a_second_fit_tries_again(learnable):
    made = training.trainer(model=training.build_plain)
    for _ in range(2):
        made.fit(training.X, training.Y, epochs=2, verbose=0, learning_rate="auto")
    assert made._log.steps_done == 8
    assert isinstance(made.optimizer.inner._learning_rate, schedules.Plateau)


def unknown_length():
    return training.shuffled().filter(lambda x, y: True)


@pytest.mark.graph
@pytest.mark.parametrize(
    ("optimizer", "options", "words"),
    [
        (lambda: sgd(), {"learning_rate": 0.1}, "must be 'auto' or None, not 0.1"),
        (lambda: keras.optimizers.SGD(lambda: 0.1), {}, "cannot scale the optimizer's function"),
        (lambda: keras.optimizers.SGD(training.schedule()), {"x": unknown_length}, "only the end"),
        (
            lambda: keras.optimizers.SGD(schedules.Scaled(schedules.Plateau(0.1), 2.0)),
            {},
            "Plateau inside",
        ),
        (lambda: keras.optimizers.SGD(schedules.Sequence([0.0], [])), {}, "whose peak .* is 0"),
        (lambda: disttrain.optimizers.from_legacy(Rateless()), {}, "has no learning rate"),
    ],
)
def test_what_cannot_be_scaled_is_refused_before_the_first_step(optimizer, options, words):
    made = training.trainer(optimizer=optimizer)
    data = options.pop("x", training.shuffled)()
    with pytest.raises(ValueError, match=words):
        made.fit(data, epochs=1, verbose=0, **{"learning_rate": "auto", **options})
    assert made._log.steps_done == 0


class Rateless:
    def apply_gradients(self, grads, vars):
        for grad, var in zip(grads, vars, strict=True):
            var.assign_sub(0.1 * grad)


@pytest.mark.graph
def test_what_cannot_learn_is_told():
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    made = trainer_of(loss="mse")
    with pytest.raises(ValueError, match="learning_rate='auto' has found none: the smoothed loss"):
        made.fit(0 * x, x[:, :3] * 0, verbose=0, learning_rate="auto")


@pytest.mark.graph
@pytest.mark.parametrize(
    "fit",
    representatives(
        [test_resume.fit_dataset, test_resume.fit_endless, test_resume.fit_arrays],
        test_resume.fit_endless,
    ),
    ids=lambda f: f.__name__,
)
def test_a_resumed_training_is_the_uninterrupted_one(tmp_path, learnable, fit):
    def make(directory):
        made = training.trainer(directory)
        made.fit = functools.partial(made.fit, learning_rate="auto")
        return made

    test_resume.assert_resumes(tmp_path, fit, 14, make)


@pytest.mark.unit
def test_data_without_an_end_are_refused_where_a_checkpoint_has_to_find_them_again(tmp_path):
    made = training.trainer(tmp_path)
    with pytest.raises(ValueError, match="leave repeat\\(\\) out"):
        made.fit(training.shuffled(repeat=True), steps_per_epoch=8, learning_rate="auto")
    assert made._log.steps_done == 0


@pytest.mark.graph
def test_a_resumed_number_is_the_restored_one(tmp_path, learnable, capsys):
    def make(directory):
        made = training.trainer(directory, optimizer=lambda: keras.optimizers.Adam(0.1))
        made.fit = functools.partial(made.fit, learning_rate="auto")
        return made

    test_resume.assert_resumes(tmp_path, test_resume.fit_dataset, 14, make)
    make(tmp_path).fit(training.shuffled(), epochs=4, verbose=2)
    out = capsys.readouterr().out
    assert "a checkpoint is resumed, and its learning rate counts" in out


# Bad input.


@pytest.mark.graph
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"low": 1.0, "high": 0.1}, "from 1.0 to 0.1"),
        ({"low": 0.0}, "0 < low"),
        ({"steps": 9}, "from 10, not 9"),
        ({"smoothing": 1.0}, "below 1, not 1.0"),
        ({"explosion": 1.0}, "above 1, not 1.0"),
    ],
)
def test_bad_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        trainer_of().lr_range(np.zeros((4, 4), np.float32), np.zeros(4, np.int32), **options)


@pytest.mark.graph
def test_a_loss_that_is_not_finite_from_the_beginning_is_told():
    made = trainer_of(loss="mse")
    x = np.full((8, 4), np.nan, np.float32)
    found = made.lr_range(x, x[:, :3])
    assert found.suggestion is None
    assert "not finite from the beginning" in str(found)


# The command.

PROGRAM = """
import keras, numpy as np, disttrain

def experiment():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 4)).astype(np.float32)
    build = lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    trainer = disttrain.Trainer(build, optimizer="sgd", loss="mse", replication="single")
    return trainer, (x, x.sum(1, keepdims=True))

def as_options():
    trainer, (x, y) = experiment()
    return trainer, {"x": x, "y": y, "batch_size": 16}

def hopeless():
    trainer, (x, y) = experiment()
    return trainer, (0 * x, 0 * y)

def wrong():
    return 3
"""


@pytest.fixture
def program(tmp_path, own_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return str(path)


@pytest.mark.graph
def test_the_command_prints_a_table_and_draws(program, tmp_path, capsys):
    picture = tmp_path / "range.png"
    assert cli.main(["lr-range", program, "--out", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "minimum divided by 10" in out
    assert "Suggestion: learning rate 0." in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert cli.main(["lr-range", f"{program}:as_options", "--steps", "30", "--high", "1"]) == 0


@pytest.mark.graph
@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        (":hopeless", 1, "no learning rate to suggest"),
        (":wrong", 2, "must return (trainer, data)"),
        (":nothing", 2, "has no 'nothing'; it has as_options, disttrain, experiment"),
        ("x.py", 2, "there is no file"),
    ],
)
def test_the_command_says_what_is_wrong(program, capsys, name, status, words):
    assert cli.main(["lr-range", program + name]) == status
    out, err = capsys.readouterr()
    assert words in out + err


@pytest.mark.unit
def test_the_picture_shows_curve_and_candidates():
    found = sweep.RateRange(RATES, valley(), valley(), 1e-2, "why", {"a": 1e-2, "b": 2e-2}, 0.5, [])
    figure = picture.plot(found)
    figure.canvas.draw()
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["loss", "smoothed", "a: 0.01 (suggested)", "b: 0.02", "exploded at 0.5"]
    assert axes.get_xscale() == "log"

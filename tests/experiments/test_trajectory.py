"""Paths of optimizers, and what is said of them."""

import csv
import itertools
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import disttrain
from disttrain import cli, experiments
from disttrain.experiments.trajectories import landscapes, path, pictures

pytestmark = pytest.mark.graph

QUARTIC = "2*x^4 + 3*x^3 + 2"

SGD, MOMENTUM, ADAM = (
    lambda rate: keras.optimizers.SGD(rate),
    lambda rate: keras.optimizers.SGD(rate, momentum=0.7),
    lambda rate: keras.optimizers.Adam(rate, epsilon=1e-7),
)


class CoreMomentum:
    """In the style of TensorFlow's guide, with state that is no variable."""

    def __init__(self, learning_rate=0.01, momentum=0.7):
        self.learning_rate, self.momentum = learning_rate, momentum
        self.change = 0.0

    def apply_gradients(self, grads, vars):
        for grad, var in zip(grads, vars, strict=True):
            self.change = self.momentum * self.change + self.learning_rate * grad
            var.assign_sub(self.change)


class ZippedMomentum(CoreMomentum):
    def apply_gradients(self, grads_and_vars, name=None):
        super().apply_gradients(*zip(*grads_and_vars, strict=True))


@pytest.mark.parametrize(
    ("make", "rate", "verdict", "steps"),
    [
        (SGD, 0.001, "exceeded", 2000),
        (SGD, 0.01, "exceeded", 2000),
        (SGD, 0.1, "exploded", 6),
        (MOMENTUM, 0.001, "exceeded", 2000),
        (MOMENTUM, 0.01, "converged", 80),
        (MOMENTUM, 0.1, "exploded", 6),
        (ADAM, 0.001, "exceeded", 2000),
        (ADAM, 0.01, "exceeded", 2000),
        (ADAM, 0.1, "converged", pytest.approx(1100, abs=60)),
    ],
)
def test_the_known_table(make, rate, verdict, steps):
    found = experiments.trajectory(QUARTIC, make(rate), start=2.0, steps=2000)
    assert (found.verdict, found.steps) == (verdict, steps)
    assert found.positions[0] == 2.0


def test_the_steps_of_a_keras_optimizer_run_in_one_graph():
    class Counted(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            calls.append(variable)
            super().update_step(gradient, variable, learning_rate)

    counts = []
    for steps in (2, 2000):
        calls = []
        found = experiments.trajectory(QUARTIC, Counted(0.001), 2.0, steps)
        assert found.steps == steps
        counts.append(len(calls))
    assert counts[0] == counts[1] > 0


def test_the_seconds_are_those_of_the_steps(monkeypatch):
    now = itertools.count(10)
    clock = types.SimpleNamespace(perf_counter=lambda: next(now))
    monkeypatch.setattr(path, "time", clock)
    assert experiments.trajectory("x^2", keras.optimizers.SGD(0.1), 2.0, 3).seconds == 1


def test_the_path_is_that_of_the_update_rule():
    found = experiments.trajectory(QUARTIC, keras.optimizers.SGD(0.01, momentum=0.7), 2.0, 50)
    x, change = np.float32(2), np.float32(0)
    for step in range(51):
        assert found.positions[step, 0] == pytest.approx(x, rel=1e-4)
        assert found.values[step] == pytest.approx(2 * x**4 + 3 * x**3 + 2, rel=1e-4)
        gradient = 8 * x**3 + 9 * x**2
        assert found.gradients[step, 0] == pytest.approx(gradient, rel=1e-3, abs=1e-4)
        change = np.float32(0.7) * change - np.float32(0.01) * gradient
        x += change


@pytest.mark.parametrize("make", [CoreMomentum, ZippedMomentum])
def test_optimizers_on_tensorflows_core_work_with_pairs_or_two_lists(make):
    found = experiments.trajectory(QUARTIC, make(0.01), 2.0)
    assert (found.verdict, found.steps) == ("converged", 80)
    assert found.optimizer == make.__name__
    keras_path = experiments.trajectory(QUARTIC, MOMENTUM(0.01), 2.0).positions
    np.testing.assert_allclose(found.positions, keras_path, rtol=1e-4, atol=1e-5)
    assert experiments.trajectory(QUARTIC, make(0.1), 2.0).verdict == "exploded"
    few = experiments.trajectory(QUARTIC, make(0.001), 2.0, steps=7)
    assert (few.verdict, few.steps, len(few.positions)) == ("exceeded", 7, 8)


def test_an_optimizer_of_the_old_api_works():
    old = tf_keras.optimizers.legacy.SGD(0.01, momentum=0.7)
    found = experiments.trajectory(QUARTIC, old, 2.0)
    assert (found.verdict, found.steps, found.optimizer) == ("converged", 80, "SGD")


def test_own_optimizers_work():
    sam = disttrain.optimizers.SAM(keras.optimizers.SGD(0.1), rho=0.1)
    found = experiments.trajectory("x^2 + y^2", sam, (3.0, 4.0), 1)
    # At distance 0.1 along the gradient it is 2 * (5 + 0.1) / 5 times the position.
    expected = np.array([3.0, 4.0]) * (1 - 0.1 * 2 * 5.1 / 5)
    np.testing.assert_allclose(found.positions[1], expected, rtol=1e-5)
    scaled = disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1), loss_scale=8.0)
    found = experiments.trajectory("x^2 + y^2", scaled, (3.0, 4.0), 1)
    np.testing.assert_allclose(found.positions[1], [2.4, 3.2], rtol=1e-5)
    clipped = disttrain.DistributedOptimizer(
        keras.optimizers.SGD(1.0), clip=disttrain.ClipByGlobalNorm(1.0), loss_scale=8.0
    )
    found = experiments.trajectory("x^2 + y^2", clipped, (3.0, 4.0), 1)
    np.testing.assert_allclose(found.positions[1], [2.4, 3.2], rtol=1e-5)


def test_a_keras_optimizer_begins_anew_and_stays_as_it_is():
    optimizer = keras.optimizers.Adam(0.1)
    first = experiments.trajectory(QUARTIC, optimizer, 2.0, 20)
    again = experiments.trajectory(QUARTIC, optimizer, 2.0, 20)
    np.testing.assert_array_equal(first.positions, again.positions)
    assert int(optimizer.iterations) == 0
    assert not optimizer.built


def test_a_schedule_goes_down_along_the_path():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.25, 0.0])
    found = experiments.trajectory("x^2", keras.optimizers.SGD(schedule), 8.0)
    assert found.positions[:, 0].tolist() == [8.0, 4.0, 2.0, 2.0]
    assert (found.verdict, found.steps) == ("converged", 3)


def test_to_stand_at_infinity_is_not_to_converge():
    found = experiments.trajectory("-x^4", keras.optimizers.SGD(1.0), 2.0)
    assert found.verdict == "exploded"
    assert np.isinf(found.positions[-1]).all()
    assert found.steps == len(found.positions)
    # 2, 3e38, infinity: from there no step of 3e38 leads anywhere.
    found = experiments.trajectory("-x", keras.optimizers.SGD(3e38), 2.0)
    assert (found.verdict, found.steps) == ("exploded", 3)


def test_a_step_that_is_skipped_for_an_infinite_gradient_has_not_converged():
    skips = disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1))
    found = experiments.trajectory("exp(x)", skips, 100.0)
    assert (found.verdict, found.steps) == ("exploded", 1)


def test_a_gradient_that_is_no_number_explodes_where_it_is():
    found = experiments.trajectory("sqrt(x)", keras.optimizers.SGD(1.0), 0.2)
    # 0.2 - 0.5 / sqrt(0.2) is below 0, where there is no square root.
    assert (found.verdict, found.steps) == ("exploded", 2)
    assert str(found) == "exploded at step 2"


@pytest.mark.parametrize("name", landscapes.CLASSICS)
def test_the_classics_have_their_minima_where_they_are_known(name):
    classic = landscapes.CLASSICS[name]
    for minimum in classic.minima:
        point = tf.constant(minimum, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = classic.compute(*tf.unstack(point))
        assert float(value) == pytest.approx(0, abs=1e-9)
        np.testing.assert_allclose(tape.gradient(value, point), [0, 0], atol=1e-4)
    found = experiments.trajectory(name, keras.optimizers.Adam(0.1), steps=4000)
    assert found.positions[0].tolist() == pytest.approx(classic.start)
    distances = np.linalg.norm(np.asarray(classic.minima) - found.positions[-1], axis=1)
    assert distances.min() < 0.02


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("2x", "sgd", 1), ValueError, "is missing"),
        (("rosenbrok", "sgd", 1), ValueError, "neither an expression of x nor one of rosenbrock"),
        (("x^2", "sgd"), ValueError, "one number for each of x$"),
        (("x^2 + y", "sgd", 1), ValueError, "2 finite number.*for x, y, not 1"),
        (("x^2", "sgd", float("nan")), ValueError, "finite"),
        (("x^2", "sgd", "far"), TypeError, "start must be numbers, not 'far'"),
        (("x^2", "sgd", 1, 0), ValueError, "steps must be a whole number from 1"),
        (("x^2", keras.optimizers.SGD, 1), TypeError, "apply_gradients"),
        (("x^2", object(), 1), TypeError, "apply_gradients"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(arguments, error, words):
    with pytest.raises(error, match=words):
        experiments.trajectory(*arguments)


def run(capsys, *arguments):
    status = cli.main(["trajectory", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_command_follows_draws_and_writes(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    picture, table = str(tmp_path / "paths.png"), str(tmp_path / "paths.csv")
    status, out, _ = run(
        capsys, QUARTIC, "--optimizer", "sgd", "--learning-rate", "0.01", "0.1", "--start", "2",
        "--set", "momentum=0.7", "--out", picture, "--csv", table,
    )  # fmt: skip
    assert status == 0
    assert "converged in 80 steps at x = -1.125, value 0.932129" in out
    assert "exploded at step 6" in out
    with open(picture, "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    with open(table) as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["run", "step", "x", "value", "gradient_x"]
    first = [row for row in rows if row["run"] == "0"]
    assert len(first) == 81
    assert first[0] == {"run": "0", "step": "0", "x": "2.0", "value": "58.0", "gradient_x": "100.0"}
    assert float(first[-1]["x"]) == pytest.approx(-1.125, abs=1e-4)
    assert [row["x"] for row in rows if row["run"] == "1"][1] == "-8.0"


def test_the_command_takes_an_optimizer_of_a_program(capsys, tmp_path, own_path):
    program = tmp_path / "mine.py"
    program.write_text(
        "class Plain:\n"
        "    def __init__(self, learning_rate): self.learning_rate = learning_rate\n"
        "    def apply_gradients(self, grads, vars):\n"
        "        [v.assign_sub(self.learning_rate * g) for g, v in zip(grads, vars)]\n"
    )
    status, out, _ = run(
        capsys, "x^2", "--optimizer", f"{program}:Plain", "--learning-rate", "0.5", "--start", "2"
    )
    assert (status, "converged in 2 steps" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["2x", "--start", "1"], "  2x\n   ^ here"),
        (["x^2", "--start", "1", "--optimizer", "nix"], "unknown optimizer 'nix'"),
        (["x^2", "--start", "1", "--optimizer", "nofile.py:A"], "no file 'nofile.py'"),
        (["x^2", "--start", "1", "--optimizer", "nomodule:A"], "no module 'nomodule'"),
        (["x^2", "--start", "1", "--optimizer", "keras.losses:A"], "has no 'A'"),
        (["x^2", "--start", "1", "--set", "momentum"], "NAME=VALUE"),
        (["x^2", "--start", "1", "--set", "foo=1"], "'sgd' cannot be made with {'foo': 1}"),
        (["x^2", "--start", "1", "--out", "/nowhere/a.png"], "/nowhere/a.png"),
    ],
)
def test_the_command_says_what_it_cannot_do(capsys, own_path, arguments, words):
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert err.startswith("disttrain trajectory: ")
    assert words in err


@pytest.mark.parametrize("name", ["rosenbrock", "x^2 + y^2", "log(x)", "sin(x)/x", "1 + 0*x"])
def test_pictures_hold_the_path_and_bound_what_runs_away(name):
    start = None if name == "rosenbrock" else (2.0, 1.0) if "y" in name else 2.0
    paths = [
        experiments.trajectory(name, keras.optimizers.SGD(rate, momentum=0.5), start, 100)
        for rate in (1e-3, 30.0)
    ]
    figure = pictures.plot(paths)
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = pictures.window(paths)
    assert (low <= paths[0].positions.min(axis=0)).all()
    assert (high >= paths[0].positions.max(axis=0)).all()
    assert (high - low < (20 if name == "x^2 + y^2" else 300)).all()
    for lines in axes.get_lines():
        assert np.isfinite(lines.get_xdata()).all()

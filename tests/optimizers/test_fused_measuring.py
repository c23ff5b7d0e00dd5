"""What an update of all variables at once measures: NumPy's numbers, and the other way's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import optimizers

import disttrain
from disttrain.optimizers import fused
from disttrain.replication import replica_value, resolve
from disttrain.telemetry.layers import Layers, Watch
from tensorboard_plugin import metadata
from tests._support.covering import product
from tests.optimizers.fused_steps import RULES, make_variables, rows_of
from tests.optimizers.test_around_each import Observer
from tests.telemetry.test_statistics import Case, assert_close, count

#: A scalar, an odd size, a table with rows, and one that several threads share.
SHAPES = {"scale": (), "bias": (7,), "embedding": (50, 33), "table": (303, 301)}


pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("compiled_operations")]


class Recorder(Observer):
    """Keeps the rows of a step that a `DistributedOptimizer` lets it record.

    Args:
        optimizer: A built `DistributedOptimizer`, which it then observes.
        variables: Those to record.
        record: Whether steps are recorded.
        with_histograms: Whether with histograms.
    """

    def __init__(self, optimizer, variables, record=True, with_histograms=True):
        self._replication = optimizer.replication
        self.layers = Layers(optimizer.inner, variables, histograms=True)
        self._due = record, with_histograms
        columns, quantities = len(self.layers.statistics.columns), len(metadata.BINS)
        self.rows = self._room(columns)
        self.histograms = self._room(columns - 5, quantities)
        optimizer.observer = self

    def _room(self, *shape):
        first = np.full([1, *shape], np.nan, np.float32)
        return tf.Variable(first, shape=[None] * first.ndim, trainable=False)

    def begin(self):
        return tuple(map(tf.constant, self._due))

    def watch(self, variables, gradients, norms, record, with_histograms):
        return Watch(self.layers, variables, gradients, norms, record, with_histograms)

    def write(self, record, facts, norms, watch, finite=None):
        self.rows.assign(watch.rows())
        self.histograms.assign(watch.histograms())


class Step:
    """One step of a `DistributedOptimizer` that is recorded.

    Args:
        make: Makes the inner optimizer.
        gradients: Those that each replica hands in, dense, as NumPy arrays.
        rows: Name of a variable to the rows that its gradient holds.
        chosen: Names of the variables that are recorded, in order; `None` for all.
        missing: Names of variables without a gradient.
        replication: Where it runs.
        at_once: Whether the update has to be found, or Keras has to make it; `None` for either.
        warmup: Steps before, without a record.
        constraint: A Keras constraint on the variable named `embedding`.
        record, with_histograms: As for `Recorder`.
        **options: For `DistributedOptimizer`.

    Attributes:
        rows, histograms: What was recorded, by NumPy.
        cases: For each recorded variable what NumPy has to find, a `Case`.
        values: All variables after the step, a list of arrays.
    """

    def __init__(
        self,
        make,
        gradients,
        rows=None,
        chosen=None,
        missing=(),
        replication="single",
        warmup=2,
        constraint=None,
        record=True,
        with_histograms=True,
        start=1.0,
        **options,
    ):
        rows, replication = rows or {}, resolve(replication)
        with replication.scope():
            variables = make_variables(SHAPES)
            for variable in variables:
                variable.assign(variable * start)
            optimizer = disttrain.DistributedOptimizer(make(), replication=replication, **options)
            variables[2].constraint = constraint
            optimizer.build(variables)
        names = {variable.name: variable for variable in variables}
        recorded = [names[name] for name in chosen or names]
        dense = [_only(g, rows.get(name)) for g, name in zip(gradients, names, strict=True)]
        scale = np.float32(options.get("loss_scale") or 1)

        def apply(share):
            given = []
            for name, gradient in zip(names, dense, strict=True):
                part = tf.constant(gradient * scale)
                # A product would flush denormal numbers.
                part = part if replication.replicas == 1 else part * share
                part = part if name not in rows else rows_of(part, rows[name])
                given.append(None if name in missing else part)
            optimizer.apply(given, variables)

        # Different on each replica; the mean is what was handed in.
        parts = [1.0] if replication.replicas == 1 else [0.5, 1.5]
        step = tf.function(lambda parts: replication.run(apply, parts) and None, autograph=False)
        recorder = Recorder(optimizer, recorded, record, with_histograms)
        step = step.get_concrete_function([tf.constant(part) for part in parts])
        for _ in range(warmup):
            step(*map(tf.constant, parts))
        before = [replica_value(v).numpy() for v in recorded]
        step(*map(tf.constant, parts))
        self.rows, self.histograms = recorder.rows.numpy(), recorder.histograms.numpy()
        self.values = [np.asarray(v.numpy()) for v in (*variables, *optimizer.inner.variables)]
        self.cases = []
        by_name = dict(zip(names, dense, strict=True))
        for variable, start, slots in zip(recorded, before, recorder.layers.slots, strict=True):
            case = Case(SHAPES[variable.name])
            case.before, case.after = start, replica_value(variable).numpy()
            case.gradient = by_name[variable.name]
            case.slots = {name: replica_value(slot).numpy() for name, slot in slots.items()}
            case.names = recorder.layers.statistics.slot_names
            self.cases.append(case)

    def assert_as_numpy_has_it(self):
        assert len(self.rows) == len(self.histograms) == len(self.cases)
        for case, row, histograms in zip(self.cases, self.rows, self.histograms, strict=True):
            assert_close(case, row, histograms)


def _only(gradient, rows):
    """A gradient that is 0 but for some rows."""
    if rows is None:
        return gradient
    kept = np.zeros_like(gradient)
    kept[rows] = gradient[rows]
    return kept


def gradients(scale=1.0, seed=3):
    """Gradients with zeros among them, and no element next to a bin's edge."""
    rng = np.random.default_rng(seed)
    found = []
    for shape in SHAPES.values():
        values = rng.standard_normal(shape) * scale
        values = np.copysign(np.ldexp(1.4, np.frexp(values)[1]), values)
        found.append(np.float32(np.where(rng.random(shape) < 0.1, 0, values)))
    return found


def without(monkeypatch):
    """Lets Keras update, and what is measured around each of its updates."""
    monkeypatch.setattr(fused, "find", lambda inner, variables: None)


@pytest.fixture
def measured_at_once(monkeypatch):
    """Fails a test in which the update was measured in another way."""
    taken = []
    measured = Watch.measured

    def noting(*args):
        taken.append(args)
        return measured(*args)

    monkeypatch.setattr(Watch, "measured", noting)
    yield
    assert taken


# NumPy's numbers.

SPARSE = {"embedding": [3, 49, 0], "table": [302, 4]}


@pytest.mark.parametrize("rows", [{}, SPARSE], ids=["dense", "sparse"])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_measured_with_all_its_slots(rule, rows, measured_at_once):
    step = Step(lambda: RULES[rule].make(weight_decay=0.01), gradients(), rows)
    step.assert_as_numpy_has_it()


CLIPS = {
    "none": lambda: None,
    "ClipByGlobalNorm": lambda: disttrain.ClipByGlobalNorm(0.5),
    "ClipByNorm": lambda: disttrain.ClipByNorm(0.5),
    "AutoClip": lambda: disttrain.AutoClip(50.0),
}
#: They do more than to multiply.
OTHER_CLIPS = {
    "ClipByValue": lambda: disttrain.ClipByValue(0.5),
    "AdaptiveClip": lambda: disttrain.AdaptiveClip(0.01),
}


@pytest.mark.parametrize(
    ("clip", "scale", "rows"),
    product(clip=CLIPS, scale=[None, 1000.0], rows=[{}, SPARSE]),
    ids=lambda value: {"{}": "dense", repr(SPARSE): "sparse"}.get(repr(value), str(value)),
)
def test_gradients_are_told_as_they_were_before_the_clip(clip, scale, rows, measured_at_once):
    make, options = RULES["momentum"].make, {"loss_scale": scale, "clip": CLIPS[clip]()}
    Step(make, gradients(), rows, **options).assert_as_numpy_has_it()


@pytest.mark.parametrize("scale", [None, 1000.0], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("clip", OTHER_CLIPS)
def test_gradients_are_told_as_they_were_before_a_clip_of_single_elements(clip, scale):
    make, options = RULES["momentum"].make, {"loss_scale": scale, "clip": OTHER_CLIPS[clip]()}
    Step(make, gradients(), **options).assert_as_numpy_has_it()


def test_some_variables_in_an_order_of_their_own(measured_at_once):
    step = Step(RULES["Adam"].make, gradients(), chosen=["table", "bias"])
    assert len(step.rows) == 2
    step.assert_as_numpy_has_it()


@pytest.mark.filterwarnings("ignore:2 of 4 trainable variables have no gradient")
def test_variables_without_a_gradient_have_no_numbers(measured_at_once):
    step = Step(RULES["Adam"].make, gradients(), SPARSE, missing=["bias", "table"])
    assert np.isnan(step.rows[[1, 3]]).all()
    assert np.isnan(step.histograms[[1, 3]]).all()
    for place in (0, 2):
        assert_close(step.cases[place], step.rows[place], step.histograms[place])


@pytest.mark.parametrize("size", [0.0, 1e-31, 1e-22, 1e-18, 1e17, 1e25, 1e34], ids=str)
def test_gradients_whose_squares_float32_does_not_hold(size, measured_at_once):
    step = Step(lambda: optimizers.SGD(0.1, momentum=0.5), gradients(size))
    step.assert_as_numpy_has_it()


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-20, 1e18, 1e30], ids=str)
def test_weights_whose_squares_float32_does_not_hold(size, measured_at_once):
    make = RULES["momentum"].make
    step = Step(make, gradients(size), start=size, loss_scale=None)
    step.assert_as_numpy_has_it()


def test_denormal_gradients_are_not_counted_as_zeros(measured_at_once):
    given = [np.full(shape, 1e-40, np.float32) for shape in SHAPES.values()]
    step = Step(RULES["SGD"].make, given)
    for row, histograms, case in zip(step.rows, step.histograms, step.cases, strict=True):
        assert row[5] == 0
        np.testing.assert_array_equal(histograms[1], count(case.gradient))


def test_a_step_that_is_not_recorded_costs_no_row():
    step = Step(RULES["Adam"].make, gradients(), record=False)
    assert len(step.rows) == len(step.histograms) == 0


def test_a_step_without_histograms_costs_none(measured_at_once):
    whole = Step(RULES["Adam"].make, gradients())
    step = Step(RULES["Adam"].make, gradients(), with_histograms=False)
    assert len(step.histograms) == 0
    np.testing.assert_allclose(step.rows, whole.rows, rtol=1e-6)


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("with_histograms", [False, True])
def test_what_is_recorded_does_not_change_the_update(record, with_histograms):
    options = {"record": record, "with_histograms": with_histograms}
    for rows in ({}, SPARSE):
        for rule in ("SGD", "Nadam"):
            expected = Step(RULES[rule].make, gradients(), rows, record=False).values
            found = Step(RULES[rule].make, gradients(), rows, **options).values
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


def test_averages_and_constraints_belong_to_what_is_seen():
    """They come behind the operation, which then leaves measuring to others."""

    def make():
        return RULES["Adam"].make(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3)

    step = Step(make, gradients(), constraint=keras.constraints.UnitNorm())
    step.assert_as_numpy_has_it()


def test_a_step_on_replicas_is_told_by_its_mean_gradient(mirrored, measured_at_once):
    options = {"replication": mirrored(2), "clip": disttrain.ClipByGlobalNorm(0.5)}
    Step(RULES["Adam"].make, gradients(), loss_scale=1000.0, **options).assert_as_numpy_has_it()


# The numbers of the other way.


@pytest.mark.parametrize("rows", [{}, SPARSE], ids=["dense", "sparse"])
@pytest.mark.parametrize("clip", [*CLIPS, *OTHER_CLIPS])
def test_without_the_operation_the_same_is_recorded(clip, rows, monkeypatch):
    clips = {**CLIPS, **OTHER_CLIPS}

    def run():
        return Step(RULES["Adam"].make, gradients(), rows, clip=clips[clip](), loss_scale=8.0)

    at_once = run()
    without(monkeypatch)
    one_by_one = run()
    np.testing.assert_allclose(at_once.rows, one_by_one.rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(at_once.histograms, one_by_one.histograms)


@pytest.mark.parametrize(
    ("rule", "bad", "rows"),
    product(rule=["SGD", "momentum", "Adam", "amsgrad"], bad=[np.nan, np.inf], rows=[{}, SPARSE]),
    ids=lambda value: {"{}": "dense", repr(SPARSE): "sparse"}.get(repr(value), str(value)),
)
def test_a_skipped_step_is_recorded_as_without_the_operation(rule, bad, rows, monkeypatch):
    given = gradients()
    given[2][3, 2] = bad

    def run():
        clip = disttrain.ClipByGlobalNorm(0.5)
        return Step(RULES[rule].make, given, rows, clip=clip, loss_scale=8.0, warmup=0)

    at_once = run()
    at_once.assert_as_numpy_has_it()
    without(monkeypatch)
    np.testing.assert_array_equal(at_once.rows, run().rows)
    assert at_once.rows[2, 6] == 1


def test_two_runs_measure_the_same_bits():
    """Sums do not depend on which thread is done first."""
    one, other = (Step(RULES["Adam"].make, gradients(), SPARSE) for _ in range(2))
    assert one.rows.tobytes() == other.rows.tobytes()
    assert one.histograms.tobytes() == other.histograms.tobytes()

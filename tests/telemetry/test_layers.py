"""The rows of a step: which variable's they are, where they are kept, and that they are right."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain import kernels
from disttrain.optimizers import around_each
from disttrain.replication import resolve
from disttrain.telemetry.layers import Layers, Watch
from disttrain.telemetry.observer import Observer
from tensorboard_plugin import metadata
from tests.optimizers import steps

PATHS = list(steps.SHAPES)
YES, NO = True, False


@pytest.fixture(params=["compiled", "TensorFlow"], autouse=True)
def compiled(request, monkeypatch):
    """Everything is recorded by the compiled operations, and by TensorFlow's."""
    if request.param == "TensorFlow":
        monkeypatch.setattr(kernels, "load", lambda: None)
    elif kernels.load() is None:
        pytest.skip("there is no C++ compiler")


class Step:
    """An optimizer, its variables, and what is recorded of a step.

    Args:
        optimizer: A Keras optimizer.
        recorded: Paths of the variables that are recorded, in model order.
        histograms: Whether histograms are.
    """

    def __init__(self, optimizer, recorded=PATHS, histograms=True):
        self.variables = dict(zip(PATHS, steps.make_variables(steps.starts()), strict=True))
        self.optimizer = optimizer
        optimizer.build(list(self.variables.values()))
        self.layers = Layers(optimizer, [self.variables[p] for p in recorded], histograms)
        self.layers.make_buffers(4, 2)
        (self.gradients,) = steps.gradients(1)[0][:1]

    def watch(self, paths=PATHS, record=YES, histograms=NO):
        """A `Watch` of the variables that have a gradient, in the optimizer's order."""
        gradients = [tf.constant(self.gradients[path]) for path in paths]
        return Watch(
            self.layers,
            [self.variables[path] for path in paths],
            gradients,
            tf.stack([tf.norm(g) for g in gradients]),
            tf.constant(record),
            tf.constant(histograms),
        )

    def update(self, paths=PATHS, **options):
        """An update by the gradients of some variables; returns the `Watch`."""
        watch = self.watch(paths, **options)
        variables = [self.variables[path] for path in paths]
        gradients = [tf.constant(self.gradients[path]) for path in paths]

        def apply():
            self.optimizer.apply(gradients, variables)

        around_each.call(apply, self.optimizer, variables, watch)
        return watch

    def columns(self, rows):
        return by_name(rows, self.layers.statistics.columns)


def by_name(rows, columns):
    return {name: np.asarray(rows)[..., i] for i, name in enumerate(columns)}


def norms(values):
    return [np.linalg.norm(np.float64(value).ravel()) for value in values]


def adam():
    return keras.optimizers.Adam(0.01)


# One row for each variable


@pytest.mark.unit
def test_the_rows_stand_in_model_order_whatever_the_optimizers_order():
    step = Step(adam())
    found = step.columns(step.update(PATHS[::-1]).rows())
    np.testing.assert_allclose(
        found["gradient_norm"], norms(step.gradients[path] for path in PATHS), rtol=1e-5
    )
    np.testing.assert_allclose(
        found["weight_norm"], norms(step.variables[path].numpy() for path in PATHS), rtol=1e-5
    )


@pytest.mark.unit
def test_a_variable_without_a_gradient_has_a_row_of_nan():
    step = Step(adam())
    watch = step.update(PATHS[2:], histograms=YES)
    rows, histograms = watch.rows().numpy(), watch.histograms().numpy()
    assert np.isnan(rows[:2]).all()
    assert np.isfinite(rows[2:]).all()
    assert np.isnan(histograms[:2]).all()
    assert np.isfinite(histograms[2:]).all()


@pytest.mark.unit
def test_only_the_variables_that_were_chosen_have_a_row():
    recorded = [PATHS[1], PATHS[3]]
    step = Step(adam(), recorded)
    watch = step.update(histograms=YES)
    found = step.columns(watch.rows())
    np.testing.assert_allclose(
        found["gradient_norm"], norms(step.gradients[path] for path in recorded), rtol=1e-5
    )
    assert watch.histograms().shape == (2, 5, len(metadata.BINS))


@pytest.mark.unit
def test_where_no_chosen_variable_has_a_gradient_all_rows_are_nan():
    step = Step(adam(), PATHS[:2])
    assert np.isnan(step.update(PATHS[2:]).rows()).all()


@pytest.mark.unit
def test_groups_without_a_chosen_variable_have_nothing_to_wait_for():
    step = Step(adam(), PATHS[:2])
    watch = step.watch()
    watch.before([2, 3])
    assert watch.after([2, 3]) == []


@pytest.mark.unit
def test_rows_of_several_groups_come_together(monkeypatch):
    whole = Step(adam()).update(histograms=YES)
    monkeypatch.setattr(around_each, "KEPT_BYTES", 1)
    monkeypatch.setattr(around_each, "_MOST", 1)
    parts = Step(adam()).update(histograms=YES)
    np.testing.assert_allclose(parts.rows(), whole.rows(), rtol=1e-6)
    np.testing.assert_array_equal(parts.histograms(), whole.histograms())


@pytest.mark.unit
def test_each_variable_has_its_own_slots_and_nan_where_it_has_none():
    """Muon keeps a velocity for the variables alone that Adam updates."""
    step = Step(keras.optimizers.Muon(0.01))
    found = step.columns(step.update().rows())
    matrix = [len(shape) == 2 for shape in steps.SHAPES.values()]
    assert np.isnan(found["slot/velocity"]).tolist() == matrix
    np.testing.assert_allclose(
        found["slot/momentum"], norms(m.numpy() for m in step.optimizer.momentums), rtol=1e-5
    )


@pytest.mark.unit
def test_slots_are_those_after_the_update():
    step = Step(adam())
    found = step.columns(step.update().rows())
    np.testing.assert_allclose(
        found["slot/velocity"], norms(v.numpy() for v in step.optimizer._velocities), rtol=1e-5
    )
    assert (found["slot/velocity"] > 0).all()


@pytest.mark.unit
def test_what_nothing_has_changed_has_its_weights_and_no_update():
    step = Step(adam())
    watch = step.watch(histograms=YES)
    around_each.look(list(step.variables.values()), watch)
    found = step.columns(watch.rows())
    np.testing.assert_allclose(found["weight_norm"], norms(steps.starts().values()), rtol=1e-5)
    np.testing.assert_array_equal(found["update_norm"], np.zeros(5))
    np.testing.assert_allclose(found["gradient_norm"], norms(step.gradients.values()), rtol=1e-5)
    counts = watch.histograms().numpy()
    sizes = [np.prod(shape) for shape in steps.SHAPES.values()]
    np.testing.assert_array_equal(counts[:, 2, 0], sizes)


# The buffers


def kept(step, places, **options):
    """Writes steps 1, 2, ... into rows of the buffers, each after another update."""
    made = []
    for number, row in enumerate(places, start=1):
        watch = step.update(**options)
        step.layers.write(tf.constant(row), tf.constant(number, tf.int64), watch)
        due = step.layers.histogram_bytes and bool(watch.with_histograms)
        counts = watch.histograms().numpy() if due else None
        made.append((watch.rows().numpy(), counts))
    return made


@pytest.mark.unit
def test_rows_are_read_from_where_they_were_written():
    step = Step(adam())
    made = kept(step, [2, 0, 3])
    read = step.layers.read(np.array([3, 2]))
    np.testing.assert_array_equal(read, [made[2][0], made[0][0]])


@pytest.mark.unit
def test_histograms_are_kept_with_their_steps_and_read_once():
    step = Step(adam())
    (_, first), (_, second) = kept(step, [0, 1], histograms=YES)
    numbers, counts = step.layers.read_histograms()
    assert np.asarray(numbers).tolist() == [1, 2]
    np.testing.assert_array_equal(counts, [first, second])
    assert len(step.layers.read_histograms()[0]) == 0
    kept(step, [2], histograms=YES)
    assert np.asarray(step.layers.read_histograms()[0]).tolist() == [1]


@pytest.mark.unit
def test_of_more_histograms_than_rows_the_last_are_kept():
    step = Step(adam())
    made = kept(step, [0, 1, 2], histograms=YES)
    numbers, counts = step.layers.read_histograms()
    assert numbers.tolist() == [2, 3]
    np.testing.assert_array_equal(counts, [made[1][1], made[2][1]])


@pytest.mark.unit
def test_a_step_without_histograms_writes_none():
    step = Step(adam())
    kept(step, [0, 1])
    assert len(step.layers.read_histograms()[0]) == 0


@pytest.mark.unit
def test_where_histograms_are_never_wanted_there_is_no_room_for_them():
    step = Step(adam(), histograms=False)
    kept(step, [0], histograms=YES)
    assert step.layers.histogram_bytes == 0
    assert len(step.layers.read_histograms()[0]) == 0
    assert np.isfinite(step.layers.read(np.array([0]))).all()


@pytest.mark.unit
def test_what_a_row_takes_is_known_beforehand():
    layers = Step(adam(), PATHS[:3]).layers
    assert layers.row_bytes == 4 * 3 * 10
    assert layers.histogram_bytes == 4 * 3 * 5 * len(metadata.BINS)


@pytest.mark.unit
def test_the_metadata_describes_both_tags():
    step = Step(adam(), PATHS[1:3])
    layers, histograms = step.layers.describe({"name": "adam"}, 2)
    assert layers.columns == step.layers.statistics.columns
    assert layers.shape(metadata.LAYERS) == (2, 10)
    assert histograms.shape(metadata.HISTOGRAMS) == (2, 5, len(metadata.BINS))
    for part in (layers, histograms):
        assert part.optimizer == {"name": "adam"}
        assert part.replicas == 2
        assert part.variables[0] == {
            "path": PATHS[1],
            "shape": [3],
            "dtype": "float32",
            "trainable": True,
            "slots": {name: {"dtype": "float32", "bytes": 12} for name in ("momentum", "velocity")},
        }


# A whole training


class Run:
    """Steps of an observed `DistributedOptimizer` with its own gradient on each replica."""

    def __init__(self, replication, make, **options):
        self.replication = replication
        with replication.scope():
            self.variables = steps.make_variables(steps.starts())
            optimizer = disttrain.DistributedOptimizer(make(), replication=replication, **options)
            optimizer.build(self.variables)
        telemetry = disttrain.Telemetry(every=1, histograms_every=2)
        self.observer = Observer(telemetry, optimizer.inner, self.variables, replication)
        optimizer.observer = self.observer
        self.optimizer = optimizer
        self._step = tf.function(
            lambda parts: (
                replication.run(lambda part: optimizer.apply(part, self.variables), parts) and None
            ),
            autograph=False,
        )
        self.expected = []

    def step(self, parts):
        """Makes a step, and notes what should be recorded of it."""
        given = [steps.mean(parts)] if self.replication.replicas == 1 else parts
        before = [np.float64(v.numpy()) for v in self.variables]
        self._step([[tf.constant(g) for g in part.values()] for part in given])
        after = [np.float64(v.numpy()) for v in self.variables]
        updates = [a - b for a, b in zip(after, before, strict=True)]
        gradients = [np.float64(g) for g in steps.mean(parts).values()]
        with np.errstate(invalid="ignore"):
            self.expected.append(
                {
                    "weight_norm": norms(after),
                    "gradient_norm": norms(gradients),
                    "update_norm": norms(updates),
                    "update_ratio": np.divide(norms(updates), norms(after)),
                    "gradient_max": [np.abs(g).max() for g in gradients],
                    "nonfinite": [np.sum(~np.isfinite(g)) for g in gradients],
                    "update_cosine": [
                        0.0
                        if np.isfinite(g).all() and not u.any()
                        else -np.sum(u * g) / (np.linalg.norm(u) * np.linalg.norm(g))
                        for u, g in zip(updates, gradients, strict=True)
                    ],
                    "slot/momentum": norms(m.numpy() for m in self.optimizer.inner._momentums),
                }
            )

    def assert_recorded(self):
        read = self.observer.read()
        assert read.steps.tolist() == list(range(1, len(self.expected) + 1))
        for expected, rows in zip(self.expected, read.layers, strict=True):
            found = by_name(rows, self.observer.layers.statistics.columns)
            for name, values in expected.items():
                # Weights in float32 tell their small change to some digits.
                np.testing.assert_allclose(found[name], values, rtol=2e-4, atol=1e-6, err_msg=name)
        return read


@pytest.mark.graph
@pytest.mark.parametrize(
    ("compiled", "replicas", "clip"),
    [
        ("TensorFlow", 1, None),
        ("compiled", 2, disttrain.ClipByGlobalNorm(0.5)),
        ("compiled", 1, disttrain.ClipByNorm(0.5)),
        ("TensorFlow", 2, disttrain.ClipByValue(0.3)),
    ],
    indirect=["compiled"],
    ids=str,
)
def test_the_numbers_of_a_training(mirrored, replicas, clip):
    """Adam with weight decay and a clip, watched while it updates."""

    def make():
        return keras.optimizers.AdamW(0.05, weight_decay=0.1)

    run = Run(mirrored(2) if replicas == 2 else resolve("single"), make, clip=clip)
    for parts in steps.gradients(3):
        run.step(parts)
    read = run.assert_recorded()
    assert list(read.histogram_steps) == [1, 2]
    sizes = [np.prod(shape) for shape in steps.SHAPES.values()]
    totals = read.histograms[..., [0, 2, 3]].sum(-1) + read.histograms[..., 4:].sum(-1)
    np.testing.assert_array_equal(totals, np.broadcast_to(np.c_[sizes], totals.shape))


@pytest.mark.graph
@pytest.mark.parametrize(
    ("compiled", "replicas"), [("TensorFlow", 1), ("compiled", 2)], indirect=["compiled"]
)
def test_the_numbers_of_a_step_that_was_skipped(mirrored, replicas):
    replication = mirrored(2) if replicas == 2 else resolve("single")
    run = Run(replication, lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1))
    first, second, third = steps.gradients(3)
    second[1]["norm/gamma"][1] = np.nan
    for parts in (first, second, third):
        run.step(parts)
    read = run.assert_recorded()
    skipped = [s.name for s in metadata.STEP_QUANTITIES].index("skipped")
    assert read.quantities[:, skipped].tolist() == [0, 1, 0]

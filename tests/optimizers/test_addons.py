"""`from_addons`: the numbers of TensorFlow 2.15, on Keras 3 variables, under every replication."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.optimizers import addons
from disttrain.optimizers.addons import from_addons
from disttrain.optimizers.slots import find_slots
from tests._support.covering import representatives
from tests._support.timeouts import TIMEOUT
from tests.distributed import checks
from tests.optimizers import addons_golden

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
GOLDEN = addons_golden.golden()


@pytest.fixture(scope="module")
def installed():
    """TensorFlow Addons; without it the test is skipped, or fails where DISTTRAIN_STRICT=1."""
    try:
        return addons.import_addons()
    except RuntimeError as error:
        if os.environ.get("DISTTRAIN_STRICT") == "1":
            pytest.fail(f"{error} (DISTTRAIN_STRICT=1 asks for it)")
        pytest.skip(str(error))


def make(part):
    """Makes what a case describes, with Keras 3's schedules and configurations."""
    if isinstance(part, (list, tuple)):
        return [make(entry) for entry in part]
    if not isinstance(part, addons_golden.Part):
        return part
    arguments = {key: make(value) for key, value in part.arguments.items()}
    if part.name == "ExponentialDecay":
        return keras.optimizers.schedules.ExponentialDecay(**arguments)
    if part.name in ("SGD", "Adam"):
        return {"class_name": part.name, "config": arguments}
    return from_addons(part.name, **arguments)


def start(optimizer, scope=None):
    with scope or tf.distribute.get_strategy().scope():
        optimizer = optimizer()
        variables = [
            keras.Variable(value, name=name)
            for value, name in zip(addons_golden.start(), ("kernel", "table"), strict=True)
        ]
        optimizer.build(variables)
    return optimizer, variables


def apply_in_a_function(optimizer, variables, sparse=False):
    """A compiled step, for eager code and graphs are not the same to old optimizers."""

    @tf.function
    def step(kernel, table):
        if sparse:
            table = tf.IndexedSlices(table, tf.constant(addons_golden.ROWS), tf.constant([4, 2]))
        optimizer.apply([kernel, table], variables)

    return step


def assert_golden(case, optimizer, variables, first):
    expected = GOLDEN[case]
    for value, wanted in zip(first, expected["first"], strict=True):
        np.testing.assert_allclose(value, wanted, **CLOSE)
    for variable, wanted in zip(variables, expected["last"], strict=True):
        np.testing.assert_allclose(variable.numpy(), wanted, **CLOSE)
    inner = getattr(optimizer, "inner", optimizer)
    found = find_slots(inner, variables)
    for i, slots in enumerate(found):
        wanted = {n: v[i] for n, v in expected["slots"].items() if v[i] is not None}
        assert set(slots) == set(wanted)
        for name, value in wanted.items():
            np.testing.assert_allclose(slots[name].numpy(), value, **CLOSE, err_msg=name)
    assert optimizer.iterations.numpy() == addons_golden.STEPS


@pytest.mark.graph
@pytest.mark.parametrize("case", GOLDEN)
def test_one_device_gives_the_numbers_of_tensorflow_2_15(installed, case):
    name, sparse = case.removesuffix("-sparse"), case.endswith("-sparse")
    optimizer, variables = start(lambda: make(addons_golden.CASES[name]))
    step = apply_in_a_function(optimizer, variables, sparse)
    first = None
    for i in range(addons_golden.STEPS):
        step(*addons_golden.gradients(i, sparse))
        first = first or [variable.numpy() for variable in variables]
    assert_golden(case, optimizer, variables, first)


def shares(step, sparse=False):
    """Two very different gradients, each a list, whose sum is the golden one."""
    one = addons_golden.gradients(step + 100, sparse)
    both = addons_golden.gradients(step, sparse)
    return one, [whole - part for whole, part in zip(both, one, strict=True)]


def on_each_replica(replication, apply):
    """A compiled step in which each replica applies its own share of the gradients."""
    return tf.function(lambda parts: replication.run(apply, parts) and None)


def assert_replicas_equal(replication, variables):
    for variable in variables:
        first, *others = replication.strategy.experimental_local_results(variable.value)
        for other in others:
            np.testing.assert_array_equal(first, other)


@pytest.mark.graph
@pytest.mark.parametrize(
    "case",
    # Each optimizer once; the others have other settings, which one device tests.
    representatives(addons_golden.CASES, *(c for c in addons_golden.CASES if "-" not in c)),
)
def test_mirrored_replicas_with_different_gradients_give_the_numbers_too(installed, mirrored, case):
    replication = mirrored(2)
    optimizer, variables = start(
        lambda: disttrain.DistributedOptimizer(
            make(addons_golden.CASES[case]), replication=replication, reduction="sum"
        ),
        replication.scope(),
    )
    step = on_each_replica(replication, lambda grads: optimizer.apply(list(grads), variables))
    first = None
    for i in range(addons_golden.STEPS):
        step([tuple(map(tf.constant, share)) for share in shares(i)])
        first = first or [variable.numpy() for variable in variables]
    assert_golden(case, optimizer, variables, first)
    assert_replicas_equal(replication, [*variables, *optimizer.variables])


@pytest.mark.graph
@pytest.mark.parametrize(
    "case",
    representatives(["LAMB", "Lookahead", "MultiOptimizer", "AdaBelief"], "LAMB", "MultiOptimizer"),
)
def test_by_itself_under_a_strategy_it_sums_as_keras_does(installed, mirrored, case):
    replication = mirrored(2)
    optimizer, variables = start(lambda: make(addons_golden.CASES[case]), replication.scope())
    step = on_each_replica(replication, lambda grads: optimizer.apply(list(grads), variables))
    for i in range(addons_golden.STEPS):
        step([tuple(map(tf.constant, share)) for share in shares(i)])
    for variable, wanted in zip(variables, GOLDEN[case]["last"], strict=True):
        np.testing.assert_allclose(variable.numpy(), wanted, **CLOSE)


@pytest.mark.graph
def test_lazy_adam_stays_lazy_on_mirrored_replicas(installed, mirrored):
    replication = mirrored(2)
    case = addons_golden.CASES["LazyAdam"]
    optimizer, variables = start(lambda: make(case), replication.scope())

    def apply(grads):
        rows = tf.constant(addons_golden.ROWS)
        table = tf.IndexedSlices(grads[1], rows, tf.constant([4, 2]))
        optimizer.apply([grads[0], table], variables)

    step = on_each_replica(replication, apply)
    for i in range(addons_golden.STEPS):
        step([tuple(map(tf.constant, share)) for share in shares(i, sparse=True)])
    expected = GOLDEN["LazyAdam-sparse"]["last"]
    np.testing.assert_allclose(variables[1].numpy(), expected[1], **CLOSE)
    np.testing.assert_array_equal(variables[1].numpy()[1], addons_golden.start()[1][1])


@pytest.mark.graph
def test_every_optimizer_and_schedule_of_addons_is_known(installed):
    home = installed.optimizers
    classes = {n: k for n, k in vars(home).items() if isinstance(k, type) and k.__name__ == n}
    base = home.KerasLegacyOptimizer
    optimizers = {n for n, k in classes.items() if issubclass(k, base) and k is not base}
    assert optimizers - {"AveragedOptimizerWrapper"} == set(addons.OPTIMIZERS)
    schedules = {n for n in classes if n.endswith("LearningRate")}
    assert schedules == set(addons.SCHEDULES)
    assert {case.partition("-")[0] for case in addons_golden.CASES} == set(addons.OPTIMIZERS)


# Learning rates


@pytest.mark.graph
def test_a_rate_that_is_set_counts_from_the_next_step_even_in_a_traced_function(installed):
    variable = keras.Variable([0.0])
    optimizer = from_addons("SGDW", learning_rate=1, weight_decay=0.0)
    step = tf.function(lambda: optimizer.apply([tf.constant([1.0])], [variable]))
    optimizer.build([variable])
    step()
    optimizer.learning_rate = 0.25
    step()
    assert variable.numpy()[0] == -1.25
    assert float(optimizer.learning_rate.numpy()) == 0.25


@pytest.mark.graph
def test_keras_2_schedules_and_addons_own_are_taken(installed):
    import tf_keras

    legacy = tf_keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    cycle = from_addons(
        "TriangularCyclicalLearningRate",
        initial_learning_rate=0.0,
        maximal_learning_rate=1.0,
        step_size=2.0,
    )
    assert isinstance(cycle, keras.optimizers.schedules.LearningRateSchedule)
    expected = {
        "legacy": (legacy, [0.1, 0.1 * 0.5**0.5, 0.05]),
        "cycle": (cycle, [0.0, 0.5, 1.0]),
        "function": (lambda: tf.constant(0.5), [0.5, 0.5, 0.5]),
    }
    for rate, values in expected.values():
        variable = keras.Variable([0.0])
        optimizer = from_addons("SGDW", learning_rate=rate, weight_decay=0.0)
        for value in values:
            np.testing.assert_allclose(float(optimizer.learning_rate), value, rtol=1e-6)
            before = variable.numpy()[0]
            optimizer.apply([tf.constant([1.0])], [variable])
            np.testing.assert_allclose(before - variable.numpy()[0], value, atol=1e-6)


@pytest.mark.graph
def test_a_cyclical_schedule_drives_a_keras_optimizer_and_is_saved(installed):
    cycle = from_addons(
        "ExponentialCyclicalLearningRate",
        initial_learning_rate=0.1,
        maximal_learning_rate=1.0,
        step_size=4.0,
        gamma=0.5,
    )
    optimizer = keras.optimizers.SGD(cycle)
    copy = keras.optimizers.SGD.from_config(optimizer.get_config())
    for step in range(6):
        assert float(copy._learning_rate(step)) == float(cycle(step))


# Inner optimizers


def inner_optimizers():
    import tf_keras

    return {
        "name": "SGD",
        "lower": "sgd",
        "configuration": keras.optimizers.serialize(keras.optimizers.SGD(0.01)),
        "keras 3": keras.optimizers.SGD(0.01),
        "keras 2": tf_keras.optimizers.legacy.SGD(0.01),
        "addons": from_addons("SGDW", learning_rate=0.01, weight_decay=0.0),
    }


@pytest.mark.graph
def test_an_inner_optimizer_comes_in_any_form(installed):
    for kind, inner in inner_optimizers().items():
        optimizer, variables = start(
            lambda inner=inner: from_addons("Lookahead", optimizer=inner, sync_period=100)
        )
        optimizer.apply(addons_golden.gradients(0), variables)
        for variable, value, gradient in zip(
            variables, addons_golden.start(), addons_golden.gradients(0), strict=True
        ):
            np.testing.assert_allclose(
                variable.numpy(), value - 0.01 * gradient, **CLOSE, err_msg=kind
            )
        assert float(optimizer.learning_rate.numpy()) == np.float32(0.01)


@pytest.mark.graph
def test_an_addons_optimizer_is_an_inner_one_by_its_name(installed):
    optimizer = from_addons("SWA", optimizer="LAMB", learning_rate=0.5)
    assert type(optimizer.wrapped._optimizer).__name__ == "LAMB"
    assert float(optimizer.learning_rate.numpy()) == 0.5


@pytest.mark.graph
@pytest.mark.parametrize("replicas", [1, 2])
def test_averages_are_assigned_and_swapped(installed, mirrored, replicas):
    scope = mirrored(2).scope() if replicas == 2 else None
    optimizer, variables = start(
        lambda: from_addons("MovingAverage", optimizer="SGD", average_decay=0.5), scope
    )
    averages = [slots["average"] for slots in find_slots(optimizer, variables)]
    for average in averages:
        average.assign(average.value + 1.0)
    weights = [variable.numpy() for variable in variables]
    optimizer.swap_weights()
    for variable, average, weight in zip(variables, averages, weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), weight + 1.0)
        np.testing.assert_allclose(average.numpy(), weight)
    optimizer.assign_average_vars(variables)
    for variable, weight in zip(variables, weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), weight)


@pytest.mark.graph
def test_a_multi_optimizer_takes_layers(installed):
    model = checks.build()
    first, last = model.layers
    optimizer = from_addons(
        "MultiOptimizer",
        optimizers_and_layers=[
            (from_addons("SGDW", learning_rate=1.0, weight_decay=0.0), first),
            (from_addons("SGDW", learning_rate=0.0, weight_decay=0.0), [last]),
        ],
    )
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer.apply([tf.ones(v.shape) for v in before], model.trainable_variables)
    change = [b - v.numpy() for b, v in zip(before, model.trainable_variables, strict=True)]
    assert [float(np.round(c.mean(), 5)) for c in change] == [1.0, 1.0, 0.0, 0.0]


# Saving


def optimizer_for_model(name):
    arguments = {
        "AdamW": {"weight_decay": keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)},
        "ConditionalGradient": {"learning_rate": 0.99},
        "LAMB": {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)},
        "Lookahead": {"optimizer": "RectifiedAdam", "sync_period": 2, "learning_rate": 0.1},
        "MovingAverage": {"optimizer": keras.optimizers.Adam(0.1)},
        "MultiOptimizer": {
            "optimizers_and_layers": [
                (from_addons("LAMB", clipnorm=None), "one"),
                (keras.optimizers.SGD(0.1, momentum=0.9), ["two"]),
            ]
        },
        "SGDW": {"weight_decay": 0.1, "momentum": 0.9, "global_clipnorm": 0.1},
        "SWA": {"optimizer": keras.optimizers.SGD(0.1, momentum=0.9), "average_period": 1},
    }
    return from_addons(name, **arguments.get(name, {}))


def compiled(optimizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4, name="one"), keras.layers.Dense(3, name="two")]
    )
    model.compile(optimizer, checks.loss())
    return model


@pytest.mark.graph
@pytest.mark.parametrize(
    "name",
    # A schedule of weight decay, one of the rate, and those with others inside.
    representatives(addons.OPTIMIZERS, "AdamW", "LAMB", "Lookahead", "MultiOptimizer", "SWA"),
)
def test_a_saved_model_goes_on_as_if_nothing_had_happened(installed, tmp_path, name):
    x, y = checks.data(16)
    model = compiled(optimizer_for_model(name))
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, addons.AddonsOptimizer)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert len(loaded.optimizer.variables) > 1
    for mine, saved in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), saved.numpy())
    for one in (model, loaded):
        one.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for mine, saved in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_allclose(mine.numpy(), saved.numpy(), **CLOSE)
    assert loaded.optimizer.iterations.numpy() == 4


@pytest.mark.graph
@pytest.mark.parametrize("name", ["LAMB", "Lookahead", "MultiOptimizer"])
def test_a_checkpoint_holds_the_state_once(installed, tmp_path, name):
    x, y = checks.data(16)
    model = compiled(optimizer_for_model(name))
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    path = tf.train.Checkpoint(optimizer=model.optimizer).write(tmp_path / "state")
    saved = [key for key, _ in tf.train.list_variables(path) if "VARIABLE_VALUE" in key]
    own = [key for key in saved if "/_trainable_variables/" not in key]
    assert len(own) == len(model.optimizer.variables)

    other = compiled(optimizer_for_model(name))
    other.optimizer.build(other.trainable_variables)
    tf.train.Checkpoint(optimizer=other.optimizer).read(path).assert_consumed()
    for mine, wanted in zip(other.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), wanted.numpy())


@pytest.mark.graph
def test_state_that_does_not_fit_is_refused(installed, tmp_path):
    x, y = checks.data(8)
    model = compiled(from_addons("LAMB"))
    model.fit(x, y, verbose=0)
    model.save_weights(tmp_path / "state.weights.h5")
    other = compiled(from_addons("SGDW", weight_decay=0.0))
    other.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="where it now has"):
        other.load_weights(tmp_path / "state.weights.h5")


# In disttrain


@pytest.mark.graph
@pytest.mark.parametrize("name", representatives(["LAMB", "MovingAverage"], "LAMB"))
def test_a_trainer_trains_alike_on_one_device_and_on_mirrored_replicas(installed, mirrored, name):
    weights = []
    for replication in ("single", mirrored(2)):
        trainer = checks.trainer(
            replication, optimizer=optimizer_for_model(name), clip=disttrain.ClipByGlobalNorm(0.5)
        )
        trainer.fit(checks.dataset(41), epochs=2, verbose=0)
        weights.append(checks.flat(trainer.model.trainable_variables))
        assert trainer.optimizer.iterations.numpy() == 12
    np.testing.assert_allclose(*weights, atol=1e-5)


@pytest.mark.graph
def test_a_clip_of_the_optimizer_is_made_after_the_reduction(installed, mirrored):
    """10 and -2, each clipped by itself to 1 and -1, would cancel out."""
    replication = mirrored(2)
    with replication.scope():
        variable = keras.Variable([0.0])
        optimizer = disttrain.DistributedOptimizer(
            from_addons("SGDW", learning_rate=1.0, weight_decay=0.0, clipnorm=1.0),
            replication=replication,
        )
        optimizer.build([variable])
    assert optimizer.clip == disttrain.ClipByNorm(1.0)
    step = on_each_replica(replication, lambda grads: optimizer.apply(list(grads), [variable]))
    step([(tf.constant([10.0]),), (tf.constant([-2.0]),)])
    assert variable.numpy()[0] == -1.0


@pytest.mark.graph
def test_a_skipped_step_leaves_the_state_alone(installed, mirrored):
    replication = mirrored(2)
    optimizer, variables = start(
        lambda: disttrain.DistributedOptimizer(
            from_addons("Lookahead", optimizer="LAMB", sync_period=2), replication=replication
        ),
        replication.scope(),
    )
    state = [*variables, *optimizer.inner.variables]
    before = [variable.numpy() for variable in state]
    step = on_each_replica(replication, lambda grads: optimizer.apply(list(grads), variables))
    good, bad = shares(0)
    bad[0][0, 0] = np.nan
    step([tuple(map(tf.constant, good)), tuple(map(tf.constant, bad))])
    for variable, value in zip(state, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.graph
def test_a_constraint_holds_after_the_update(installed):
    variable = keras.Variable([1.0])
    variable.constraint = keras.constraints.NonNeg()
    optimizer = from_addons("SGDW", learning_rate=1.0, weight_decay=0.0)
    optimizer.apply([tf.constant([5.0])], [variable])
    assert variable.numpy()[0] == 0.0


# Keras 3 stays Keras 3

IDENTITY = """
import sys, threading, warnings
warnings.simplefilter("error", UserWarning)
{first}
import keras
import tensorflow as tf
{second}
import disttrain.optimizers.addons, disttrain.optimizers.legacy
assert not {{"tensorflow_addons", "tf_keras"}} & set(sys.modules), "imported before use"
seen = set()
def look():
    while not done.is_set():
        seen.add((id(tf.keras), tf.keras.Model is keras.Model, keras.__name__))
        seen.add(sys.modules["keras"] is keras)
tf.keras.Model
before = {{name: module for name, module in sys.modules.items() if name.startswith("keras")}}
own = tf.keras
done = threading.Event()
thread = threading.Thread(target=look, daemon=True)
thread.start()
try:
    disttrain.optimizers.addons.from_addons("LAMB", betas=3)
except TypeError:
    assert tf.keras is own
optimizer = disttrain.optimizers.addons.from_addons("MovingAverage", optimizer="LAMB")
variable = keras.Variable([1.0, 2.0])
optimizer.apply([tf.constant([1.0, 1.0])], [variable])
tf.function(lambda: optimizer.apply([tf.constant([1.0, 1.0])], [variable]))()
done.set()
thread.join()
assert seen == {{(id(own), True, "keras"), True}}, seen
assert tf.keras is own and tf.keras.optimizers.SGD is keras.optimizers.SGD
import tensorflow.keras.layers
assert tensorflow.keras.layers.Dense is keras.layers.Dense
after = {{name: module for name, module in sys.modules.items() if name.startswith("keras")}}
assert all(after[name] is module for name, module in before.items())
assert "keras.src.engine.keras_tensor" not in after
import os
assert "TF_USE_LEGACY_KERAS" not in os.environ
print("Keras 3")
"""


ORDERS = {
    "disttrain first": ("import disttrain.optimizers.addons", ""),
    "tf.keras first": ("", "tf.keras.Sequential([])"),
}


@pytest.mark.processes
@pytest.mark.parametrize("order", representatives(ORDERS, "tf.keras first"))
def test_tf_keras_is_keras_3_before_and_during_and_after(installed, order):
    first, second = ORDERS[order]
    done = subprocess.run(
        [sys.executable, "-c", IDENTITY.format(first=first, second=second)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.stdout.endswith("Keras 3\n"), done.stderr


# Bad input


@pytest.mark.unit
def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="'LARS'.*AdaBelief.*LAMB.*Yogi.*Cyclical"):
        from_addons("LARS")


@pytest.mark.unit
@pytest.mark.parametrize("missing", ["tensorflow_addons", "tf_keras", "typeguard"])
def test_what_is_not_installed_is_said_with_how_to_install_it(monkeypatch, missing):
    for module in ("tensorflow_addons", "tf_keras", "typeguard"):
        monkeypatch.setitem(sys.modules, module, sys)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RuntimeError, match=r"not installed; run pip install 'disttrain\[addons\]'"):
        from_addons("LAMB")


@pytest.mark.graph
def test_another_typeguard_is_refused(installed, monkeypatch):
    monkeypatch.setattr(addons.importlib.metadata, "version", lambda package: "4.1.0")
    with pytest.raises(RuntimeError, match=r"typeguard below 3, not 4\.1\.0"):
        from_addons("LAMB")


def multi(*pairs):
    return lambda: from_addons("MultiOptimizer", optimizers_and_layers=list(pairs))


@pytest.mark.graph
@pytest.mark.parametrize(
    ("optimizer", "error", "words"),
    [
        (lambda: from_addons("LAMB", betas=1), TypeError, "betas"),
        (lambda: from_addons("LAMB", learning_rate="fast"), TypeError, "'fast'"),
        (lambda: from_addons("COCOB", learning_rate=0.1), ValueError, "no learning rate.*0.1"),
        (lambda: from_addons("SWA", optimizer="SGDX"), ValueError, "'SGDX'.*Adam.*LAMB"),
        (lambda: from_addons("SWA", optimizer=3), TypeError, "not 3"),
        (
            lambda: from_addons("SWA", optimizer=keras.optimizers.Lion()),
            TypeError,
            "such as Adadelta",
        ),
        (
            lambda: from_addons("SWA", optimizer=keras.optimizers.SGD(weight_decay=0.1)),
            ValueError,
            "weight_decay=0.1",
        ),
        (
            lambda: from_addons("SWA", optimizer=from_addons("LAMB", clipnorm=1.0)),
            ValueError,
            "clipnorm=1.0.*outer",
        ),
        (
            lambda: [from_addons("SWA", optimizer=inner) for inner in [from_addons("LAMB")] * 2],
            ValueError,
            "'LAMB' is inside of another",
        ),
        (multi("SGD"), TypeError, "pairs"),
        (multi(("SGD", 3)), TypeError, "not 3"),
        (lambda: start(multi(("SGD", "kernl"))), ValueError, "'kernl'.*kernel, table"),
        (
            lambda: start(multi(("SGD", "kernel"), ("SGD", ["table", "kernel"]))),
            ValueError,
            "two optimizers for 'kernel'",
        ),
        (lambda: from_addons("LAMB").swap_weights(), ValueError, "LAMB has no swap_weights"),
        (
            lambda: from_addons("SWA", optimizer="SGD").assign_average_vars([]),
            ValueError,
            "make a step first",
        ),
        (lambda: from_addons("LAMB").apply([tf.constant([1.0])]), ValueError, "build"),
        (
            lambda: from_addons("LAMB").exclude_from_weight_decay(var_names=["bias"]),
            ValueError,
            "exclude_from_weight_decay=",
        ),
    ],
)
def test_bad_arguments_are_refused(installed, optimizer, error, words):
    with pytest.raises(error, match=words):
        optimizer()


@pytest.mark.graph
def test_a_rate_that_is_not_there_cannot_be_set(installed):
    with pytest.raises(ValueError, match=r"COCOB has no learning rate .* 0\.5"):
        from_addons("COCOB").learning_rate = 0.5


@pytest.mark.unit
def test_lamb_follows_its_paper():
    """You et al. 2020, "Large batch optimization for deep learning", algorithm 2."""
    rate, decay, beta_1, beta_2, epsilon = 0.1, 0.01, 0.9, 0.999, 1e-6
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 2)).astype(np.float32)
    variable = keras.Variable(weight, name="kernel")
    optimizer = from_addons("LAMB", learning_rate=rate, weight_decay=decay, epsilon=epsilon)
    expected, m, v = weight.astype(np.float64), 0.0, 0.0
    for t in range(1, 6):
        gradient = rng.standard_normal((3, 2)).astype(np.float32)
        optimizer.apply([tf.constant(gradient)], [variable])
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient.astype(np.float64) ** 2
        r = (m / (1 - beta_1**t)) / (np.sqrt(v / (1 - beta_2**t)) + epsilon) + decay * expected
        expected -= rate * np.linalg.norm(expected) / np.linalg.norm(r) * r
    np.testing.assert_allclose(variable.numpy(), expected, atol=1e-5)

"""One operation for the update of all variables: Keras's own results, or Keras itself."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import optimizers

import disttrain
from disttrain import kernels
from disttrain.optimizers import fused
from tests.optimizers.fused_steps import (
    RULES,
    SETTINGS,
    SHAPES,
    assert_same_bits,
    assert_within_rounding,
    by_keras,
    by_us,
    eager,
    gradients,
    make_variables,
    values_of,
    with_settings,
    with_sparse,
)

pytestmark = pytest.mark.usefixtures("compiled_operations")


# Keras's results.


@pytest.mark.unit
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_kerass_arithmetic(rule, setting, updated_at_once):
    """Without a graph, in which TensorFlow would rewrite Keras's own arithmetic."""
    make = with_settings(rule, setting)
    assert_same_bits(by_us(make, function=eager), by_keras(make, function=eager))


@pytest.mark.graph
@pytest.mark.parametrize("setting", ["plain", "decay with a schedule but for some"])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_gives_kerass_results_in_a_graph(rule, setting, updated_at_once):
    make = with_settings(rule, setting)
    same = RULES[rule].survives_a_graph and "decay" not in setting
    compare = assert_same_bits if same else assert_within_rounding
    compare(by_us(make), by_keras(make))


@pytest.mark.graph
def test_weight_decay_leaves_out_whom_keras_leaves_out(updated_at_once):
    def make(*names):
        optimizer = optimizers.SGD(0.1, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=names)
        return optimizer

    one, other = by_us(lambda: make("bias")), by_us(lambda: make("kernel"))
    differ = {name for name in SHAPES if one[name].tobytes() != other[name].tobytes()}
    assert differ == {"bias", "kernel"}


@pytest.mark.graph
def test_variables_that_the_optimizer_has_in_another_order(updated_at_once):
    """Each goes with its own slots, and those without a gradient stay."""
    make, some = RULES["amsgrad"].make, ["table", "bias", "kernel"]
    assert_same_bits(by_us(make, some=some), by_keras(make, some=some))


@pytest.mark.unit
def test_a_subclass_that_has_kerass_rule_is_updated_at_once():
    class Mine(optimizers.Adam):
        def get_config(self):
            return {**super().get_config(), "mine": 1}

    assert look_for(Mine(0.1)) is not None


@pytest.mark.graph
def test_a_variable_without_elements(updated_at_once):
    run = {"shapes": {"none": (0, 3), "some": (2, 3)}}
    assert_same_bits(by_us(RULES["Adam"].make, **run), by_keras(RULES["Adam"].make, **run))


shapes = st.lists(st.lists(st.integers(1, 40), max_size=2).map(tuple), min_size=1, max_size=5)


@pytest.mark.unit
@settings(max_examples=40, deadline=None)
@given(
    shapes=shapes,
    rule=st.sampled_from(sorted(RULES)),
    setting=st.sampled_from(sorted(SETTINGS)),
    exponent=st.integers(-12, 6),
    seed=st.integers(0, 99),
)
def test_variables_of_any_number_and_size(shapes, rule, setting, exponent, seed):
    shapes = {f"variable_{i}": shape for i, shape in enumerate(shapes)}
    batches = gradients(shapes, 2, seed, 10.0**exponent)
    run = {"batches": batches, "shapes": shapes, "function": eager}
    make = with_settings(rule, setting)
    assert_same_bits(by_us(make, **run), by_keras(make, **run))


@pytest.mark.graph
def test_two_runs_give_the_same_bits(updated_at_once):
    make, clip = RULES["Adam"].make, disttrain.ClipByGlobalNorm
    one, other = (by_us(make, clip=clip(0.1), loss_scale=3.0) for _ in range(2))
    assert_same_bits(one, other)


# Sparse gradients.


@pytest.mark.unit
@pytest.mark.parametrize("rule", RULES)
def test_sparse_gradients_give_kerass_results(rule, updated_at_once):
    make, batches = RULES[rule].make, with_sparse(gradients(), [5, 302, 0])
    run = {"batches": batches, "function": eager}
    assert_same_bits(by_us(make, **run), by_keras(make, **run))


@pytest.mark.unit
@pytest.mark.parametrize("rule", ["SGD", "momentum", "Adam", "Adagrad", "Lion"])
def test_rows_that_come_twice_are_added_before_the_update(rule, updated_at_once):
    make, batches = with_settings(rule, "decay"), with_sparse(gradients(), [5, 302, 5, 0])
    # Keras does not add them for every rule.
    dense = [[tf.convert_to_tensor(g) for g in each] for each in batches]
    found = by_us(make, batches=batches, function=eager)
    assert_same_bits(found, by_keras(make, batches=dense, function=eager))


@pytest.mark.graph
def test_sparse_gradients_in_a_graph(updated_at_once):
    make, batches = RULES["Adam"].make, with_sparse(gradients(), [5, 302, 5, 0])
    dense = [[tf.convert_to_tensor(g) for g in each] for each in batches]
    assert_same_bits(by_us(make, batches=batches), by_keras(make, batches=dense))


@pytest.mark.unit
def test_no_rows_at_all(updated_at_once):
    for rule in ("SGD", "Adam"):
        make, batches = RULES[rule].make, with_sparse(gradients(), [])
        run = {"batches": batches, "function": eager}
        assert_same_bits(by_us(make, **run), by_keras(make, **run))


@pytest.mark.graph
@pytest.mark.parametrize("rule", ["SGD", "Adagrad"])
def test_rows_without_a_gradient_are_not_touched(rule, updated_at_once):
    """0 times infinity would be NaN in each of them."""

    def make():
        optimizer = RULES[rule].make()
        optimizer.learning_rate = float("inf")
        return optimizer

    before = values_of(make_variables())["table"]
    batches = with_sparse(gradients(), [7, 3])[:1]
    after = by_us(make, batches=batches)["table"]
    assert np.isinf(after[[3, 7]]).all()
    others = np.delete(np.arange(len(before)), [3, 7])
    np.testing.assert_array_equal(after[others], before[others])


# Where Keras has to update.


def look_for(optimizer, dtype="float32"):
    """`fused.find` for a new optimizer with two variables."""
    variables = [keras.Variable(np.ones((3, 2)), dtype=dtype, name="kernel") for _ in range(2)]
    optimizer.build(variables)
    return fused.find(optimizer, variables)


class OwnRule(optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient * 2.0, variable, learning_rate)


class OwnAssignment(optimizers.SGD):
    """Keras lets all its rules write by these methods."""

    def assign_sub(self, variable, value):
        super().assign_sub(variable, tf.round(value))


class OwnWay(optimizers.SGD):
    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        super()._backend_update_step(grads, trainable_variables, learning_rate * 0.5)


def replaced():
    optimizer = optimizers.SGD(0.1)
    optimizer.update_step = lambda *args: optimizers.SGD.update_step(optimizer, *args)
    return optimizer


def with_variable():
    """A hyperparameter that may change after it was looked at."""
    optimizer = optimizers.Adam(0.1)
    optimizer.beta_1 = tf.Variable(0.8)
    return optimizer


def multi():
    return optimizers.MultiOptimizer(
        optimizers.OptimizerMap(optimizers.Adam(0.01), {".*bias": optimizers.SGD(0.2)})
    )


KERASS = {
    "a rule of its own": lambda: OwnRule(0.1),
    "a way of its own": lambda: OwnWay(0.1),
    "an assignment of its own": lambda: OwnAssignment(0.1),
    "a replaced rule": replaced,
    "a hyperparameter in a variable": with_variable,
    "a hyperparameter beyond float32": lambda: optimizers.Adam(0.1, epsilon=1e300),
    "accumulation by Keras": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "Ftrl": lambda: optimizers.Ftrl(0.05),
    "Lamb": lambda: optimizers.Lamb(0.01),
    "Adafactor": lambda: optimizers.Adafactor(0.01),
    "Muon": lambda: optimizers.Muon(0.01),
    "Lookahead": lambda: disttrain.optimizers.Lookahead(optimizers.SGD(0.1)),
}
if hasattr(optimizers, "MultiOptimizer"):
    KERASS["MultiOptimizer"] = multi


@pytest.mark.unit
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", KERASS)
def test_keras_updates_what_has_another_rule(name):
    assert look_for(optimizers.SGD(0.1)) is not None
    assert look_for(KERASS[name]()) is None


@pytest.mark.unit
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_keras_updates_where_a_product_is_not_float32(dtype):
    """Nadam's, which has the dtype of the first variable, whichever are updated."""
    variables = [keras.Variable(np.ones(2), dtype=d) for d in (dtype, "float32")]
    optimizer = optimizers.Nadam(0.1)
    optimizer.build(variables)
    assert fused.find(optimizer, variables[1:]) is None


@pytest.mark.unit
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_keras_updates_what_is_not_float32(dtype):
    assert look_for(optimizers.Adam(0.1), dtype) is None


@pytest.mark.unit
def test_keras_updates_on_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["GPU:0"])
    assert look_for(optimizers.SGD(0.1)) is None


@pytest.mark.unit
def test_keras_updates_where_nothing_could_be_compiled(monkeypatch):
    monkeypatch.setattr(kernels, "load", lambda: None)
    assert look_for(optimizers.SGD(0.1)) is None


@pytest.mark.graph
@pytest.mark.parametrize(
    "name", ["a rule of its own", "an assignment of its own", "a way of its own", "a replaced rule"]
)
def test_what_has_another_rule_keeps_it(name, updated_by_keras):
    assert_same_bits(by_us(KERASS[name]), by_keras(KERASS[name]))


@pytest.mark.graph
def test_a_step_that_xla_compiles(updated_by_keras):
    make = RULES["Adam"].make
    compiled = functools.partial(tf.function, autograph=False, jit_compile=True)
    # Of the skipped steps, XLA cannot look for the variables that are to blame.
    found = by_us(make, function=compiled, max_skipped=None)
    assert_within_rounding(found, by_keras(make))


@pytest.mark.graph
def test_a_step_without_compiled_operations(monkeypatch, updated_by_keras):
    monkeypatch.setattr(kernels, "load", lambda: None)
    make = with_settings("Adam", "decay")
    assert_within_rounding(by_us(make, clip=disttrain.ClipByNorm(1e9)), by_keras(make))


# What Keras does after an update.


@pytest.mark.unit
@pytest.mark.parametrize("rule", ["momentum", "Nadam"])
def test_averages_of_the_weights(rule, updated_at_once):
    def make():
        return RULES[rule].make(use_ema=True, ema_momentum=0.5)

    run = {"function": eager}
    assert_same_bits(by_us(make, **run), by_keras(make, **run))


@pytest.mark.unit
@pytest.mark.parametrize("frequency", [1, 3])
def test_averages_that_overwrite_the_weights(frequency, updated_at_once):
    def make():
        return RULES["Adam"].make(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=frequency)

    found, expected = by_us(make, function=eager), by_keras(make, function=eager)
    assert_same_bits(found, expected)
    without = by_us(lambda: RULES["Adam"].make(use_ema=True, ema_momentum=0.5), function=eager)
    assert any(found[name].tobytes() != without[name].tobytes() for name in SHAPES)


CONSTRAINTS = {"NonNeg": keras.constraints.NonNeg(), "UnitNorm": keras.constraints.UnitNorm()}


@pytest.mark.unit
@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize("averaged", [False, True], ids=["", "averaged"])
def test_constraints(name, averaged, updated_at_once):
    def make():
        return RULES["momentum"].make(weight_decay=0.1, use_ema=averaged, ema_momentum=0.5)

    run = {"function": eager, "constraint": CONSTRAINTS[name]}
    found = by_us(make, **run)
    assert_same_bits(found, by_keras(make, **run))
    constrained = np.asarray(CONSTRAINTS[name](found["kernel"]))
    np.testing.assert_allclose(found["kernel"], constrained, rtol=1e-5)


@pytest.mark.graph
def test_a_graph_that_reads_slots_after_the_update_sees_the_new_ones():
    variables = make_variables()
    optimizer = disttrain.DistributedOptimizer(optimizers.SGD(0.1, momentum=0.9))
    optimizer.build(variables)
    momentums = optimizer.inner.momentums

    @tf.function(autograph=False)
    def step(given):
        optimizer.apply(given, variables)
        return [tf.identity(momentum.value) for momentum in momentums]

    for number in range(20):
        seen = step([tf.fill(v.shape, 1.0 + number) for v in variables])
        for one, momentum in zip(seen, momentums, strict=True):
            np.testing.assert_array_equal(one.numpy(), momentum.numpy())


@pytest.mark.graph
def test_the_trainer_hands_slots_over_as_one_input():
    """Each input of a graph takes its time at every step."""

    def inputs(layers):
        def build():
            hidden = [keras.layers.Dense(4) for _ in range(layers)]
            return keras.Sequential([keras.Input((4,)), *hidden])

        trainer = disttrain.Trainer(
            build, optimizer=optimizers.Adam(), loss="mse", replication="single"
        )
        trainer.fit(np.ones([8, 4]), np.ones([8, 4]), verbose=0)
        (graph,) = trainer._train_step.execute._list_all_concrete_functions()
        return len(graph.captured_inputs)

    # A kernel and a bias, and nothing for their four slots.
    assert inputs(3) - inputs(2) == 2

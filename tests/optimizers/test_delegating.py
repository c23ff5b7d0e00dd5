"""What our optimizers inherit from Keras's: handed on, done by themselves, or refused."""

import importlib.util
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.optimizers import Group, Grouped, Lookahead
from tests.optimizers.steps import make_variables, starts

GENERIC = "acts on its arguments alone"
OWN = "the wrapper does it itself, and includes the inner optimizer"
INNER = "read and written on the inner optimizer"
REFUSED = "cannot be set; the error says what to do"
KERAS = "Keras's own refuses it with TensorFlow"

METHODS = {
    "add_optimizer_variables": OWN,
    "add_variable": OWN,
    "add_variable_from_reference": OWN,
    "apply": OWN,
    "apply_gradients": OWN,
    "assign": GENERIC,
    "assign_add": GENERIC,
    "assign_sub": GENERIC,
    "build": OWN,
    "exclude_from_weight_decay": INNER,
    "finalize_variable_values": INNER,
    "from_config": OWN,
    "get_config": OWN,
    "load_own_variables": OWN,
    "save_own_variables": OWN,
    "scale_loss": OWN,
    "set_weights": OWN,
    "stateless_apply": KERAS,
    "update_step": INNER,
}
PROPERTIES = {
    "built": OWN,
    "clipnorm": INNER,
    "clipvalue": INNER,
    "ema_momentum": INNER,
    "ema_overwrite_frequency": INNER,
    "global_clipnorm": INNER,
    "gradient_accumulation_steps": INNER,
    "iterations": INNER,
    "learning_rate": INNER,
    "loss_scale_factor": INNER,
    "name": OWN,
    "use_ema": INNER,
    "variables": OWN,
    "weight_decay": INNER,
}
#: What `DistributedOptimizer` does by arguments of its own.
TAKEN_OVER = {
    "clipnorm": REFUSED,
    "clipvalue": REFUSED,
    "ema_overwrite_frequency": OWN,
    "global_clipnorm": REFUSED,
    "gradient_accumulation_steps": REFUSED,
    "loss_scale_factor": REFUSED,
}


def adamw(**options):
    return keras.optimizers.AdamW(0.1, weight_decay=0.5, **options)


def distributed(inner, **options):
    return disttrain.DistributedOptimizer(inner, replication="single", **options)


WRAPPERS = {
    "DistributedOptimizer": distributed,
    "Lookahead": lambda inner: Lookahead(inner, sync_period=2),
    "Grouped": lambda inner: Grouped(inner, [Group("head/*", learning_rate=0.5)]),
    "SAM": disttrain.optimizers.SAM,
    "DistributedOptimizer of Lookahead": lambda inner: distributed(Lookahead(inner)),
    "DistributedOptimizer of Grouped": lambda inner: distributed(
        Grouped(inner, [Group("head/*", learning_rate=0.5)]), clip=disttrain.AutoClip()
    ),
}


def inherited():
    """Public names of Keras's optimizer, those of its instances included."""
    names = {*dir(keras.optimizers.Optimizer), *vars(keras.optimizers.SGD())}
    own = {*vars(keras.optimizers.SGD())} - {*vars(keras.optimizers.Optimizer(0.1))}
    return {name for name in names - own if not name.startswith("_")}


def innermost(optimizer):
    return innermost(optimizer.inner) if hasattr(optimizer, "inner") else optimizer


@pytest.fixture(params=WRAPPERS)
def wrap(request):
    return WRAPPERS[request.param]


@pytest.mark.unit
def test_each_public_name_of_keras_s_optimizer_is_accounted_for():
    """Where Keras adds one: hand it on, override it or refuse it, and add it to a table above."""
    assert inherited() == {*METHODS, *PROPERTIES}


@pytest.mark.unit
def test_methods_that_act_on_the_optimizer_are_not_keras_s(wrap):
    generic = {"add_optimizer_variables", "add_variable_from_reference", "apply_gradients"}
    made = type(wrap(adamw()))
    for name, kind in METHODS.items():
        own = inspect.getattr_static(made, name)
        keras_s = inspect.getattr_static(keras.optimizers.Optimizer, name)
        if kind in (GENERIC, KERAS) or name in generic:
            assert own is keras_s, name
        elif made is not disttrain.DistributedOptimizer and name in (
            "load_own_variables",
            "save_own_variables",
            "scale_loss",
        ):
            assert own is keras_s, name  # They use `variables` and `loss_scale_factor`.
        else:
            assert own is not keras_s, name


@pytest.mark.unit
def test_properties_are_the_inner_optimizer_s(wrap):
    values = {
        "clipnorm": 3.0,
        "clipvalue": 2.0,
        "ema_momentum": 0.5,
        "ema_overwrite_frequency": 7,
        "global_clipnorm": 4.0,
        "gradient_accumulation_steps": 3,
        "learning_rate": 0.25,
        "loss_scale_factor": 8.0,
        "use_ema": True,
        "weight_decay": 0.125,
    }
    outer = wrap(adamw())
    inner = innermost(outer)
    table = PROPERTIES
    if isinstance(outer, disttrain.DistributedOptimizer):
        table = PROPERTIES | TAKEN_OVER
    for name, value in values.items():
        if table[name] == REFUSED:
            with pytest.raises(ValueError, match=rf"{name}={value} cannot be set.*make it with"):
                setattr(outer, name, value)
            setattr(outer, name, None)
            assert getattr(outer, name) is None
            continue
        setattr(outer, name, value)
        assert getattr(outer, name) == value
        if table[name] == INNER:
            assert getattr(inner, name) == value, name
    assert outer._iterations is inner._iterations
    assert outer._learning_rate is inner._learning_rate


@pytest.mark.unit
def test_set_weights_sets_all_variables(wrap):
    def built():
        optimizer = wrap(adamw(use_ema=True))
        optimizer.build(make_variables(starts()))
        return optimizer

    first, second = built(), built()
    rng = np.random.default_rng(0)
    for variable in first.variables:
        variable.assign(tf.cast(rng.uniform(1, 9, variable.shape), variable.dtype))
    second.set_weights([variable.numpy() for variable in first.variables])
    assert len(first.variables) > 15
    for ours, theirs in zip(second.variables, first.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    with pytest.raises(ValueError, match="got 2 arrays, but"):
        second.set_weights([variable.numpy() for variable in first.variables[:2]])
    with pytest.raises(ValueError, match=r"shape \(7,\)"):
        second.set_weights([np.ones(7) for variable in first.variables])
    with pytest.raises(ValueError, match="no slots to set yet"):
        wrap(adamw()).set_weights([])


@pytest.mark.unit
@pytest.mark.parametrize("exclude", ["names", "variables"])
def test_excluded_variables_do_not_decay(wrap, exclude):
    optimizer, variables = wrap(adamw()), make_variables(starts())
    if exclude == "names":
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma"])
    else:
        optimizer.exclude_from_weight_decay([v for v in variables if "kernel" not in v.path])
    before = [v.numpy() for v in variables]
    optimizer.build(variables)
    if getattr(optimizer, "two_gradients", False):
        optimizer.perturb([tf.zeros(v.shape) for v in variables], variables)
    zeros = [tf.zeros(v.shape) for v in variables]
    if isinstance(optimizer, disttrain.DistributedOptimizer):
        optimizer.apply(zeros, variables, recompute=None)
    else:
        optimizer.apply(zeros, variables)
    for variable, old in zip(variables, before, strict=True):
        moved = np.abs(variable.numpy() - old).max() > 0
        assert moved == ("kernel" in variable.path), variable.path


@pytest.mark.unit
def test_apply_gradients_counts_the_inner_optimizer_s_steps():
    optimizer, variable = distributed(adamw()), keras.Variable([1.0])
    assert int(optimizer.apply_gradients([(tf.constant([1.0]), variable)])) == 1
    assert optimizer.apply([], []) is None  # As Keras does it.


@pytest.mark.unit
def test_variables_that_are_added_are_saved_and_set(wrap):
    optimizer = wrap(adamw())
    optimizer.build(make_variables(starts()))
    added = optimizer.add_variable((2,), name="added")
    assert any(variable is added for variable in optimizer.variables)


@pytest.mark.unit
def test_a_multi_optimizer_excludes_in_each_of_its_optimizers():
    variables = make_variables(starts())
    parts = {".*head.*": adamw()}
    inner = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(adamw(), parts))
    optimizer = distributed(inner)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    before = [v.numpy() for v in variables]
    optimizer.apply([tf.zeros(v.shape) for v in variables], variables)
    for variable, old in zip(variables, before, strict=True):
        assert (variable.numpy() != old).any() == ("bias" not in variable.path)


@pytest.mark.unit
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_addons") is None, reason="there are no Addons"
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_adapters_set_all_weights_and_refuse_to_exclude(wrapped):
    def built():
        optimizer = disttrain.optimizers.from_addons("LAMB", learning_rate=0.1)
        optimizer = distributed(optimizer) if wrapped else optimizer
        optimizer.build(make_variables(starts()))
        return optimizer

    first, second = built(), built()
    for variable in first.variables:
        variable.assign(tf.cast(tf.fill(variable.shape, 3), variable.dtype))
    second.set_weights([variable.numpy() for variable in first.variables])
    for variable in second.variables:
        np.testing.assert_array_equal(variable.numpy(), np.full(variable.shape, 3))
    with pytest.raises(ValueError, match="weight decay is done by LAMB itself"):
        second.exclude_from_weight_decay(var_names=["bias"])

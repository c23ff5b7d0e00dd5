"""Moves optimizers, and copies metrics, that were made outside of a `tf.distribute` scope into it.

A configuration does not hold everything: a learning rate or an exclusion that was set later, or the
attributes of a user's subclass. So an optimizer stays the object that it is, and only its variables
are made anew. A metric may belong to another model already; its copy gets what its configuration
lacks.
"""

import collections.abc
import enum
import functools
import numbers
import re
import types

import keras
import numpy as np
import tensorflow as tf

#: What Keras keeps about an object's variables, and about what it has made by itself.
_KERAS_OWN = ("_tracker", "_variables", "_metrics", "_lock", "_tracked", "built", "_built")
#: Their objects hold variables of their own, which they make by themselves.
_LIBRARIES = ("builtins", "numpy", "tensorflow", "keras")
_PLAIN = (
    numbers.Number,
    str,
    bytes,
    np.generic,
    np.ndarray,
    enum.Enum,
    types.FunctionType,
    types.BuiltinFunctionType,
    functools.partial,
    type,
)


def move_into_scope(optimizer, strategy, name):
    """Makes the variables of an optimizer anew in the scope of a strategy, with their values.

    Args:
        optimizer: A Keras optimizer without slots; those inside of it are moved, too.
        strategy: A `tf.distribute.Strategy`.
        name: What the user calls the strategy.

    Returns:
        The same optimizer.

    Raises:
        ValueError: The optimizer has slots, or variables in a place where they cannot be replaced.
    """
    found = [one for one in parts(optimizer) if one._distribution_strategy is not strategy]
    for one in found:
        if one.built:
            raise ValueError(
                f"the optimizer {one.name!r} has built its slots outside of the scope of {name!r}; "
                "hand in a new one, such as trainer.optimizer.clone(), or build it in "
                "trainer.replication.scope()"
            )
    with strategy.scope():
        for one in found:
            if _is_adapter(one):
                _make_anew(one)
            else:
                _replace_variables(one, name)
                one._distribution_strategy = strategy
    return optimizer


def parts(optimizer):
    """An optimizer and all Keras optimizers inside of it, the inner ones first."""
    found = []

    def visit(thing):
        if isinstance(thing, keras.optimizers.Optimizer):
            if any(thing is one for one in found):
                return
            # What an adapter holds is its own to make anew.
            if not _is_adapter(thing):
                for value in list(vars(thing).values()):
                    visit(value)
            found.append(thing)
        elif isinstance(thing, collections.abc.Mapping):
            visit(getattr(thing, "default_optimizer", None))
            for value in list(thing.values()):
                visit(value)
        elif isinstance(thing, (list, tuple)):
            for value in thing:
                visit(value)

    visit(optimizer)
    return found


def _is_adapter(optimizer):
    """Whether it is one of `disttrain.optimizers.legacy_adapter`."""
    return getattr(type(optimizer), "wraps_another_api", False)


def copy_optimizer(optimizer):
    """An optimizer of the same settings without state, for another model.

    Args:
        optimizer: A Keras optimizer, with slots or without.

    Returns:
        A Keras optimizer of the same class, with the learning rate as it is now.

    Raises:
        ValueError: It has settings that cannot be given to the copy.
    """
    made = _from_config(optimizer)
    for one, other in zip(parts(made), parts(optimizer), strict=True):
        if getattr(other, "_exclude_from_weight_decay", None):
            raise ValueError(
                f"the optimizer {other.name!r} excludes variables of one model from weight decay, "
                "and cannot be copied for another; use exclude_from_weight_decay(var_names=[...])"
            )
        for name, value in vars(other).items():
            hook = callable(value) and hasattr(type(other), name)
            if hook or _is_keras_own(name) or not isinstance(value, (*_PLAIN, re.Pattern)):
                continue
            if _differ(vars(one).get(name), value):
                setattr(one, name, value)
    return made


def _from_config(optimizer):
    config, rate = optimizer.get_config(), optimizer._learning_rate
    if not hasattr(optimizer, "optimizers"):  # a MultiOptimizer has a rate in each
        # A schedule or a function goes over as it is: it need not know how to serialize itself.
        config["learning_rate"] = float(rate.numpy()) if hasattr(rate, "numpy") else rate
    return type(optimizer).from_config(config)


def _make_anew(adapter):
    """Gives an adapter of another API the state of a new one, in the present scope."""
    made = _from_config(adapter)
    made._iterations.assign(adapter._iterations.numpy())
    hooks = {
        name: value
        for name, value in vars(adapter).items()
        if callable(value) and hasattr(type(adapter), name)
    }
    # Whoever holds the adapter, the user above all, goes on with the new state.
    object.__setattr__(adapter, "__dict__", vars(made))
    vars(adapter).update(hooks)


def _replace_variables(optimizer, name):
    renewed = {}
    for old in list(optimizer._variables):
        with keras.name_scope(optimizer.name):
            new = keras.Variable(
                old.numpy(),
                dtype=old.dtype,
                trainable=False,
                aggregation=old.aggregation,
                name=old.name,
            )
        renewed[id(old)] = (old, new)
        optimizer._untrack_variable(old)
        optimizer._track_variable(new)
    for attribute, value in list(vars(optimizer).items()):
        if _is_keras_own(attribute):
            continue
        if id(value) in renewed:
            setattr(optimizer, attribute, renewed[id(value)][1])
        elif isinstance(value, list):
            value[:] = [renewed[id(v)][1] if id(v) in renewed else v for v in value]
        elif isinstance(value, dict):
            value.update({k: renewed[id(v)][1] for k, v in value.items() if id(v) in renewed})

    def is_outside(variable):
        if isinstance(variable, keras.Variable):
            return id(variable) in renewed
        return not tf.distribute.get_strategy().extended.variable_created_in_scope(variable)

    for attribute, value in vars(optimizer).items():
        if not _is_keras_own(attribute) and _holds(value, is_outside):
            raise ValueError(
                f"the optimizer {optimizer.name!r} has made variables in its attribute "
                f"{attribute!r}, outside of the scope of {name!r}, where they cannot be replaced; "
                "make the optimizer in the scope: with strategy.scope(): ..."
            )


def _is_keras_own(attribute):
    return attribute in _KERAS_OWN or attribute.startswith("_self_")


def _holds(thing, is_wanted, depth=3):
    """Whether a variable of which `is_wanted` is true is in an attribute, or in what it holds."""
    if isinstance(thing, (keras.Variable, tf.Variable)):
        return is_wanted(thing)
    if depth == 0 or isinstance(thing, (*_PLAIN, keras.optimizers.Optimizer)):
        return False
    if isinstance(thing, collections.abc.Mapping):
        inside = list(thing.values())
    elif isinstance(thing, (list, tuple, set)):
        inside = list(thing)
    elif type(thing).__module__.partition(".")[0] in _LIBRARIES:
        return False
    else:
        inside = list(getattr(thing, "__dict__", {}).values())
    return any(_holds(one, is_wanted, depth - 1) for one in inside)


def copy_metric(metric):
    """A metric of the same settings, with variables in the present scope.

    Args:
        metric: A `keras.metrics.Metric`.

    Returns:
        A `keras.metrics.Metric` of the same class.

    Raises:
        TypeError: It cannot be made from its configuration.
        ValueError: The copy has other variables, or lacks what cannot be given to it.
    """
    try:
        made = type(metric).from_config(metric.get_config())
    except TypeError as error:
        raise TypeError(
            f"the metric {metric.name!r} cannot be made anew in the replicas' scope "
            f"({error}); give it a get_config, or hand in metrics as a function that "
            "returns them"
        ) from error
    _complete(made, metric)
    return made


def _complete(made, metric):
    """Gives a copy the attributes that the configuration lacks."""
    for name, value in vars(metric).items():
        own = vars(made).get(name)
        if _is_keras_own(name) or value is own:
            continue
        if isinstance(value, keras.Variable):
            if own is not None and (own.shape, own.dtype) != (value.shape, value.dtype):
                _refuse(metric, f"has variables of another shape: {own.shape}, not {value.shape}")
        elif isinstance(value, keras.metrics.Metric) and type(own) is type(value):
            _complete(own, value)
        elif _differ(own, value):
            if isinstance(value, keras.metrics.Metric) or _holds(value, lambda variable: True):
                _refuse(metric, f"lacks {name}={value!r}")
            setattr(made, name, value)


def _refuse(metric, lacks):
    raise ValueError(
        f"the metric {metric.name!r} is made anew from its configuration in the replicas' scope, "
        f"and the copy {lacks}; give {type(metric).__name__} a complete get_config, or hand in "
        "metrics as a function that returns them"
    )


def _differ(one, other):
    """Whether two attributes differ, as far as that can be told."""
    if type(one) is not type(other):
        return True
    if isinstance(one, np.ndarray):
        return not np.array_equal(one, other)
    if hasattr(one, "get_config") and not isinstance(one, type):
        return one.get_config() != other.get_config()
    if isinstance(one, (list, tuple)):
        return len(one) != len(other) or any(map(_differ, one, other))
    if isinstance(one, dict):
        return one.keys() != other.keys() or any(_differ(one[key], other[key]) for key in one)
    if isinstance(one, keras.Variable):
        return False
    try:
        return bool(one != other)
    except (TypeError, ValueError):
        return True

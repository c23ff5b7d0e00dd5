"""Steps of an optimizer by Keras, and by a `DistributedOptimizer` that updates all at once."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import optimizers

import disttrain
from disttrain.replication import replica_value, resolve

STEPS = 6

#: A scalar, less than a block of the operation, odd sizes, and one that several threads share.
SHAPES = {
    "scale": (),
    "bias": (7,),
    "kernel": (100, 33),
    "wide": (300, 70),
    "table": (303, 301),
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """An optimizer.

    Attributes:
        make: Makes it; takes further options.
        survives_a_graph: Whether a graph computes what Keras writes: there TensorFlow makes
            `x * rsqrt(y)` of `x / sqrt(y)`, and joins constants.
    """

    make: Callable
    survives_a_graph: bool


RULES = {
    "SGD": Rule(lambda **o: optimizers.SGD(0.1, **o), True),
    "momentum": Rule(lambda **o: optimizers.SGD(0.1, momentum=0.9, **o), True),
    "nesterov": Rule(lambda **o: optimizers.SGD(0.1, momentum=0.9, nesterov=True, **o), True),
    "Adam": Rule(lambda **o: optimizers.Adam(0.01, **o), True),
    "amsgrad": Rule(lambda **o: optimizers.Adam(0.01, beta_2=0.8, amsgrad=True, **o), True),
    "AdamW": Rule(lambda **o: optimizers.AdamW(0.01, **o), False),
    "Adamax": Rule(lambda **o: optimizers.Adamax(0.01, beta_2=0.8, **o), True),
    "Nadam": Rule(lambda **o: optimizers.Nadam(0.01, **o), True),
    "Adagrad": Rule(lambda **o: optimizers.Adagrad(0.05, **o), False),
    "Adadelta": Rule(lambda **o: optimizers.Adadelta(1.0, **o), False),
    "RMSprop": Rule(lambda **o: optimizers.RMSprop(0.01, **o), False),
    "RMSprop momentum": Rule(lambda **o: optimizers.RMSprop(0.01, momentum=0.5, **o), False),
    "RMSprop centered": Rule(lambda **o: optimizers.RMSprop(0.01, centered=True, **o), False),
    "RMSprop centered momentum": Rule(
        lambda **o: optimizers.RMSprop(0.01, centered=True, momentum=0.5, **o), False
    ),
    "Lion": Rule(lambda **o: optimizers.Lion(0.003, **o), True),
}


#: What may be set of every optimizer.
SETTINGS = ("plain", "schedule", "decay", "decay with a schedule but for some")


def with_settings(rule, setting):
    """Makes an optimizer of a rule, with what a setting adds."""

    def make():
        optimizer = RULES[rule].make()
        if "schedule" in setting:
            optimizer.learning_rate = optimizers.schedules.ExponentialDecay(0.01, 1, 0.7)
        if "decay" in setting:
            optimizer.weight_decay = 0.1
        if "some" in setting:
            optimizer.exclude_from_weight_decay(var_names=["bias", "wide"])
        return optimizer

    return make


def graph(function):
    return tf.function(function, autograph=False)


def eager(function):
    return function


def make_variables(shapes=SHAPES, constraint=None):
    """Variables with the same values each time."""
    rng = np.random.default_rng(0)
    return [
        keras.Variable(
            rng.standard_normal(shape).astype(np.float32), name=name, constraint=constraint
        )
        for name, shape in shapes.items()
    ]


def gradients(shapes=SHAPES, steps=STEPS, seed=1, scale=1.0):
    """For each step a gradient for each variable, of sizes that differ from step to step."""
    rng = np.random.default_rng(seed)
    return [
        [
            tf.constant(rng.standard_normal(shape) * size * scale, tf.float32)
            for shape in shapes.values()
        ]
        for size in 10.0 ** rng.integers(-2, 2, steps)
    ]


def rows_of(gradient, rows):
    """A sparse gradient that holds some rows of a dense one."""
    rows = tf.constant(rows, tf.int32)
    return tf.IndexedSlices(tf.gather(gradient, rows), rows, tf.constant(gradient.shape.as_list()))


def with_sparse(batches, rows):
    """The same gradients, but the last holds only some rows of its own, others in each step."""
    return [
        [*each[:-1], rows_of(each[-1], [(row + 11 * k) % 303 for row in rows])]
        for k, each in enumerate(batches)
    ]


def values_of(variables, optimizer=None):
    """Values of variables, and of all variables of an optimizer, by name."""
    found = {variable.name: variable.numpy() for variable in variables}
    for i, variable in enumerate(optimizer.variables if optimizer is not None else ()):
        # By place, for no two optimizers give the same name.
        found[f"variable {i} of the optimizer"] = np.asarray(variable.numpy())
    return found


def by_keras(make, batches=None, shapes=SHAPES, some=None, constraint=None, function=graph):
    """Values after steps of an optimizer by itself, as `values_of` gives them.

    Args:
        make: Makes the optimizer.
        batches: The gradients, as from `gradients`.
        shapes: Name to shape.
        some: Names of the variables that are updated, in order; `None` for all.
        constraint: A Keras constraint on the variables that have rows and columns.
        function: `graph`, or `eager`.
    """
    variables = make_variables(shapes)
    _constrain(variables, constraint)
    optimizer = make()
    optimizer.build(variables)
    _run(function, optimizer.apply, variables, batches or gradients(shapes), some)
    return values_of(variables, optimizer)


def by_us(
    make,
    batches=None,
    shapes=SHAPES,
    some=None,
    constraint=None,
    function=graph,
    replication="single",
    parts=None,
    **options,
):
    """The same of a `DistributedOptimizer`; the values are those of the optimizer in it.

    Args:
        make, batches, shapes, some, constraint, function: As for `by_keras`.
        replication: Where it runs.
        parts: Instead of `batches`, for each step the gradients of each replica.
        **options: For `DistributedOptimizer`.
    """
    replication = resolve(replication)
    with replication.scope():
        variables = make_variables(shapes)
        _constrain(variables, constraint)
        optimizer = disttrain.DistributedOptimizer(make(), replication=replication, **options)
        optimizer.build(variables)
    if parts is None:
        _run(function, optimizer.apply, variables, batches or gradients(shapes), some)
        return values_of(variables, optimizer.inner)

    def apply(part):
        optimizer.apply(part, variables)

    step = function(lambda part: replication.run(apply, part) and None)
    for part in parts:
        step(part)
    _assert_equal_copies([*variables, *optimizer.inner.variables])
    return values_of(variables, optimizer.inner)


def _constrain(variables, constraint):
    for variable in variables:
        if len(variable.shape) == 2:
            variable.constraint = constraint


def _run(function, apply, variables, batches, some):
    places = list(range(len(variables)))
    if some is not None:
        places = [[v.name for v in variables].index(name) for name in some]
    chosen = [variables[i] for i in places]
    step = function(lambda each: apply(each, chosen))
    for each in batches:
        step([_tensor(each[i]) for i in places])


def _tensor(gradient):
    return gradient if isinstance(gradient, tf.IndexedSlices) else tf.constant(gradient)


def _assert_equal_copies(variables):
    for variable in variables:
        one, other = (replica_value(variable, replica).numpy() for replica in range(2))
        same = one.tobytes() == other.tobytes()
        assert same, variable.path


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        # Says more than the comparison of bytes, which tells zeros of both signs apart.
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        same = found[name].tobytes() == value.tobytes()
        assert same, name


def assert_within_rounding(found, expected, rtol=2e-6):
    """Compares with a tolerance relative to the largest element."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = np.abs(value).max(initial=0.0)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=rtol * scale, err_msg=name)

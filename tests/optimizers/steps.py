"""Runs an optimizer for a few steps, alone, or with a gradient of its own for each replica."""

import keras
import numpy as np
import tensorflow as tf

import disttrain

#: Path -> shape.
SHAPES = {
    "backbone/kernel": (4, 3),
    "backbone/bias": (3,),
    "norm/gamma": (3,),
    "head/kernel": (3, 2),
    "head/bias": (2,),
}
PARTS = 2


def starts(seed=0):
    """First values, path to array."""
    rng = np.random.default_rng(seed)
    return {p: rng.standard_normal(shape).astype(np.float32) for p, shape in SHAPES.items()}


def gradients(steps, seed=1):
    """`[step][part]` -> path -> gradient; the parts of a batch differ much."""
    rng = np.random.default_rng(seed)
    return [
        [
            {p: rng.normal(part, 1 + part, shape).astype(np.float32) for p, shape in SHAPES.items()}
            for part in range(PARTS)
        ]
        for _ in range(steps)
    ]


def mean(parts):
    """The gradient of the whole batch, path to array."""
    return {p: np.mean([part[p] for part in parts], axis=0) for p in SHAPES}


def make_variables(values):
    """Trainable variables whose paths are the keys."""
    variables = []
    for path, value in values.items():
        layer, name = path.split("/")
        with keras.name_scope(layer):
            variables.append(keras.Variable(value, name=name))
        assert variables[-1].path == path
    return variables


def numbers(variables):
    return {variable.path: variable.numpy() for variable in variables}


def alone(make, steps):
    """Weights after steps of `make()` by itself with the whole batch's gradients.

    Returns:
        `(weights, optimizer)`: path to array, and the optimizer.
    """
    variables = make_variables(starts())
    optimizer = make()
    optimizer.build(variables)
    apply = tf.function(lambda grads: optimizer.apply(grads, variables), autograph=False)
    for parts in gradients(steps):
        apply([tf.constant(g) for g in mean(parts).values()])
    return numbers(variables), optimizer


def together(replication, make, steps, adopt=False, **options):
    """Weights after steps of `DistributedOptimizer(make())`, each replica with its own part.

    Args:
        replication: One replica, which then takes the mean of the parts, or as many as parts.
        make: Makes the inner optimizer, in the replicas' scope unless `adopt`.
        steps: Number of steps.
        adopt: Whether the optimizer is made outside of the scope and handed over.
        **options: For `DistributedOptimizer`.

    Returns:
        `(weights, optimizer)`: path to array, and the `DistributedOptimizer`.
    """
    outside = make() if adopt else None
    with replication.scope():
        variables = make_variables(starts())
        inner = replication.adopt(outside) if adopt else make()
        optimizer = disttrain.DistributedOptimizer(inner, replication=replication, **options)
        optimizer.build(variables)

    @tf.function(autograph=False)
    def step(parts):
        replication.run(lambda part: optimizer.apply(part, variables), parts)

    for parts in gradients(steps):
        if replication.replicas == 1:
            parts = [mean(parts)]
        step([[tf.constant(g) for g in part.values()] for part in parts])
    if replication.replicas > 1:
        for variable in variables:
            copies = replication.strategy.experimental_local_results(variable.value)
            np.testing.assert_array_equal(copies[0].numpy(), copies[1].numpy())
    return numbers(variables), optimizer


def assert_close(actual, expected, atol=1e-5):
    """Compares two dictionaries from path to array."""
    assert actual.keys() == expected.keys()
    for path in expected:
        np.testing.assert_allclose(actual[path], expected[path], atol=atol, err_msg=path)


def states(optimizer):
    """All variables of an optimizer, a list of arrays."""
    return [np.asarray(variable.numpy()) for variable in optimizer.variables]

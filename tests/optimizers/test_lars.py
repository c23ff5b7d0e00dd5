"""LARS against its paper in NumPy, and on replicas with gradients of their own."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain.optimizers.lars import LARS
from disttrain.replication import resolve
from tests.optimizers import steps

STEPS = 4


def paper(lr=2.0, momentum=0.9, decay=0.0, trust=0.001, epsilon=0.0, nesterov=False, exclude=True):
    """You, Gitman and Ginsburg 2017, algorithm 1 with the ratio of equation 6."""
    weights = {p: w.astype(np.float64) for p, w in steps.starts().items()}
    velocity = dict.fromkeys(weights, 0.0)
    for parts in steps.gradients(STEPS):
        for path, g in steps.mean(parts).items():
            w, ratio, beta = weights[path], 1.0, 0.0
            if not (exclude and path.endswith(("bias", "gamma"))):
                beta = decay
                norm = np.linalg.norm(w)
                ratio = trust * norm / (np.linalg.norm(g) + beta * norm + epsilon)
            step = lr * ratio * (g + beta * w)
            velocity[path] = momentum * velocity[path] + step
            weights[path] = w - (momentum * velocity[path] + step if nesterov else velocity[path])
    return weights


CASES = {
    "plain": ({}, {}),
    "decay": ({"weight_decay": 0.1}, {"decay": 0.1}),
    "nesterov": ({"nesterov": True, "weight_decay": 0.1}, {"nesterov": True, "decay": 0.1}),
    "no-momentum": ({"momentum": 0.0}, {"momentum": 0.0}),
    "trust-and-epsilon": ({"trust": 0.02, "epsilon": 0.5}, {"trust": 0.02, "epsilon": 0.5}),
    "nothing-excluded": (
        {"exclude": (), "weight_decay": 0.1},
        {"exclude": False, "decay": 0.1},
    ),
}


@pytest.mark.graph
@pytest.mark.parametrize("name", CASES)
def test_the_update_is_that_of_algorithm_1(name):
    options, in_paper = CASES[name]
    weights, _ = steps.alone(lambda: LARS(2.0, **options), STEPS)
    steps.assert_close(weights, paper(**in_paper), atol=2e-6)


@pytest.mark.unit
def test_the_first_step_of_a_layer_is_as_long_as_trust_says():
    """Without decay and momentum, |step| = lr * trust * |w|, however large the gradient."""
    before = steps.starts()["head/kernel"]
    for factor in (1e-3, 1.0, 1e3):
        (variable,) = steps.make_variables({"head/kernel": before})
        optimizer = LARS(3.0, momentum=0.0, trust=0.01)
        optimizer.apply([tf.fill((3, 2), factor)], [variable])
        moved = np.linalg.norm(variable.numpy() - before)
        assert moved == pytest.approx(3.0 * 0.01 * np.linalg.norm(before), rel=1e-4)


@pytest.mark.unit
def test_weights_at_zero_move_and_a_zero_gradient_leaves_them():
    zero, still = steps.make_variables(
        {"a/kernel": np.zeros(2, "f4"), "b/kernel": np.ones(2, "f4")}
    )
    optimizer = LARS(0.5, weight_decay=0.0)
    optimizer.apply([tf.constant([1.0, -2.0]), tf.zeros(2)], [zero, still])
    np.testing.assert_allclose(zero.numpy(), [-0.5, 1.0])
    np.testing.assert_array_equal(still.numpy(), [1.0, 1.0])


@pytest.mark.graph
@pytest.mark.parametrize("adopt", [False, True])
def test_mirrored_replicas_with_gradients_of_their_own_do_as_one_device(mirrored, adopt):
    weights, optimizer = steps.together(
        mirrored(2), lambda: LARS(2.0, weight_decay=0.1, trust=0.02), STEPS, adopt=adopt
    )
    steps.assert_close(weights, paper(decay=0.1, trust=0.02))
    assert int(optimizer.iterations.numpy()) == STEPS


@pytest.mark.graph
def test_one_device_in_a_distributed_optimizer_does_as_alone():
    weights, _ = steps.together(resolve("single"), lambda: LARS(2.0, weight_decay=0.1), STEPS)
    steps.assert_close(weights, paper(decay=0.1))


@pytest.mark.unit
def test_without_a_gradient_weight_decay_still_keeps_to_equation_6():
    (variable,) = steps.make_variables({"a/kernel": np.ones(2, "f4")})
    LARS(2.0, weight_decay=0.1, trust=0.05).apply([tf.zeros(2)], [variable])
    np.testing.assert_allclose(variable.numpy(), 1 - 2.0 * (0.05 / 0.1) * 0.1, rtol=1e-6)


@pytest.mark.unit
def test_excluded_variables_follow_plain_momentum_and_no_decay():
    """And a layer that Keras is told to leave out of weight decay keeps its ratio."""
    optimizer = LARS(0.1, weight_decay=0.5, exclude=["^norm/"])
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    variables = steps.make_variables(steps.starts())
    gradient = steps.mean(steps.gradients(1)[0])
    optimizer.apply([tf.constant(g) for g in gradient.values()], variables)
    weights, start = steps.numbers(variables), steps.starts()
    expected = start["norm/gamma"] - 0.1 * gradient["norm/gamma"]
    np.testing.assert_allclose(weights["norm/gamma"], expected, atol=1e-6)
    w, g = start["head/kernel"], gradient["head/kernel"]
    expected = w - 0.1 * 0.001 * np.linalg.norm(w) / np.linalg.norm(g) * g
    np.testing.assert_allclose(weights["head/kernel"], expected, atol=1e-6)
    w, g = start["head/bias"], gradient["head/bias"]
    ratio = 0.001 * np.linalg.norm(w) / (np.linalg.norm(g) + 0.5 * np.linalg.norm(w))
    expected = w - 0.1 * ratio * (g + 0.5 * w)
    np.testing.assert_allclose(weights["head/bias"], expected, atol=1e-6)


@pytest.mark.unit
def test_the_defaults_exclude_what_keras_layers_call_biases_scales_and_shifts():
    layers = [
        keras.layers.Dense(2),
        keras.layers.BatchNormalization(),
        keras.layers.LayerNormalization(),
        keras.layers.GRU(2),
        keras.layers.RMSNormalization(),
    ]
    kept, excluded = set(), set()
    for layer in layers:
        layer.build((None, 3, 2))
        optimizer = LARS()
        optimizer.build(layer.trainable_variables)
        for variable, out in zip(layer.trainable_variables, optimizer._is_excluded, strict=True):
            (excluded if out else kept).add(variable.name)
    assert kept == {"kernel", "recurrent_kernel"}
    assert excluded == {"bias", "gamma", "beta", "scale"}


@pytest.mark.unit
def test_sparse_gradients_count_as_their_dense_ones():
    results = []
    for sparse in (True, False):
        (table,) = steps.make_variables({"table/embeddings": np.ones((3, 2), "f4")})
        slices = tf.IndexedSlices(tf.constant([[1.0, 2.0]]), tf.constant([1]), [3, 2])
        gradient = slices if sparse else tf.convert_to_tensor(slices)
        LARS(1.0, weight_decay=0.1, trust=0.1).apply([gradient], [table])
        results.append(table.numpy())
    np.testing.assert_allclose(results[0], results[1])
    assert results[0][0, 0] < 1  # weight decay reaches rows without a gradient


@pytest.mark.unit
def test_the_configuration_says_everything():
    optimizer = LARS(
        keras.optimizers.schedules.CosineDecay(0.5, 10),
        momentum=0.8,
        weight_decay=0.1,
        trust=0.02,
        epsilon=1e-9,
        nesterov=True,
        exclude=["gamma"],
    )
    written = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    again = keras.optimizers.deserialize(written)
    assert isinstance(again, LARS)
    assert again.get_config() == optimizer.get_config()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"momentum": 1.0}, "below 1, not 1.0"),
        ({"momentum": -0.1}, "not -0.1"),
        ({"weight_decay": -1}, "weight_decay from 0, not -1"),
        ({"trust": 0.0}, "above 0, not 0.0"),
        ({"epsilon": -1e-9}, "epsilon from 0, not -1e-09"),
        ({"exclude": "bias"}, r"write \['bias'\]"),
    ],
)
def test_bad_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        LARS(**options)

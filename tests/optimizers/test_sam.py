"""SAM against its paper in NumPy, alone, in a distributed optimizer, and in a trainer."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.optimizers import sam
from disttrain.optimizers.groups import Group, Grouped
from disttrain.optimizers.sam import SAM
from disttrain.replication import resolve
from tests.distributed import checks
from tests.optimizers import steps

STEPS = 4
ROWS = 6


def problem():
    """A loss whose gradient turns as the weights move: rows `x` and targets of a small network."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((ROWS, 3))
    y = rng.standard_normal((ROWS, 1)) * np.arange(1, ROWS + 1)[:, None]
    return x.astype(np.float32), y.astype(np.float32)


def first_weights():
    rng = np.random.default_rng(3)
    return {
        "hidden/kernel": rng.standard_normal((3, 4)).astype(np.float32),
        "out/kernel": rng.standard_normal((4, 1)).astype(np.float32),
    }


def squares(variables, x, y, rows):
    """The sum of squares over some rows, divided by the rows of the whole batch."""
    hidden, out = variables
    difference = tf.tanh(x @ tf.convert_to_tensor(hidden)) @ tf.convert_to_tensor(out) - y
    return tf.reduce_sum(tf.square(difference)) / rows


def gradient(variables, x, y, rows=ROWS):
    with tf.GradientTape() as tape:
        loss = squares(variables, x, y, rows)
    return tape.gradient(loss, [getattr(v, "value", v) for v in variables])


def numpy_gradient(weights, x, y):
    w, v = weights
    h = np.tanh(x @ w)
    error = 2 * (h @ v - y) / len(x)
    return [x.T @ ((error @ v.T) * (1 - h**2)), h.T @ error]


def paper(rho=0.05, adaptive=False, lr=0.05, momentum=0.0, clip=None):
    """Foret et al. 2021, algorithm 1; adaptive by Kwon et al. 2021, equation 7."""
    x, y = (part.astype(np.float64) for part in problem())
    weights = [w.astype(np.float64) for w in first_weights().values()]
    velocity = [0.0, 0.0]
    for _ in range(STEPS):
        g = numpy_gradient(weights, x, y)
        size = [np.abs(w) + 0.01 if adaptive else 1.0 for w in weights]
        norm = np.sqrt(sum(np.sum((t * a) ** 2) for t, a in zip(size, g, strict=True)))
        worst = [w + rho * t**2 * a / norm for w, t, a in zip(weights, size, g, strict=True)]
        g = numpy_gradient(worst, x, y)
        norm = np.sqrt(sum(np.sum(a**2) for a in g))
        factor = 1.0 if clip is None else min(1.0, clip / norm)
        velocity = [momentum * v - lr * factor * a for v, a in zip(velocity, g, strict=True)]
        weights = [w + v for w, v in zip(weights, velocity, strict=True)]
    return dict(zip(first_weights(), weights, strict=True))


def make(rho=0.05, adaptive=False):
    return SAM(keras.optimizers.SGD(0.05, momentum=0.9), rho=rho, adaptive=adaptive)


def distributed(replication, inner, poison=None, number=STEPS, **options):
    """Steps of a hand-written loop in which each replica has its own, unequal part of the rows.

    Args:
        replication: One replica or two.
        inner: A function that makes the inner optimizer.
        poison: A step in which the last replica's gradients are NaN.
        number: Number of steps.
        **options: For `DistributedOptimizer`.

    Returns:
        `(weights, optimizer)`.
    """
    x, y = problem()
    cuts = [slice(0, ROWS)] if replication.replicas == 1 else [slice(0, 4), slice(4, ROWS)]
    with replication.scope():
        variables = steps.make_variables(first_weights())
        optimizer = disttrain.DistributedOptimizer(
            inner(), replication=replication, reduction="sum", **options
        )
        optimizer.build(variables)

    def on_replica(part):
        x, y, factor = part

        def compute():
            scale = optimizer.current_loss_scale() * factor
            return [g * scale for g in gradient(variables, x, y)]

        optimizer.apply(compute(), variables, recompute=compute)

    @tf.function(autograph=False)
    def step(factor):
        parts = [[tf.constant(x[cut]), tf.constant(y[cut]), tf.ones([])] for cut in cuts]
        parts[-1][2] = factor
        replication.run(on_replica, [tuple(part) for part in parts])

    for i in range(number):
        step(tf.constant(float("nan") if i == poison else 1.0))
    return steps.numbers(variables), optimizer


@pytest.mark.graph
@pytest.mark.parametrize(("rho", "adaptive"), [(0.05, False), (0.5, False), (0.5, True)])
def test_a_loop_by_hand_makes_the_steps_of_algorithm_1(rho, adaptive):
    x, y = problem()
    variables = steps.make_variables(first_weights())
    optimizer = make(rho, adaptive)
    compute = lambda: gradient(variables, x, y)  # noqa: E731
    step = tf.function(lambda: sam.step(optimizer, compute, variables), autograph=False)
    assert all(bool(step()) for _ in range(STEPS))
    expected = paper(rho, adaptive, momentum=0.9)
    steps.assert_close(steps.numbers(variables), expected, atol=3e-6)
    without = paper(1e-9, momentum=0.9)["out/kernel"]
    assert np.abs(expected["out/kernel"] - without).max() > 1e-3
    assert int(optimizer.iterations.numpy()) == STEPS


@pytest.mark.unit
def test_the_perturbation_is_as_long_as_rho_and_goes_uphill():
    variables = steps.make_variables(steps.starts())
    optimizer = SAM("sgd", rho=0.3)
    optimizer.build(variables)
    uphill = list(steps.mean(steps.gradients(1)[0]).values())
    for scale in (1.0, 1e-30, 1e30):
        saved = optimizer.perturb([tf.constant(g) * scale for g in uphill], variables)
        moved = [v.numpy() - w.numpy() for v, w in zip(variables, saved, strict=True)]
        norm = np.sqrt(sum(np.sum(m.astype(np.float64) ** 2) for m in moved))
        assert norm == pytest.approx(0.3, rel=1e-4)
        for m, g in zip(moved, uphill, strict=True):
            assert np.sum(m * g) == pytest.approx(np.linalg.norm(m) * np.linalg.norm(g), rel=1e-3)
        optimizer.restore(variables, saved)


@pytest.mark.unit
def test_weights_come_back_bit_for_bit():
    """Adding and subtracting the perturbation would not give them back."""
    start = {"a/kernel": np.float32([1e-8, -0.0, 1.0, 3e7, 1e-42])}
    (variable,) = steps.make_variables(start)
    optimizer = SAM("sgd", rho=10.0)
    optimizer.build([variable])
    saved = optimizer.perturb([tf.constant([1.0, 2.0, -3.0, 4.0, 5.0])], [variable])
    assert not np.allclose(variable.numpy()[:3], start["a/kernel"][:3])
    optimizer.restore([variable], saved)
    np.testing.assert_array_equal(variable.numpy().view(np.int32), start["a/kernel"].view(np.int32))


@pytest.mark.unit
@pytest.mark.parametrize("bad", [[float("nan"), 1.0], [float("inf"), 1.0]])
def test_a_first_gradient_that_is_not_finite_leaves_the_weights(bad):
    (variable,) = steps.make_variables({"a/kernel": np.float32([1.0, 2.0])})
    optimizer = SAM(keras.optimizers.SGD(1.0, momentum=0.9))
    seen = []

    def compute():
        seen.append(variable.numpy().copy())
        return [tf.constant(bad if len(seen) == 1 else [1.0, 1.0])]

    assert not bool(sam.step(optimizer, compute, [variable]))
    np.testing.assert_array_equal(seen, [[1.0, 2.0]] * 2)
    np.testing.assert_array_equal(variable.numpy(), [1.0, 2.0])
    assert int(optimizer.iterations.numpy()) == 0
    assert not np.any(optimizer.inner.momentums[0].numpy())


@pytest.mark.unit
def test_a_zero_gradient_perturbs_nothing():
    (variable,) = steps.make_variables({"a/kernel": np.float32([1.0, 2.0])})
    optimizer = SAM("sgd")
    optimizer.build([variable])
    optimizer.perturb([tf.zeros(2)], [variable])
    np.testing.assert_array_equal(variable.numpy(), [1.0, 2.0])


@pytest.mark.graph
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("adaptive", [False, True])
def test_replicas_climb_by_the_gradient_of_the_global_batch(mirrored, replicas, adaptive):
    replication = mirrored(2) if replicas == 2 else resolve("single")
    weights, optimizer = distributed(
        replication,
        lambda: make(0.5, adaptive),
        loss_scale=64.0,
        clip=disttrain.ClipByGlobalNorm(3.0),
    )
    steps.assert_close(weights, paper(0.5, adaptive, momentum=0.9, clip=3.0))
    assert int(optimizer.iterations.numpy()) == STEPS


@pytest.mark.graph
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_nan_on_one_replica_skips_the_step_on_all(mirrored, replicas):
    replication = mirrored(2) if replicas == 2 else resolve("single")
    weights, optimizer = distributed(
        replication, lambda: make(0.5), poison=1, number=STEPS + 1, loss_scale="dynamic"
    )
    steps.assert_close(weights, paper(0.5, momentum=0.9))
    assert int(optimizer.iterations.numpy()) == STEPS
    assert float(optimizer.current_loss_scale()) == 2.0**14


@pytest.mark.graph
@pytest.mark.parametrize("bad", ["first", "second"])
def test_either_gradient_alone_can_skip_the_step(bad):
    (variable,) = steps.make_variables({"a/kernel": np.float32([1.0, 2.0])})
    optimizer = disttrain.DistributedOptimizer(SAM("sgd"))
    gradients = {"first": tf.ones(2), "second": tf.ones(2), bad: tf.constant([1.0, float("nan")])}
    optimizer.apply([gradients["first"]], [variable], recompute=lambda: [gradients["second"]])
    np.testing.assert_array_equal(variable.numpy(), [1.0, 2.0])
    assert int(optimizer.iterations.numpy()) == 0


@pytest.mark.unit
def test_frozen_variables_are_not_perturbed():
    x, y = problem()
    variables = steps.make_variables(first_weights())
    optimizer = Grouped(SAM("sgd", rho=0.5), [Group("hidden/*", frozen=True)])
    assert optimizer.two_gradients
    seen = []

    def compute():
        seen.append([v.numpy() for v in variables])
        return gradient(variables, x, y)

    assert bool(sam.step(optimizer, compute, variables))
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    np.testing.assert_array_equal(seen[0][0], variables[0].numpy())
    assert np.linalg.norm(seen[1][1] - seen[0][1]) == pytest.approx(0.5, rel=1e-5)


def network(dropout=0.0):
    def build():
        init = keras.initializers.GlorotUniform
        return keras.Sequential(
            [
                keras.Input((checks.FEATURES,)),
                keras.layers.Dense(8, "tanh", kernel_initializer=init(1)),
                keras.layers.BatchNormalization(momentum=0.5),
                keras.layers.Dropout(dropout, seed=4),
                keras.layers.Dense(checks.CLASSES, kernel_initializer=init(2)),
            ]
        )

    return build


def trained(replication, model, optimizer, **options):
    made = checks.trainer(replication, model, optimizer, telemetry=None, **options)
    history = made.fit(checks.dataset(19), epochs=2, verbose=0)
    return made, history.history["loss"]


@pytest.mark.graph
def test_a_trainer_gives_the_same_on_one_device_and_on_mirrored_replicas(mirrored):
    """The last batch has 3 rows for 2 replicas; the optimizer is made outside of the scope."""
    results = {}
    for name, replication in (("single", "single"), ("mirrored", mirrored(2))):
        optimizer = SAM(keras.optimizers.Adam(0.01), rho=0.3)
        made, losses = trained(replication, checks.build, optimizer)
        results[name] = (checks.flat(made.model.trainable_variables), losses)
        assert made.optimizer.two_gradients
    plain, _ = trained("single", checks.build, keras.optimizers.Adam(0.01))
    np.testing.assert_allclose(results["mirrored"][0], results["single"][0], atol=1e-5)
    np.testing.assert_allclose(results["mirrored"][1], results["single"][1], rtol=1e-5)
    difference = results["single"][0] - checks.flat(plain.model.trainable_variables)
    assert np.abs(difference).max() > 1e-3


@pytest.mark.graph
def test_the_second_pass_sees_the_first_ones_dropout_and_leaves_no_moving_averages():
    """With a vanishing rho both passes are the same, so the result is the inner optimizer's."""
    sgd = lambda: keras.optimizers.SGD(0.1)  # noqa: E731
    made, losses = trained("single", network(0.5), SAM(sgd(), rho=1e-12))
    plain, expected = trained("single", network(0.5), sgd())
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(
        checks.flat(made.model.variables), checks.flat(plain.model.variables), atol=1e-6
    )


@pytest.mark.graph
def test_moving_averages_come_from_the_weights_and_not_from_the_perturbed_ones():
    results = []
    for optimizer in (keras.optimizers.SGD(0.1), SAM(keras.optimizers.SGD(0.1), rho=5.0)):
        made = checks.trainer("single", network(), optimizer, telemetry=None)
        made.fit(checks.dataset(checks.BATCH), verbose=0)
        results.append(made.model)
    sgd, with_sam = results
    np.testing.assert_allclose(
        checks.flat(with_sam.non_trainable_variables), checks.flat(sgd.non_trainable_variables)
    )
    assert not np.allclose(
        checks.flat(with_sam.trainable_variables), checks.flat(sgd.trainable_variables), atol=1e-4
    )


@pytest.mark.unit
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accumulate_steps": 2}, "accumulate_steps=2"),
        ({"local_variables": ["a/*"]}, "local_variables"),
    ],
)
def test_what_does_not_go_with_two_gradients_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        disttrain.DistributedOptimizer(SAM("sgd"), **options)


@pytest.mark.unit
def test_a_distributed_optimizer_wants_to_know_how_to_compute_the_second_gradient():
    (variable,) = steps.make_variables({"a/kernel": np.ones(1, "f4")})
    optimizer = disttrain.DistributedOptimizer(SAM("sgd"))
    with pytest.raises(ValueError, match="recompute"):
        optimizer.apply([tf.ones(1)], [variable])
    np.testing.assert_array_equal(variable.numpy(), [1.0])


@pytest.mark.unit
def test_gradients_at_unperturbed_weights_alone_are_refused():
    """So that `Model.fit` does not silently train without it."""
    (variable,) = steps.make_variables({"a/kernel": np.ones(1, "f4")})
    with pytest.raises(RuntimeError, match=r"without having perturbed.*disttrain.Trainer"):
        SAM("sgd").apply([tf.ones(1)], [variable])
    with pytest.raises(ValueError, match="SGD takes one gradient"):
        sam.step(keras.optimizers.SGD(), lambda: [tf.ones(1)], [variable])


@pytest.mark.unit
def test_the_step_by_hand_is_refused_on_several_replicas(mirrored):
    replication = mirrored(2)
    with replication.scope():
        variables = steps.make_variables(first_weights())
        optimizer = make()
    with pytest.raises(ValueError, match="does not reduce"):
        replication.strategy.run(lambda: sam.step(optimizer, list, variables))


@pytest.mark.unit
def test_the_configuration_goes_through_json():
    optimizer = SAM(keras.optimizers.AdamW(0.1), rho=0.5, adaptive=True, name="mine")
    written = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    again = keras.optimizers.deserialize(written)
    assert (again.name, again.rho, again.adaptive) == ("mine", 0.5, True)
    assert again.get_config() == optimizer.get_config()


@pytest.mark.unit
@pytest.mark.parametrize("rho", [0, -0.1, float("inf"), float("nan"), True])
def test_a_bad_rho_is_refused(rho):
    with pytest.raises(ValueError, match="finite rho above 0, not"):
        SAM("sgd", rho=rho)


@pytest.mark.unit
def test_two_sams_are_refused():
    with pytest.raises(ValueError, match="a SAM in the inner optimizer already"):
        SAM(Grouped(SAM("sgd"), [Group("*", learning_rate=0.5)]))

"""Lookahead against its paper in NumPy, and on replicas with gradients of their own."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.optimizers.lookahead import Lookahead
from disttrain.optimizers.slots import find_slots
from disttrain.replication import resolve
from disttrain.schedules import Plateau
from tests.optimizers import steps

STEPS = 7


def paper(period, alpha, lr=0.1, momentum=0.0):
    """Zhang et al. 2019, algorithm 1, around gradient descent with Keras's momentum."""
    fast = {p: w.astype(np.float64) for p, w in steps.starts().items()}
    slow, velocity = dict(fast), dict.fromkeys(fast, 0.0)
    for number, parts in enumerate(steps.gradients(STEPS), start=1):
        for path, g in steps.mean(parts).items():
            velocity[path] = momentum * velocity[path] - lr * g
            fast[path] = fast[path] + velocity[path]
            if number % period == 0:
                slow[path] = slow[path] + alpha * (fast[path] - slow[path])
                fast[path] = slow[path]
    return fast, slow


def made(period, alpha, momentum=0.0):
    return Lookahead(keras.optimizers.SGD(0.1, momentum=momentum), period, alpha)


def slow_weights(optimizer):
    return {p: w.numpy() for p, w in zip(steps.SHAPES, optimizer._slow_weights, strict=True)}


@pytest.mark.graph
@pytest.mark.parametrize(("period", "alpha"), [(1, 0.5), (3, 0.5), (3, 1.0), (2, 0.25), (9, 0.5)])
def test_the_update_is_that_of_algorithm_1(period, alpha):
    weights, optimizer = steps.alone(lambda: made(period, alpha, momentum=0.9), STEPS)
    fast, slow = paper(period, alpha, momentum=0.9)
    steps.assert_close(weights, fast, atol=3e-6)
    steps.assert_close(slow_weights(optimizer), slow, atol=3e-6)


@pytest.mark.graph
@pytest.mark.parametrize("adopt", [False, True])
def test_mirrored_replicas_with_gradients_of_their_own_do_as_one_device(mirrored, adopt):
    weights, optimizer = steps.together(
        mirrored(2), lambda: made(3, 0.5, momentum=0.9), STEPS, adopt=adopt
    )
    fast, slow = paper(3, 0.5, momentum=0.9)
    steps.assert_close(weights, fast)
    steps.assert_close(slow_weights(optimizer.inner), slow)
    assert int(optimizer.iterations.numpy()) == STEPS


@pytest.mark.graph
def test_one_device_in_a_distributed_optimizer_does_as_alone():
    weights, _ = steps.together(resolve("single"), lambda: made(3, 0.5), STEPS)
    steps.assert_close(weights, paper(3, 0.5)[0])


@pytest.mark.unit
def test_the_slow_weights_begin_where_the_weights_are_at_the_first_update():
    """Weights that are loaded between `build` and the first step count."""
    (variable,) = steps.make_variables({"a/kernel": np.zeros(1, "f4")})
    optimizer = made(1, 0.5)
    optimizer.build([variable])
    variable.assign([10.0])
    optimizer.apply([tf.constant([20.0])], [variable])
    assert variable.numpy()[0] == pytest.approx(9.0)


@pytest.mark.graph
def test_a_skipped_step_does_not_bring_a_synchronisation_nearer():
    (variable,) = steps.make_variables({"a/kernel": np.zeros(1, "f4")})
    optimizer = disttrain.DistributedOptimizer(made(2, 0.5))
    for gradient in (10.0, float("nan"), 10.0):
        optimizer.apply([tf.constant([gradient])], [variable])
    assert variable.numpy()[0] == pytest.approx(-1.0)


@pytest.mark.unit
def test_variables_without_a_gradient_and_constraints_are_respected():
    with keras.name_scope("a"):
        kernel = keras.Variable(np.full(2, 0.5, "f4"), name="kernel")
        kernel.constraint = keras.constraints.UnitNorm(axis=0)
    (still,) = steps.make_variables({"b/kernel": np.ones(2, "f4")})
    optimizer = made(1, 0.5)
    optimizer.build([kernel, still])
    optimizer.apply([tf.constant([1.0, -3.0])], [kernel])
    assert np.linalg.norm(kernel.numpy()) == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(still.numpy(), [1.0, 1.0])


@pytest.mark.unit
def test_the_slow_weights_are_a_slot():
    variables = steps.make_variables(steps.starts())
    optimizer = made(3, 0.5, momentum=0.9)
    optimizer.build(variables)
    found = find_slots(optimizer, variables)
    assert all(set(slots) == {"slow", "momentum"} for slots in found)
    assert all(found[i]["slow"] is optimizer._slow_weights[i] for i in range(len(variables)))


def restored_by_keras(optimizer, other, path):
    store = {}
    optimizer.save_own_variables(store)
    assert len(store) == len(optimizer.variables)
    other.load_own_variables(store)


def restored_by_tensorflow(optimizer, other, path):
    saved = tf.train.Checkpoint(optimizer=optimizer).save(str(path / "state"))
    status = tf.train.Checkpoint(optimizer=other).restore(saved)
    status.assert_existing_objects_matched()


@pytest.mark.graph
@pytest.mark.parametrize("restore", [restored_by_keras, restored_by_tensorflow])
def test_training_goes_on_from_a_saved_state(tmp_path, restore):
    gradients = [
        [tf.constant(g) for g in steps.mean(parts).values()] for parts in steps.gradients(STEPS)
    ]
    whole, _ = steps.alone(lambda: made(3, 0.5, momentum=0.9), STEPS)
    variables = steps.make_variables(steps.starts())
    first, second = made(3, 0.5, momentum=0.9), made(3, 0.5, momentum=0.9)
    for grads in gradients[:4]:
        first.apply(grads, variables)
    second.build(variables)
    restore(first, second, tmp_path)
    for grads in gradients[4:]:
        second.apply(grads, variables)
    steps.assert_close(steps.numbers(variables), whole, atol=1e-6)


@pytest.mark.unit
def test_weights_of_the_optimizer_can_be_set():
    variables = steps.make_variables(steps.starts())
    first, second = made(3, 0.5, momentum=0.9), made(3, 0.5, momentum=0.9)
    for optimizer in (first, second):
        optimizer.build(variables)
    first.apply([tf.ones(shape) for shape in steps.SHAPES.values()], variables)
    second.set_weights(steps.states(first))
    for one, two in zip(steps.states(first), steps.states(second), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.unit
def test_the_average_of_the_weights_that_keras_keeps_is_that_of_the_inner_optimizer():
    averages = []
    for wrap in (lambda inner: inner, lambda inner: Lookahead(inner, 9)):
        variables = steps.make_variables(steps.starts())
        inner = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
        optimizer = disttrain.DistributedOptimizer(wrap(inner))
        assert optimizer.use_ema
        for parts in steps.gradients(3):
            optimizer.apply([tf.constant(g) for g in steps.mean(parts).values()], variables)
        last = steps.numbers(variables)
        optimizer.finalize_variable_values(variables)
        averages.append(steps.numbers(variables))
        assert not np.allclose(averages[-1]["head/bias"], last["head/bias"])
    steps.assert_close(averages[1], averages[0], atol=1e-7)


@pytest.mark.unit
def test_the_configuration_goes_through_json():
    schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
    optimizer = Lookahead(keras.optimizers.Adam(schedule), 5, 0.8, name="mine")
    written = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    again = keras.optimizers.deserialize(written)
    assert (again.name, again.sync_period, again.slow_step) == ("mine", 5, 0.8)
    assert again.get_config() == optimizer.get_config()
    assert isinstance(Lookahead("adam").inner, keras.optimizers.Adam)


@pytest.mark.unit
def test_the_schedule_itself_survives_the_change_of_scope(mirrored):
    """`adopt` hands the live schedule over beside the configuration."""
    schedule = Plateau(0.1)
    adopted = mirrored(2).adopt(Lookahead(Lookahead(keras.optimizers.SGD(schedule), 2), 3))
    assert adopted._learning_rate is schedule
    assert adopted.inner.inner._learning_rate is schedule
    assert (adopted.sync_period, adopted.inner.sync_period) == (3, 2)


@pytest.mark.unit
def test_the_rate_is_that_of_the_inner_optimizer():
    optimizer = made(3, 0.5)
    optimizer.learning_rate = 0.25
    assert float(optimizer.inner.learning_rate.numpy()) == 0.25
    assert optimizer.iterations is optimizer.inner.iterations


@pytest.mark.unit
@pytest.mark.parametrize("period", [0, 2.5, True, "6"])
def test_a_bad_period_is_refused(period):
    with pytest.raises(ValueError, match="whole number of updates from 1 as sync_period, not"):
        Lookahead(keras.optimizers.SGD(), period)


@pytest.mark.unit
@pytest.mark.parametrize("slow_step", [0, 1.5, True])
def test_a_bad_step_is_refused(slow_step):
    with pytest.raises(ValueError, match="slow_step above 0 and at most 1, not"):
        Lookahead(keras.optimizers.SGD(), 3, slow_step)

"""What other numbers of replicas get of what each replica had."""

import keras
import numpy as np
import pytest

from disttrain.checkpoints.state import Role, State, share_out
from tests.checkpoints import training

DESCRIBED = [
    {"key": "sum", "path": "sum", "role": "sum"},
    {"key": "mean", "path": "mean", "role": "mean"},
    {"key": "common", "path": "common", "role": "common"},
    {"key": "seed", "path": "seed", "role": "seed"},
]
OWN = [
    {
        "sum": np.float32([i + 1, 0.5]),
        "mean": np.float32([2 * i]),
        "common": np.asarray(i + 5),
        "seed": np.int64([100 + 1_000_003 * i, 4]),
    }
    for i in range(3)
]


@pytest.mark.unit
def test_the_same_number_gets_its_own_back():
    assert share_out(DESCRIBED, OWN, 3) is OWN


@pytest.mark.unit
@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_another_number_shares(replicas):
    shared = share_out(DESCRIBED, OWN, replicas)
    assert len(shared) == replicas
    np.testing.assert_array_equal(np.sum([one["sum"] for one in shared], axis=0), [6, 1.5])
    for one in shared:
        np.testing.assert_array_equal(one["mean"], [2.0])
        assert one["mean"].dtype == np.float32
        assert one["common"] == 5
    assert len({int(one["seed"][0]) for one in shared}) == replicas
    assert [one["seed"][1] for one in shared] == [4] * replicas


@pytest.mark.unit
def test_what_each_replica_has_for_itself_has_no_other_number():
    described = [*DESCRIBED, {"key": "own", "path": "adapter/kernel", "role": "local"}]
    own = [{**one, "own": np.zeros(2)} for one in OWN]
    assert share_out(described, own, 3) is own
    with pytest.raises(ValueError, match=r"adapter/kernel.*now there are 2; go on with 3"):
        share_out(described, own, 2)


@pytest.mark.graph
def test_every_variable_is_there_once_and_in_its_role():
    def model():
        frozen = keras.layers.Dense(training.FEATURES, name="frozen")
        frozen.trainable = False
        return keras.Sequential(
            [keras.Input((training.FEATURES,)), frozen, *training.build().layers]
        )

    made = training.trainer(model=model, accumulate_steps=2)
    made.fit(training.X, training.Y, batch_size=4, epochs=1, verbose=0)
    state = State(made._task, made._train_step)
    expected = [*made.model.variables, *made.optimizer.variables, *made._task.metrics.variables]
    parts = [id(entry.parts[0]) for entry in state.entries]
    assert len(set(parts)) == len(parts) == len(expected) + 2
    assert {id(v.value) for v in expected} <= set(parts)
    roles = {entry.path: entry.role for entry in state.entries}
    assert roles["sequential/frozen/kernel"] is Role.EQUAL
    assert roles["sequential/batch_normalization/moving_mean"] is Role.MEAN
    assert roles["seed_generator/seed_generator_state"] is Role.SEED
    assert roles["accuracy/total"] is Role.SUM
    assert roles["distributed_adam/loss_scale"] is Role.COMMON


@pytest.mark.graph
def test_a_copy_stays_while_the_training_goes_on():
    made = training.trainer()
    made.fit(training.X, training.Y, batch_size=4, epochs=1, verbose=0)
    state = State(made._task, made._train_step)
    equal, _ = state.copy()
    kernel = next(key for key in equal if key.endswith("dense/kernel"))
    before = equal[kernel].copy()
    made.fit(training.X, training.Y, batch_size=4, epochs=1, verbose=0)
    np.testing.assert_array_equal(equal[kernel], before)
    assert (made.model.weights[0].numpy() != before).any()
    # The memory is used again.
    again, _ = state.copy()
    assert again[kernel] is equal[kernel]
    np.testing.assert_array_equal(again[kernel], made.model.weights[0].numpy())


@pytest.mark.graph
def test_gradients_that_wait_are_none_between_two_updates():
    made = training.trainer(accumulate_steps=2)
    made.fit(training.X, training.Y, batch_size=4, epochs=1, verbose=0)
    for total in made.optimizer.accumulator.sums:
        assert not total.numpy().any()

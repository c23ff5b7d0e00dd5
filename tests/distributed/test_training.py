"""Every replication trains as one device does."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distributed import checks

pytestmark = pytest.mark.processes

CASES = [f"train-{name}-{rows}" for name in ("sgd", "adam") for rows in checks.EPOCHS]


@pytest.mark.parametrize("case", CASES)
def test_thirty_steps_give_the_weights_of_plain_keras(alone, case):
    _, name, rows = case.split("-")
    expected = checks.plain_keras(name, int(rows))
    assert alone(case, "iterations") == 30
    np.testing.assert_allclose(alone(case, "weights"), expected["weights"], atol=1e-5)
    np.testing.assert_allclose(alone(case, "loss"), expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(alone(case, "accuracy"), expected["accuracy"], rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.three_ranks
def test_thirty_steps_give_the_weights_of_one_device(outcome, alone, case):
    assert outcome(case, "iterations") == 30
    for key in ("weights", "slots"):
        np.testing.assert_allclose(outcome(case, key), alone(case, key), atol=1e-5)
    np.testing.assert_allclose(outcome(case, "loss"), alone(case, "loss"), rtol=1e-5)
    np.testing.assert_allclose(outcome(case, "accuracy"), alone(case, "accuracy"), rtol=1e-6)


@pytest.mark.parametrize("case", [*CASES, "several-outputs", "own-parts"])
@pytest.mark.three_ranks
def test_all_processes_end_with_equal_weights(outcome, case):
    chief, *others = outcome.every(case, "weights")
    for other in others:
        np.testing.assert_array_equal(other, chief)


def test_several_steps_per_execution_change_nothing(outcome, alone):
    for key in ("weights", "slots", "loss", "iterations"):
        np.testing.assert_allclose(
            outcome("steps-per-execution", key), alone("train-adam-41", key), atol=1e-5
        )


@pytest.mark.three_ranks
def test_two_and_one_examples_weigh_as_three(outcome):
    assert outcome("two-and-one", "weight") == pytest.approx(2.0, abs=1e-6)


def test_masks_weights_and_every_kind_of_mean_count_as_on_one_device(outcome, alone):
    for key in ("weights", "loss"):
        np.testing.assert_allclose(
            outcome("several-outputs", key), alone("several-outputs", key), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("case", ["losses-of-the-whole-batch", "own-compute-loss"])
def test_losses_and_metrics_of_the_whole_batch_count_as_on_one_device(outcome, alone, case):
    for key in ("weights", "logs", "evaluation"):
        np.testing.assert_allclose(outcome(case, key), alone(case, key), rtol=1e-5, atol=1e-6)


def test_evaluation_and_metrics_are_exact(outcome, alone):
    for evaluation in outcome.every("evaluate-and-predict", "evaluation"):
        np.testing.assert_allclose(
            evaluation, alone("evaluate-and-predict", "evaluation"), rtol=1e-6
        )


def test_predictions_come_in_the_order_of_the_examples_on_every_process(outcome, alone):
    for outputs in outcome.every("evaluate-and-predict", "outputs"):
        np.testing.assert_allclose(outputs, alone("evaluate-and-predict", "outputs"), atol=1e-6)


def test_an_empty_replica_leaves_batch_normalization_finite_and_all_processes_equal(outcome):
    chief, *others = outcome.every("batch-normalization", "state")
    assert np.isfinite(chief).all()
    # Moving variances near 0 would show that replicas without examples were counted.
    assert (chief[checks.FEATURES :] > 0.8).all()
    for other in others:
        np.testing.assert_array_equal(other, chief)


@pytest.mark.three_ranks
def test_frozen_weights_keep_their_bits_and_state_without_data_counts_every_step(outcome, kind):
    x, _ = checks.data(41)
    count = int(kind.rpartition("-")[2])
    # All but the last replica, who has the last example, keep what the batch before gave.
    places = [8 * i // count for i in range(count + 1)]
    parts = [x[32 + places[i] : 32 + places[i + 1]] for i in range(count - 1)]
    mean = np.mean([*(part.mean() for part in parts), x[40].mean()])
    for key, expected in (("moved", 0), ("steps", 7), ("temperature", 0.9**6), ("mean", mean)):
        np.testing.assert_allclose(outcome.every("state-of-replicas", key), expected, rtol=1e-5)


def test_replicas_draw_different_random_numbers(outcome, kind):
    seeds = np.concatenate(outcome.every("dropout-seeds", "seeds"))
    assert len(set(seeds)) == len(seeds) == int(kind.rpartition("-")[2])


def test_parts_that_processes_read_by_themselves_add_up(outcome, alone):
    """The expected batches are put together from the parts by hand."""
    x, y = checks.data(30, seed=7)
    batches = [np.arange(30)]
    if len(outcome.processes) == 2:
        batches = [np.r_[0:5, 20:25], np.r_[5:10, 25:30], np.r_[10:15], np.r_[15:20]]
    parts = [tf.data.Dataset.from_tensors((x[rows], y[rows])) for rows in batches]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.concatenate(part)
    # Batches of different sizes have to look alike to TensorFlow.
    whole = whole.unbatch().batch(30) if len(parts) == 1 else whole.map(_any_rows)
    made = checks.trainer("single")
    history = made.fit(whole, epochs=2, verbose=0)
    assert outcome("own-parts", "iterations") == 2 * len(batches)
    np.testing.assert_allclose(
        outcome("own-parts", "weights"), checks.flat(made.model.trainable_variables), atol=1e-5
    )
    np.testing.assert_allclose(outcome("own-parts", "loss"), history.history["loss"], rtol=1e-5)


def _any_rows(x, y):
    return tf.ensure_shape(x, [None, x.shape[1]]), tf.ensure_shape(y, [None])


def test_processes_that_read_different_data_are_told(outcome, kind):
    for error in outcome.every("different-orders", "error"):
        if kind.startswith("mirrored"):
            assert str(error) == ""
        else:
            assert "different batches" in str(error)
            assert "InputContext" in str(error)


def test_a_log_directory_that_cannot_be_written_fails_every_process_before_the_first_step(outcome):
    for error in outcome.every("unwritable-logdir", "error"):
        assert "log" in str(error)
        assert "cannot" in str(error)

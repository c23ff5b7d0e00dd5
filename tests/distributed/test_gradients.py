"""Reduction, accumulation, clipping and faults, on every replication."""

import numpy as np
import pytest

from tests.distributed import gradient_checks

pytestmark = pytest.mark.processes


def _replicas(kind):
    return int(kind.rpartition("-")[2])


@pytest.mark.parametrize("name", gradient_checks.OPTIMIZERS)
def test_each_optimizer_gives_what_plain_keras_gives_on_one_device(alone, name):
    expected = gradient_checks.plain(name)
    np.testing.assert_allclose(alone(f"optimizer-{name}", "weights"), expected, atol=1e-5)


def test_no_optimizer_of_keras_is_left_out():
    import keras

    names = {name for name in dir(keras.optimizers) if name[0].isupper()}
    tested = {name.partition("-")[0] for name in gradient_checks.OPTIMIZERS}
    assert names - tested <= {"Optimizer", "OptimizerMap", *gradient_checks.BROKEN}


@pytest.mark.parametrize("name", [*gradient_checks.OPTIMIZERS, *gradient_checks.OWN])
def test_each_optimizer_gives_the_same_weights_on_all_replicas(outcome, alone, name):
    expected = alone(f"optimizer-{name}", "weights")
    for weights in outcome.every(f"optimizer-{name}", "weights"):
        np.testing.assert_allclose(weights, expected, atol=1e-5)


@pytest.fixture(scope="session")
def whole_batches():
    """A training in batches of twelve on one device."""
    return gradient_checks.short("single", "adam", epochs=2, data=_batches(41, 12))[1]


@pytest.mark.parametrize("key", ["weights", "loss", "iterations"])
def test_accumulated_batches_are_one_large_batch(outcome, whole_batches, key):
    """Twelve examples an update, then the five that are left."""
    for value in outcome.every("accumulate", key):
        np.testing.assert_allclose(value, whole_batches[key], atol=1e-6, rtol=1e-6)


@pytest.mark.three_ranks
def test_accumulated_gradients_by_hand_are_averaged_and_the_rest_is_not_lost(outcome, kind):
    mean = (_replicas(kind) + 1) / 2
    expected = -mean * np.asarray([0, 0, 3, 3, 3, 9, 9])
    for seen in outcome.every("accumulate-by-hand", "seen"):
        np.testing.assert_allclose(seen, expected, rtol=1e-6)
    assert outcome("accumulate-by-hand", "iterations") == 2


@pytest.mark.parametrize(("compression", "error"), [("fp16", 2e-3), ("bf16", 2e-2)])
def test_compressed_gradients_train_as_the_others_to_their_precision(
    outcome, alone, compression, error
):
    expected = alone("groups", "weights")
    chief, *others = outcome.every(f"compression-{compression}", "weights")
    difference = np.abs(chief - expected).max()
    assert 0 < difference < error
    for other in others:
        np.testing.assert_array_equal(other, chief)


@pytest.mark.three_ranks
def test_groups_change_nothing_but_the_order_of_communication(outcome, alone):
    np.testing.assert_allclose(outcome("groups", "weights"), alone("groups", "weights"), atol=1e-6)


@pytest.mark.parametrize("case", ["sparse", "sparse-as-dense", "sparse-in-a-loop"])
@pytest.mark.three_ranks
def test_sparse_gradients_count_each_row_once_more_for_each_time_it_stands(outcome, alone, case):
    expected = alone("sparse-as-dense", "weights")
    for weights in outcome.every(case, "weights"):
        np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_adasum_adds_what_is_orthogonal_and_averages_what_is_parallel(outcome):
    for value in outcome.every("adasum", "orthogonal"):
        np.testing.assert_allclose(value, [-1, -2, 0, 0], atol=1e-6)
    for value in outcome.every("adasum", "parallel"):
        np.testing.assert_allclose(value, [-1, -2, 0, 0], atol=1e-6)


def test_adasum_trains_and_keeps_all_processes_equal(outcome):
    losses = outcome("adasum-training", "loss")
    assert losses[-1] < losses[0]
    chief, *others = outcome.every("adasum-training", "weights")
    for other in others:
        np.testing.assert_array_equal(other, chief)


@pytest.mark.parametrize("name", ["by-value", "by-norm", "adaptive", "auto"])
def test_each_clip_acts_on_the_gradient_of_the_global_batch(outcome, alone, name):
    assert 0 < alone(f"clip-{name}", "frequency") <= 1
    for key in ("weights", "frequency"):
        np.testing.assert_allclose(
            outcome(f"clip-{name}", key), alone(f"clip-{name}", key), atol=1e-5
        )


def test_a_clip_before_the_sum_limits_each_replica_by_itself(outcome):
    for value in outcome.every("clip-before-the-sum", "value"):
        assert value == pytest.approx(0.0, abs=1e-6)


def test_float8_scales_are_those_of_the_global_batch(outcome, alone):
    assert outcome("float8", "scales").max() > 0.5
    for key in ("scales", "weights"):
        for found in outcome.every("float8", key):
            np.testing.assert_allclose(found, alone("float8", key), rtol=1e-3, atol=1e-3)


@pytest.mark.three_ranks
def test_a_sum_of_compressed_gradients_does_not_overflow(outcome, kind):
    assert outcome("large-compressed", "mean") == pytest.approx(-40000, rel=1e-3)
    assert outcome("large-compressed", "sum") == pytest.approx(-40000 * _replicas(kind), rel=1e-3)


@pytest.mark.three_ranks
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_local_variables_stay_with_their_replica(outcome, kind, reduction):
    replicas = _replicas(kind)
    # Clipped to 0.5 before the mean, or not at all before the sum.
    expected = -0.5 if reduction == "mean" else -replicas * (replicas + 1) / 2
    for shared in outcome.every("local-variables", f"{reduction}_shared"):
        assert shared == pytest.approx(expected)
    processes = 1 if kind.startswith("mirrored") else replicas
    start = 10 * np.arange(replicas) if processes > 1 else 0
    own = np.concatenate(outcome.every("local-variables", f"{reduction}_own"))
    np.testing.assert_array_equal(own, start - np.arange(1.0, replicas + 1))


@pytest.mark.three_ranks
def test_a_local_variable_is_trained_with_the_mean_of_its_replicas_examples(outcome, kind):
    replicas = _replicas(kind)
    for shared in outcome.every("local-variables-of-a-trainer", "shared"):
        assert shared == pytest.approx(1.0 if replicas < 4 else 2.0)
    own = np.concatenate(outcome.every("local-variables-of-a-trainer", "own"))
    parts = {2: [[0], [1, 2]], 3: [[0], [1], [2]], 4: [[0], [1], [2], [3, 4]]}[replicas]
    np.testing.assert_allclose(own, [np.mean(part) for part in parts])


@pytest.mark.three_ranks
def test_in_fifty_random_steps_each_fault_is_skipped_by_all_and_nothing_else(outcome):
    for wrong in outcome.every("random-faults", "wrong"):
        assert wrong == 0
    expected = outcome("random-faults", "expected")
    assert np.abs(expected).sum() > 1
    for values in outcome.every("random-faults", "values"):
        np.testing.assert_allclose(values, expected, atol=1e-4)


def test_too_many_skipped_steps_in_a_row_stop_with_the_names_of_the_variables(outcome):
    for error in outcome.every("too-many-skips", "error"):
        assert "3 steps in a row were skipped" in str(error)
        assert "kernel" in str(error)


@pytest.mark.three_ranks
@pytest.mark.parametrize("check", ["sync-batch-normalization", "keras-sync-batch-normalization"])
def test_synchronized_batch_normalization_sees_the_global_batch(outcome, alone, check):
    for key in ("weights", "state", "loss"):
        for value in outcome.every(check, key):
            np.testing.assert_allclose(value, alone(check, key), atol=1e-5)


def test_kerass_own_layer_is_synchronized_in_model_fit(outcome, alone, kind):
    if kind.startswith("multi_worker"):
        assert "PerReplica" in str(outcome("model-fit-synchronized", "error"))  # as below
        return
    for weights in outcome.every("model-fit-synchronized", "weights"):
        np.testing.assert_allclose(weights, alone("model-fit-synchronized", "weights"), atol=1e-5)


@pytest.mark.three_ranks
def test_processes_begin_with_what_the_chief_has_made_or_adapted(outcome, alone):
    for outputs in outcome.every("own-start", "outputs"):
        np.testing.assert_allclose(outputs, alone("own-start", "outputs"), atol=1e-5)


def test_model_fit_with_the_callbacks_trains_as_one_device(outcome, alone, kind):
    if kind.startswith("multi_worker"):
        # Keras itself; where it mends this, the documentation must follow.
        for error in outcome.every("model-fit", "error"):
            assert "PerReplica" in str(error)
        return
    metrics = ("loss", "accuracy", "mean_outputs")
    for key in ("weights", *metrics, *(f"val_{name}" for name in metrics)):
        for value in outcome.every("model-fit", key):
            np.testing.assert_allclose(value, alone("model-fit", key), atol=1e-5)


def test_model_fit_in_float16_skips_on_all_ranks_where_one_overflows(outcome, alone, kind):
    if kind.startswith("multi_worker"):
        return
    assert alone("model-fit-float16", "iterations") == 4
    for key in ("iterations", "loss_scale"):
        for value in outcome.every("model-fit-float16", key):
            assert value == alone("model-fit-float16", key)
    for weights in outcome.every("model-fit-float16", "weights"):
        np.testing.assert_allclose(weights, alone("model-fit-float16", "weights"), atol=2e-3)


@pytest.mark.three_ranks
def test_groups_of_ranks_train_side_by_side(outcome, alone):
    expected = alone("process-sets", "weights")
    for weights in outcome.every("process-sets", "weights"):
        np.testing.assert_allclose(weights, expected, atol=1e-5)


def _batches(rows, size):
    import tensorflow as tf

    from tests.distributed import checks

    return tf.data.Dataset.from_tensor_slices(checks.data(rows)).batch(size)


def test_fits_of_unknown_length_make_as_many_updates_as_there_are_batches(outcome, alone, kind):
    if kind.startswith("multi_worker"):
        assert "PerReplica" in str(outcome("unknown-length", "error"))  # as above
        return
    assert outcome("unknown-length", "iterations") == alone("unknown-length", "iterations") == 3
    for weights in outcome.every("unknown-length", "weights"):
        np.testing.assert_allclose(weights, alone("unknown-length", "weights"), atol=1e-5)

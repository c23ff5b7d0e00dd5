"""The contract of a step, reduce, check, unscale, clip, apply, where the peers get it wrong."""

import numpy as np
import pytest

pytestmark = pytest.mark.processes


def _replicas(kind):
    return int(kind.rpartition("-")[2])


@pytest.mark.three_ranks
def test_gradients_are_averaged_over_all_replicas(outcome, kind):
    expected = -8.0 / _replicas(kind)
    for value in outcome.every("mean-of-gradients", "value"):
        assert value == pytest.approx(expected)


@pytest.mark.three_ranks
def test_gradients_are_clipped_after_they_are_added(outcome):
    for value in outcome.every("clip-after-the-sum", "value"):
        assert value == pytest.approx(-1.0)


@pytest.mark.three_ranks
def test_a_nan_on_the_last_replica_skips_the_step_on_all(outcome):
    for value in outcome.every("nan-on-the-last-replica", "value"):
        assert value == 0.0


@pytest.mark.three_ranks
def test_a_skipped_step_advances_neither_iterations_nor_the_schedule(outcome):
    assert outcome("nan-on-the-last-replica", "iterations") == 0
    assert outcome("nan-on-the-last-replica", "learning_rate") == 1.0
    assert outcome("mean-of-gradients", "iterations") == 1
    assert outcome("mean-of-gradients", "learning_rate") == 0.25


def test_a_skipped_step_halves_the_loss_scale(outcome):
    for scale in outcome.every("nan-on-the-last-replica", "loss_scale"):
        assert scale == 2.0**14


def test_training_skips_a_batch_with_nan_and_goes_on(outcome):
    """Batch 1 holds a NaN that the last replica alone sees; the scale grows after three steps."""
    iterations, scale, rate, weights = outcome("nan-batch", "seen").T
    np.testing.assert_array_equal(iterations, [1, 1, 2, 3, 4])
    np.testing.assert_array_equal(scale, [1024, 512, 512, 512, 1024])
    np.testing.assert_allclose(rate, 0.05 * 0.9 ** (iterations / 10), rtol=1e-5)
    assert weights[0] == weights[1] != weights[2]
    assert np.isfinite(weights).all()


def test_training_with_a_skipped_step_gives_the_weights_of_one_device(outcome, alone):
    expected = alone("nan-batch", "weights")
    for weights in outcome.every("nan-batch", "weights"):
        np.testing.assert_allclose(weights, expected, atol=1e-5)
    assert np.abs(expected).sum() > 0


def test_keras_itself_gets_this_wrong(mirrored):
    """Why the wrapper exists; where Keras mends one of these, the documentation must follow."""
    import keras
    import tensorflow as tf

    strategy = mirrored(2).strategy

    def after(optimizer, gradients):
        with strategy.scope():
            variable = keras.Variable([0.0])
            optimizer = optimizer()
            optimizer.build([variable])
        values = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant([gradients[context.replica_id_in_sync_group]])
        )
        tf.function(
            lambda: strategy.run(lambda g: optimizer.apply([g], [variable]), args=(values,))
        )()
        return variable.numpy()[0]

    clipped = after(lambda: keras.optimizers.SGD(1.0, global_clipnorm=1.0), [10.0, -2.0])
    assert clipped == 0.0, "Keras clips each replica's gradient before the sum"
    scaled = after(
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0)), [1.0, np.nan]
    )
    assert np.isnan(scaled), "Keras looks at replica 0 alone for NaN"

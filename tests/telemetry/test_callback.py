"""`TelemetryCallback`: `Model.fit` recorded as the trainer records."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.callbacks import FlushAccumulation, TelemetryCallback
from tensorboard_plugin import metadata
from tests.distributed import checks
from tests.telemetry.test_log import quantity, rows, steps


def compiled(optimizer=None, scope=None, **options):
    scope = scope or tf.distribute.get_strategy()
    with scope.scope():
        model = checks.build()
        if optimizer is None:
            optimizer = disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1, momentum=0.9))
        model.compile(optimizer, checks.loss(), **options)
    return model


def callback(logdir, **options):
    return TelemetryCallback(str(logdir), disttrain.Telemetry(every=1, **options))


def layers(logdir):
    return np.stack([array for _, _, array in rows(logdir, metadata.LAYERS)])


@pytest.mark.graph
def test_fit_records_what_the_trainer_records(tmp_path):
    model = compiled()
    model.fit(checks.dataset(48), epochs=2, verbose=0, callbacks=[callback(tmp_path / "fit")])
    made = checks.trainer(
        "single",
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        telemetry=disttrain.Telemetry(every=1),
        logdir=str(tmp_path / "trainer"),
    )
    made.fit(checks.dataset(48), epochs=2, verbose=0)
    np.testing.assert_allclose(
        layers(tmp_path / "fit"), layers(tmp_path / "trainer"), rtol=1e-4, atol=1e-6
    )
    for name in ("loss", "learning_rate", "gradient_norm", "clip_factor", "skipped"):
        found, expected = (quantity(tmp_path / run, name) for run in ("fit", "trainer"))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.graph
def test_the_weights_are_those_without_it(tmp_path):
    with_it, without = compiled(), compiled()
    with_it.fit(checks.dataset(41), epochs=2, verbose=0, callbacks=[callback(tmp_path)])
    without.fit(checks.dataset(41), epochs=2, verbose=0)
    found, expected = (checks.flat(m.trainable_variables) for m in (with_it, without))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.graph
def test_metrics_of_an_epoch_are_plain_scalars(tmp_path):
    model = compiled(metrics=["accuracy"])
    history = model.fit(
        checks.dataset(16),
        validation_data=checks.dataset(16),
        verbose=0,
        callbacks=[callback(tmp_path)],
    ).history
    for name in ("accuracy", "val_accuracy", "val_loss"):
        ((_, step, value),) = rows(tmp_path, name)
        assert step == 2
        np.testing.assert_allclose(value, history[name][0], rtol=1e-6)


@pytest.mark.graph
def test_a_second_fit_goes_on_counting_and_one_without_it_records_nothing(tmp_path):
    model, recording = compiled(), callback(tmp_path)
    model.fit(checks.dataset(48), verbose=0, callbacks=[recording])
    model.fit(checks.dataset(48), verbose=0)
    model.fit(checks.dataset(48), verbose=0, callbacks=[recording])
    assert steps(tmp_path) == list(range(1, 13))


@pytest.mark.graph
@pytest.mark.parametrize("per_execution", [1, 4])
def test_accumulated_batches_are_one_record(tmp_path, per_execution):
    optimizer = disttrain.DistributedOptimizer("sgd", accumulate_steps=4)
    model = compiled(optimizer, steps_per_execution=per_execution)
    with warnings.catch_warnings():
        # The loss of the rest is not known, which is no fault.
        warnings.filterwarnings("error", ".*Telemetry")
        recorded = callback(tmp_path)
        model.fit(checks.dataset(48), verbose=0, callbacks=[FlushAccumulation(), recorded])
    assert steps(tmp_path) == [1, 2]


@pytest.mark.graph
def test_mirrored_replicas(tmp_path, mirrored):
    strategy = mirrored(2).strategy
    model = compiled(scope=strategy)
    model.fit(checks.dataset(48), verbose=0, callbacks=[callback(tmp_path)])
    found = np.stack([array for _, _, array in rows(tmp_path, metadata.REPLICAS)])
    assert found.shape == (6, 2, 4)
    assert not np.allclose(found[:, 0, :2], found[:, 1, :2])
    np.testing.assert_allclose(found[:, :, 1].mean(axis=1), quantity(tmp_path, "loss"), rtol=1e-5)


@pytest.mark.graph
def test_replicas_that_differ_stop_fit(tmp_path, mirrored):
    model = compiled(scope=mirrored(2).strategy)

    class Meddle(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kernel = self.model.trainable_variables[0].value
            kernel.values[1].assign(kernel.values[0] + 1.0)

    recording = callback(tmp_path, divergence_every=2)
    with pytest.raises(RuntimeError, match="replicas hold different weights"):
        model.fit(checks.dataset(48), verbose=0, callbacks=[Meddle(), recording])


@pytest.mark.unit
def test_an_optimizer_that_is_not_distributed_is_refused(tmp_path):
    model = compiled(keras.optimizers.SGD(0.1))
    with pytest.raises(TypeError, match=r"DistributedOptimizer, not SGD: model\.compile"):
        model.fit(checks.dataset(16), verbose=0, callbacks=[callback(tmp_path)])


@pytest.mark.unit
def test_options_of_another_kind_are_refused(tmp_path):
    with pytest.raises(TypeError, match="telemetry must be a disttrain.Telemetry, not 10"):
        TelemetryCallback(tmp_path, 10)


@pytest.mark.unit
def test_the_trainer_refuses_it_for_it_records_by_itself(tmp_path):
    with pytest.raises(ValueError, match="the trainer records by itself"):
        checks.trainer("single").fit(checks.dataset(16), verbose=0, callbacks=[callback(tmp_path)])

"""A recorded training: which rows there are, and what stands in them when something happens."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from tensorboard_plugin import metadata
from tests.distributed import checks
from tests.telemetry.test_recorder import events

pytestmark = pytest.mark.graph


def run(logdir, every=1, epochs=1, rows=48, **options):
    made = checks.trainer(
        "single",
        optimizer=options.pop("optimizer", keras.optimizers.SGD(0.1, momentum=0.9)),
        telemetry=disttrain.Telemetry(every=every),
        logdir=str(logdir),
        **options,
    )
    made.fit(checks.dataset(rows), epochs=epochs, verbose=0)
    return made


def rows(logdir, tag):
    return [(t, step, array) for t, step, _, array in events(logdir) if t.startswith(tag)]


def steps(logdir, tag=metadata.LAYERS):
    return [step for _, step, _ in rows(logdir, tag)]


def quantity(logdir, name):
    names = [s.name for s in metadata.STEP_QUANTITIES]
    return [float(array[names.index(name)]) for _, _, array in rows(logdir, metadata.STEPS)]


@pytest.mark.parametrize("per_execution", [1, 4, 5])
def test_the_first_and_every_third_step_are_recorded(tmp_path, per_execution):
    run(tmp_path, every=3, epochs=2, steps_per_execution=per_execution)
    assert steps(tmp_path) == [1, 3, 6, 9, 12]
    assert steps(tmp_path, metadata.STEPS) == [1, 3, 6, 9, 12]


def test_no_row_is_lost_when_an_execution_is_longer_than_the_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr("disttrain.telemetry.observer.BUFFER_BYTES", 1)
    run(tmp_path, epochs=3, steps_per_execution=6)
    assert steps(tmp_path) == list(range(1, 19))


def test_a_second_fit_goes_on_counting(tmp_path):
    made = run(tmp_path)
    made.fit(checks.dataset(48), verbose=0)
    assert steps(tmp_path) == list(range(1, 13))


def test_a_skipped_step_is_recorded_as_skipped_and_moves_nothing(tmp_path):
    x, y = checks.data(24)
    x[9] = np.nan
    made = checks.trainer(
        "single", telemetry=disttrain.Telemetry(every=1), logdir=str(tmp_path), loss_scale=8.0
    )
    made.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(8), verbose=0)
    assert quantity(tmp_path, "skipped") == [0, 1, 0]
    assert quantity(tmp_path, "loss_scale") == [8, 8, 8]
    assert np.isnan(quantity(tmp_path, "loss")[1])
    columns = [s.name for s in metadata.layer_statistics(["momentum"])]
    skipped = rows(tmp_path, metadata.LAYERS)[1][2]
    assert (skipped[:, columns.index("update_norm")] == 0).all()
    assert (skipped[:, columns.index("weight_norm")] >= 0).all()
    assert skipped[0, columns.index("nonfinite")] > 0


def test_a_skipped_step_is_recorded_whatever_its_number(tmp_path):
    x, y = checks.data(48)
    x[[9, 17]] = np.nan
    made = checks.trainer(
        "single", telemetry=disttrain.Telemetry(every=5), logdir=str(tmp_path), loss_scale=8.0
    )
    made.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(8), verbose=0)
    assert steps(tmp_path) == [1, 2, 3, 5, 6]
    assert quantity(tmp_path, "skipped") == [0, 1, 1, 0, 0]


def test_another_optimizer_opens_another_part(tmp_path):
    made = run(tmp_path)
    weights = checks.flat(made.model.trainable_variables)
    made.switch_optimizer(keras.optimizers.Adam(1e-9))
    made.fit(checks.dataset(48), verbose=0)
    np.testing.assert_allclose(checks.flat(made.model.trainable_variables), weights, atol=1e-6)
    parts = {
        tag: metadata.decode(content)
        for tag, _, content, _ in events(tmp_path)
        if content and tag.startswith(metadata.LAYERS)
    }
    assert [part.optimizer["class_name"] for part in parts.values()] == ["SGD", "Adam"]
    assert "slot/velocity" in parts["disttrain/layers/1"].columns
    assert steps(tmp_path) == list(range(1, 13))


def test_the_schedules_rate_of_each_step_is_recorded(tmp_path):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    run(tmp_path, optimizer=keras.optimizers.SGD(schedule))
    np.testing.assert_allclose(
        quantity(tmp_path, "learning_rate"), 0.5 ** np.arange(1, 7), rtol=1e-6
    )


def test_weight_decay_is_part_of_the_update(tmp_path):
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    before = [v.numpy() for v in checks.build().trainable_variables]
    made = run(tmp_path, optimizer=optimizer, rows=8)
    after = [v.numpy() for v in made.model.trainable_variables]
    ((_, _, row),) = rows(tmp_path, metadata.LAYERS)
    columns = [s.name for s in metadata.layer_statistics([])]
    np.testing.assert_allclose(
        row[:, columns.index("update_norm")],
        [np.linalg.norm(a - b) for a, b in zip(after, before, strict=True)],
        rtol=1e-5,
    )


def test_the_cosine_of_plain_descent_is_one_and_zeros_are_counted(tmp_path):
    run(tmp_path, optimizer=keras.optimizers.SGD(0.1), rows=8)
    ((_, _, row),) = rows(tmp_path, metadata.LAYERS)
    columns = [s.name for s in metadata.layer_statistics([])]
    np.testing.assert_allclose(row[:, columns.index("update_cosine")], 1.0, atol=1e-4)
    assert (row[:, columns.index("zero_fraction")] == 0).all()


def test_without_telemetry_only_plain_scalars_are_written(tmp_path):
    made = checks.trainer("single", telemetry=None, logdir=str(tmp_path), metrics=["accuracy"])
    made.fit(checks.dataset(16), validation_data=checks.dataset(16), verbose=0)
    assert {tag for tag, *_ in events(tmp_path)} == {
        *("loss", "accuracy", "learning_rate", "val_loss", "val_accuracy")
    }


def test_how_often_the_clip_acts_is_a_plain_scalar(tmp_path):
    run(tmp_path, epochs=2, clip=disttrain.ClipByGlobalNorm(1e-3))
    found = [(step, float(array)) for tag, step, _, array in events(tmp_path) if "clip" in tag]
    assert found == [(6, 1.0), (12, 1.0)]


def test_accumulated_batches_are_one_record_at_the_boundary(tmp_path):
    """Six batches, four of which make the first update and two the second."""
    run(tmp_path, accumulate_steps=4)
    assert steps(tmp_path) == [1, 2]
    rates = np.asarray(quantity(tmp_path, "examples_per_second"))
    examples = rates * quantity(tmp_path, "step_seconds")
    np.testing.assert_allclose(examples, [32, 16], rtol=1e-4)


def test_a_directory_with_an_older_run_is_pointed_out(tmp_path):
    run(tmp_path)
    with pytest.warns(UserWarning, match="already holds a run"):
        run(tmp_path)

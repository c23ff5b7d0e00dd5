"""What a recorded training holds beyond the rows of each step, and what happens at its ends."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.telemetry.noise import NoiseScale
from tensorboard_plugin import metadata
from tests.distributed import checks
from tests.telemetry.test_log import quantity, rows, steps
from tests.telemetry.test_recorder import events

pytestmark = pytest.mark.graph


def train(logdir, build=checks.build, data=None, epochs=1, replication="single", **options):
    options.setdefault("optimizer", keras.optimizers.SGD(0.1, momentum=0.9))
    options.setdefault("loss", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    options.setdefault("telemetry", disttrain.Telemetry(every=1))
    made = disttrain.Trainer(
        build, replication=replication, logdir=logdir and str(logdir), **options
    )
    made.fit(checks.dataset(48) if data is None else data, epochs=epochs, verbose=0)
    return made


def parts(logdir, tag=metadata.LAYERS):
    """The `metadata.Part`s of a tag, in order."""
    return [
        metadata.decode(content)
        for found, _, content, _ in events(logdir)
        if content and found.startswith(tag)
    ]


def columns(logdir, name, tag=metadata.LAYERS, part=0):
    """One column of every record of the tag's first part, `[records, ...]`."""
    (described, *_) = parts(logdir, tag)[part:]
    found = [a for t, _, _, a in events(logdir) if t == metadata.part_tag(tag, part)]
    place = described.columns.index(name)
    return np.stack([array[:, place] for array in found])


def paths(logdir, part=0):
    return [v["path"] for v in parts(logdir)[part].variables]


# Histograms.


def test_histograms_come_at_their_own_interval_and_count_every_element(tmp_path):
    made = train(tmp_path, telemetry=disttrain.Telemetry(every=4, histograms_every=3), epochs=2)
    assert steps(tmp_path, metadata.HISTOGRAMS) == [1, 3, 6, 9, 12]
    assert steps(tmp_path) == [1, 3, 4, 6, 8, 9, 12]
    (part,) = parts(tmp_path, metadata.HISTOGRAMS)
    assert part.columns == ("weight", "gradient", "update", "slot/momentum")
    assert part.bins == metadata.BINS
    negative = metadata.BINS.index("negative")
    for _, _, counts in rows(tmp_path, metadata.HISTOGRAMS):
        whole = np.delete(counts, negative, axis=2).sum(axis=2)
        sizes = [[np.prod(v.shape)] * 4 for v in made.model.trainable_variables]
        np.testing.assert_array_equal(whole, sizes)


def test_the_last_histogram_is_that_of_the_final_weights(tmp_path):
    made = train(tmp_path)
    _, step, counts = rows(tmp_path, metadata.HISTOGRAMS)[-1]
    assert step == 6
    for variable, of_variable in zip(made.model.trainable_variables, counts, strict=True):
        values = variable.numpy().ravel()
        exponents = np.frexp(values[values != 0])[1] - 1
        for exponent in np.unique(exponents):
            found = of_variable[0, metadata.BINS.index(int(exponent))]
            assert found == (exponents == exponent).sum()
        assert of_variable[0, metadata.BINS.index("negative")] == (values < 0).sum()


def test_without_histograms_there_is_no_such_tag(tmp_path):
    train(tmp_path, telemetry=disttrain.Telemetry(every=1, histograms_every=None))
    assert rows(tmp_path, metadata.HISTOGRAMS) == []


def test_many_steps_an_execution_lose_no_histogram(tmp_path):
    train(
        tmp_path,
        telemetry=disttrain.Telemetry(every=1000, histograms_every=2),
        epochs=4,
        steps_per_execution=6,
    )
    assert steps(tmp_path, metadata.HISTOGRAMS) == [1, *range(2, 25, 2)]
    assert steps(tmp_path) == [1, *range(2, 25, 2)]


# Which variables.


def test_only_chosen_variables_are_recorded(tmp_path):
    telemetry = disttrain.Telemetry(every=1, include="*kernel", exclude="*logits*")
    made = train(tmp_path, telemetry=telemetry, build=named)
    assert paths(tmp_path) == ["net/hidden/kernel"]
    norm = np.linalg.norm(made.model.get_layer("hidden").kernel.numpy())
    np.testing.assert_allclose(columns(tmp_path, "weight_norm")[-1], [norm], rtol=1e-5)


def named():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, activation="relu", name="hidden"),
            keras.layers.Dense(3, name="logits"),
        ],
        name="net",
    )


def test_patterns_that_leave_nothing_say_what_there_is(tmp_path):
    telemetry = disttrain.Telemetry(include="encoder/*")
    with pytest.raises(ValueError, match=r"include=\('encoder/\*',\).*hidden/kernel"):
        train(tmp_path, telemetry=telemetry, build=named)


def test_a_frozen_layer_is_not_recorded_and_an_unfrozen_one_opens_a_part(tmp_path):
    made = disttrain.Trainer(
        named,
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        replication="single",
        telemetry=disttrain.Telemetry(every=1),
        logdir=str(tmp_path),
    )
    made.predict(np.zeros((1, 6), "f4"))
    made.model.get_layer("hidden").trainable = False
    made.fit(checks.dataset(16), verbose=0)
    made.model.get_layer("hidden").trainable = True
    made.switch_optimizer(keras.optimizers.SGD(0.1))
    made.fit(checks.dataset(16), verbose=0)
    assert [len(part.variables) for part in parts(tmp_path)] == [2, 4]
    assert steps(tmp_path) == [1, 2, 3, 4]
    assert (columns(tmp_path, "update_norm", part=1) > 0).all()


def test_an_embedding_with_sparse_gradients(tmp_path):
    """Three of 50 rows have a gradient; with momentum, rows of earlier batches go on moving."""

    def build():
        return keras.Sequential(
            [
                keras.Input((3,), dtype="int32"),
                keras.layers.Embedding(50, 4, name="words"),
                keras.layers.Flatten(),
                keras.layers.Dense(3, name="logits"),
            ]
        )

    x = np.asarray([[1, 2, 2], [4, 5, 4]] * 4, np.int32)
    y = np.zeros(8, np.int64)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    made = train(tmp_path, build=build, data=data, optimizer=keras.optimizers.SGD(0.5))
    table = made.model.get_layer("words").embeddings.numpy()
    np.testing.assert_allclose(columns(tmp_path, "zero_fraction")[0, 0], 46 / 50, rtol=1e-6)
    np.testing.assert_allclose(columns(tmp_path, "update_cosine")[0], 1.0, atol=1e-5)
    gradient, update = (columns(tmp_path, f"{n}_norm")[0, 0] for n in ("gradient", "update"))
    np.testing.assert_allclose(update, 0.5 * gradient, rtol=1e-4)
    np.testing.assert_allclose(
        columns(tmp_path, "weight_norm")[0, 0], np.linalg.norm(table), rtol=1e-5
    )
    counts = rows(tmp_path, metadata.HISTOGRAMS)[0][2]
    assert counts[0, 1, metadata.BINS.index("zero")] == 46 * 4


def test_mixed_precision_records_float32_weights_and_unscaled_gradients(tmp_path):
    half = train(tmp_path / "half", precision="mixed_float16", loss_scale=1024.0)
    assert half.model.trainable_variables[0].dtype == "float32"
    train(tmp_path / "whole")
    found, expected = (columns(tmp_path / n, "gradient_norm")[0] for n in ("half", "whole"))
    np.testing.assert_allclose(found, expected, rtol=0.02)
    assert quantity(tmp_path / "half", "loss_scale") == [1024.0] * 6


def test_bfloat16_weights_show_their_true_change(tmp_path):
    """A step below the weights' resolution moves nothing, whatever the gradient says."""
    train(tmp_path, precision="bfloat16", optimizer=keras.optimizers.SGD(1e-6))
    assert (columns(tmp_path, "gradient_norm")[:, 0] > 0).all()
    np.testing.assert_array_equal(columns(tmp_path, "update_norm")[:, 0], 0.0)


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.exhaustive)])
def test_many_variables(tmp_path, count):
    class Many(keras.layers.Layer):
        def build(self, shape):
            self.parts = [self.add_weight(shape=(3,), name=f"part_{i}") for i in range(count)]
            self.built = True

        def call(self, x):
            return x[:, :3] + tf.add_n([part.value for part in self.parts])

    made = train(
        tmp_path,
        build=lambda: keras.Sequential([keras.Input((6,)), Many()]),
        data=checks.dataset(16),
        optimizer=keras.optimizers.SGD(0.1),
    )
    assert len(parts(tmp_path)[0].variables) == count
    norms = [np.linalg.norm(v.numpy()) for v in made.model.trainable_variables]
    np.testing.assert_allclose(columns(tmp_path, "weight_norm")[-1], norms, rtol=1e-5)
    assert (columns(tmp_path, "update_norm") > 0).all()


# Replicas.


def test_each_replicas_own_part_on_mirrored_replicas(tmp_path, mirrored):
    """The local gradients of the first step, from plain Keras on each replica's examples."""
    replication = mirrored(2)
    train(tmp_path, data=checks.dataset(8), replication=replication)
    ((_, step, found),) = rows(tmp_path, metadata.REPLICAS)
    (part,) = parts(tmp_path, metadata.REPLICAS)
    assert step == 1
    assert part.columns == ("gradient_norm", "loss", "step_seconds", "wait_seconds")
    assert part.replicas == 2
    x, y = checks.data(8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for replica, own in enumerate(found):
        keras.utils.set_random_seed(0)
        model = checks.build()
        half = slice(4 * replica, 4 * replica + 4)
        with tf.GradientTape() as tape:
            value = loss(y[half], model(x[half]))
        gradients = tape.gradient(value, model.trainable_variables)
        np.testing.assert_allclose(own[:2], [tf.linalg.global_norm(gradients), value], rtol=1e-5)
        assert own[2] > 0
        assert own[3] >= 0


def test_local_norms_of_each_variable_on_request(tmp_path, mirrored):
    telemetry = disttrain.Telemetry(every=1, per_replica="variables", include="*kernel")
    train(tmp_path, telemetry=telemetry, replication=mirrored(2), build=named, loss_scale=64.0)
    (part,) = parts(tmp_path, metadata.REPLICAS)
    assert part.columns[4:] == (
        "gradient_norm/net/hidden/kernel",
        "gradient_norm/net/logits/kernel",
    )
    found = np.stack([a for _, _, a in rows(tmp_path, metadata.REPLICAS)])
    both = np.sqrt((found[..., 4:] ** 2).sum(axis=-1))
    assert (both > 0).all()
    # Together with the biases they make up the whole.
    assert (both <= found[..., 0] * (1 + 1e-5)).all()
    assert (both > 0.5 * found[..., 0]).all()


def test_without_replicas_there_is_no_such_tag(tmp_path, mirrored):
    train(
        tmp_path,
        telemetry=disttrain.Telemetry(every=1, per_replica=False),
        replication=mirrored(2),
    )
    assert rows(tmp_path, metadata.REPLICAS) == []
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert np.isnan(quantity(tmp_path, "noise_scale")).all()


def test_the_noise_scale_follows_from_the_recorded_norms(tmp_path, mirrored):
    train(tmp_path, replication=mirrored(2), epochs=3, optimizer=keras.optimizers.SGD(0.01))
    found = quantity(tmp_path, "noise_scale")
    local = np.stack([a[:, 0] for _, _, a in rows(tmp_path, metadata.REPLICAS)])
    whole = np.asarray(quantity(tmp_path, "gradient_norm"))
    estimator = NoiseScale()
    expected = [estimator.update(n, [4, 4], g, 8) for n, g in zip(local, whole, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.isfinite(found).any()


def test_one_replica_has_no_noise_scale(tmp_path):
    train(tmp_path)
    assert np.isnan(quantity(tmp_path, "noise_scale")).all()
    assert [a.shape for _, _, a in rows(tmp_path, metadata.REPLICAS)] == [(1, 4)] * 6


def test_weights_that_differ_between_replicas_stop_the_training(tmp_path, mirrored):
    replication = mirrored(2)

    class Meddle(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                kernel = self.model.trainable_variables[2].value
                kernel.values[1].assign(kernel.values[0] * 1.5)

    made = disttrain.Trainer(
        named,
        optimizer="sgd",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        replication=replication,
        telemetry=disttrain.Telemetry(divergence_every=4),
    )
    with pytest.raises(RuntimeError, match="after step 4: 'net/logits/kernel' on replica 1"):
        made.fit(checks.dataset(48), callbacks=[Meddle()], verbose=0)


# The ends of a run.


def test_what_was_recorded_before_an_error_is_written(tmp_path):
    x, y = checks.data(48)
    x[16:] = np.nan
    made = checks.trainer(
        "single",
        optimizer=disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1), max_skipped=3),
        telemetry=disttrain.Telemetry(every=100),
        logdir=str(tmp_path),
    )
    with pytest.raises(RuntimeError, match="3 steps in a row"):
        made.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(8), verbose=0)
    assert steps(tmp_path)[:3] == [1, 3, 4]
    assert (columns(tmp_path, "nonfinite")[1:3, 0] > 0).all()


def test_more_skipped_steps_than_fit_are_counted_and_displace_nothing(tmp_path):
    x, y = checks.data(8 * 60)
    x[8:] = np.nan
    made = checks.trainer(
        "single",
        telemetry=disttrain.Telemetry(every=50),
        logdir=str(tmp_path),
        steps_per_execution=60,
    )
    made.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(8), verbose=0)
    found = steps(tmp_path)
    assert found[0] == 1
    assert {50, 60} <= set(found)
    assert len(found) == 3 + 16
    assert sum(quantity(tmp_path, "skipped")) == 59


def test_the_last_step_is_recorded_although_no_interval_meets_it(tmp_path):
    train(tmp_path, telemetry=disttrain.Telemetry(every=5), epochs=3)
    assert steps(tmp_path) == [1, 5, 10, 15, 18]


def test_a_long_run_is_thinned_to_its_budget_and_keeps_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("disttrain.telemetry.recording._HISTOGRAMS", 0.5)
    made = disttrain.Trainer(
        checks.build,
        optimizer="sgd",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        replication="single",
        telemetry=disttrain.Telemetry(every=1, histograms_every=1, budget=2**20),
        logdir=str(tmp_path),
        steps_per_execution=50,
    )
    made.fit(checks.dataset(48).repeat(), epochs=8, steps_per_epoch=1000, verbose=0)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size <= 2**20
    found = steps(tmp_path)
    assert found[:20] == list(range(1, 21))
    assert found[-1] == 8000
    assert 100 < len(found) < 4000
    counted = steps(tmp_path, metadata.HISTOGRAMS)
    assert counted[0] == 1
    assert counted[-1] == 8000
    assert len(counted) < len(found)


def test_a_step_gets_one_input_more(tmp_path):
    """Each input of a graph takes its time at every step, recorded or not."""

    def inputs(**options):
        made = train(**options)
        (graph,) = made._train_step.execute._list_all_concrete_functions()
        return len(graph.captured_inputs)

    assert inputs(logdir=tmp_path) - inputs(logdir=None, telemetry=None) <= 1


def test_slots_say_what_memory_they_take(tmp_path):
    train(tmp_path, optimizer=keras.optimizers.Adam(1e-3, amsgrad=True))
    slots = parts(tmp_path)[0].variables[0]["slots"]
    assert json.loads(json.dumps(slots)) == {
        name: {"dtype": "float32", "bytes": 6 * 16 * 4}
        for name in ("momentum", "velocity", "velocity_hat")
    }

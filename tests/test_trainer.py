"""`Trainer` against plain Keras on one device, and what it says about arguments that are wrong."""

import importlib.util
import json
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain import replication as replication_module

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 4)).astype(np.float32)
Y = RNG.normal(size=(10, 3)).astype(np.float32)
LABELS = RNG.integers(0, 3, 10)
HITS = RNG.integers(0, 2, (10, 1)).astype(np.float32)
WEIGHTS = RNG.uniform(0.2, 3, 10).astype(np.float32)
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dense():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def one_weight():
    return keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )


def sgd(rate=0.1, **options):
    return keras.optimizers.SGD(rate, **options)


def batches(*arrays, size=4):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def trainer_of(build=dense, **options):
    defaults = {"optimizer": sgd(), "loss": CROSSENTROPY, "replication": "single"}
    return disttrain.Trainer(build, **{**defaults, **options})


def compiled(build=dense, **options):
    """The same model by Keras on one device."""
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(**{"optimizer": sgd(), "loss": CROSSENTROPY, "jit_compile": False, **options})
    return model


def assert_same_weights(ours, theirs):
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


def assert_same_numbers(ours, theirs):
    assert set(ours) == set(theirs)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], err_msg=name, **CLOSE)


@pytest.fixture(params=[1, 2, 3], ids="{} replicas".format)
def replication(request, mirrored):
    """One replica, two, and three whose last part of 10 examples in batches of 4 is uneven."""
    return "single" if request.param == 1 else mirrored(request.param)


@pytest.fixture(params=[1, 2], ids="{} replicas".format)
def one_or_two(request, mirrored):
    return "single" if request.param == 1 else mirrored(2)


# What goes in and comes out


class TestInputsAndOutputs:
    """Structures of inputs and outputs, data sets and arrays."""

    @staticmethod
    def two_inputs(structure):
        def build():
            a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
            x = keras.layers.Concatenate()([a, b])
            outputs = {"p": keras.layers.Dense(3)(x), "q": keras.layers.Dense(2)(x)}
            return keras.Model(structure(a, b), outputs)

        return build

    @pytest.mark.parametrize(
        "structure",
        [lambda a, b: {"a": a, "b": b}, lambda a, b: (a, b), lambda a, b: [a, b]],
        ids=["dictionary", "tuple", "list"],
    )
    def test_structures_of_inputs_train_and_predict_as_in_keras(self, structure, one_or_two):
        # Double precision and int64 come from NumPy by default.
        x = structure(X.astype(np.float64), LABELS[:, None] + np.arange(3))
        y = {"p": Y.astype(np.float64), "q": Y[:, :2]}
        loss = {"p": "mse", "q": "mae"}
        model = compiled(self.two_inputs(structure), loss=loss)
        model.fit(x, y, batch_size=3, shuffle=False, verbose=0)
        trainer = trainer_of(self.two_inputs(structure), loss=loss, replication=one_or_two)
        trainer.fit(x, y, batch_size=3, shuffle=False, verbose=0)
        assert_same_weights(trainer.model, model)

        theirs = model.predict(x, verbose=0)
        ours = trainer.predict(x, batch_size=3)
        assert isinstance(ours["p"], np.ndarray)
        assert_same_numbers(ours, theirs)

    def test_predictions_come_in_the_order_of_the_examples(self, replication):
        trainer = trainer_of(one_weight, loss="mse", replication=replication)
        trainer.predict(np.zeros([1, 1], np.float32))
        trainer.model.set_weights([np.ones([1, 1])])
        x = np.arange(10, dtype=np.float32)[:, None]
        for size in (1, 3, 4, 10):
            np.testing.assert_array_equal(trainer.predict(x, batch_size=size), x)
        np.testing.assert_array_equal(trainer.predict(batches(x, x, size=4)), x)
        np.testing.assert_array_equal(trainer.predict(batches(x, size=4), steps=2), x[:8])

    def test_a_model_with_a_list_of_outputs_predicts_a_list(self):
        def build():
            x = keras.Input((4,))
            return keras.Model(x, [keras.layers.Dense(3)(x), keras.layers.Dense(2)(x)])

        outputs = trainer_of(build, loss=["mse", "mse"]).predict(X)
        assert [output.shape for output in outputs] == [(10, 3), (10, 2)]

    def test_a_function_of_an_input_context_trains_like_its_dataset(self, one_or_two):
        contexts = []

        def function(context):
            contexts.append(context)
            return batches(X, LABELS, size=context.get_per_replica_batch_size(3))

        trainer = trainer_of(replication=one_or_two)
        trainer.fit(function, epochs=2, verbose=0)
        model = compiled()
        model.fit(batches(X, LABELS, size=3), epochs=2, shuffle=False, verbose=0)
        assert_same_weights(trainer.model, model)
        assert contexts[0].num_input_pipelines == 1

    def test_predict_refuses_a_function_of_an_input_context(self):
        with pytest.raises(ValueError, match=r"order of the examples.*InputContext"):
            trainer_of().predict(lambda context: batches(X))

    def test_a_batch_of_fixed_size_that_the_replicas_do_not_divide(self, mirrored):
        fixed = tf.data.Dataset.from_tensor_slices((X, LABELS)).batch(4, drop_remainder=True)
        trainer = trainer_of(replication=mirrored(3))
        trainer.fit(fixed, epochs=2, verbose=0)
        model = compiled()
        model.fit(fixed, epochs=2, shuffle=False, verbose=0)
        assert_same_weights(trainer.model, model)


# The loop


class TestLoop:
    """Steps, epochs, validation and order."""

    def test_steps_per_execution_changes_no_number(self, replication):
        trainer = trainer_of(replication=replication, metrics=["accuracy"], steps_per_execution=3)
        history = trainer.fit(batches(X, LABELS, size=3), epochs=2, verbose=0).history
        model = compiled(metrics=["accuracy"])
        expected = model.fit(batches(X, LABELS, size=3), epochs=2, shuffle=False, verbose=0).history
        assert_same_weights(trainer.model, model)
        assert_same_numbers(history, expected)
        assert int(trainer.optimizer.iterations.numpy()) == 8

    @pytest.mark.parametrize("several", [1, 3])
    def test_steps_per_epoch_goes_on_in_the_dataset(self, several):
        trainer = trainer_of(steps_per_execution=several)
        trainer.fit(batches(X, LABELS).repeat(), steps_per_epoch=2, epochs=2, verbose=0)
        straight = trainer_of()
        straight.fit(batches(X, LABELS).repeat().take(4), verbose=0)
        assert_same_weights(trainer.model, straight.model)

    def test_steps_per_epoch_starts_a_finite_dataset_again_where_it_ends(self):
        trainer = trainer_of()
        trainer.fit(batches(X, LABELS), steps_per_epoch=5, verbose=0)
        assert int(trainer.optimizer.iterations.numpy()) == 5

    def test_a_dataset_of_unknown_length_ends_when_it_ends(self, one_or_two):
        unknown = batches(X, LABELS).filter(lambda x, y: True)
        trainer = trainer_of(replication=one_or_two, steps_per_execution=2)
        trainer.fit(unknown, epochs=2, verbose=0)
        assert int(trainer.optimizer.iterations.numpy()) == 6

    def test_shuffled_arrays_come_in_the_same_order_for_the_same_seed(self, mirrored):
        def weights(seed, replication="single", epochs=2):
            trainer = trainer_of(one_weight, loss="mse", replication=replication, seed=seed)
            trainer.fit(X[:, :1], Y[:, :1], batch_size=3, epochs=epochs, verbose=0)
            return trainer.model.get_weights()[0].item()

        assert weights(1) == weights(1)
        assert weights(1) == pytest.approx(weights(1, mirrored(2)), rel=1e-5)
        assert weights(1) != pytest.approx(weights(2), rel=1e-4)

    def test_validation_split_keeps_the_end_of_the_arrays(self):
        trainer = trainer_of(metrics=["accuracy"])
        history = trainer.fit(
            X,
            LABELS,
            sample_weight=WEIGHTS,
            batch_size=3,
            epochs=2,
            shuffle=False,
            validation_split=0.25,
            verbose=0,
        ).history
        model = compiled(metrics=["accuracy"])
        expected = model.fit(
            X,
            LABELS,
            sample_weight=WEIGHTS,
            batch_size=3,
            epochs=2,
            shuffle=False,
            validation_split=0.25,
            verbose=0,
        ).history
        assert_same_numbers(history, expected)

    @pytest.mark.parametrize(("frequency", "epochs"), [(2, [1, 3]), ([1, 4], [0, 3])])
    def test_validation_freq_chooses_the_epochs(self, frequency, epochs):
        seen = []
        notice = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(epoch) if "val_loss" in logs else None
        )
        trainer_of().fit(
            batches(X, LABELS),
            epochs=4,
            validation_data=(X, LABELS),
            validation_freq=frequency,
            validation_steps=1,
            callbacks=notice,
            verbose=0,
        )
        assert seen == epochs

    def test_validation_does_not_train_and_may_be_a_dataset_or_arrays(self, one_or_two):
        trainer = trainer_of(replication=one_or_two)
        data = {"validation_data": batches(X[:7], LABELS[:7], WEIGHTS[:7])}
        history = trainer.fit(batches(X, LABELS), epochs=1, verbose=0, **data).history
        arrays = trainer.evaluate(X[:7], LABELS[:7], sample_weight=WEIGHTS[:7], batch_size=7)
        np.testing.assert_allclose(history["val_loss"], arrays["loss"], **CLOSE)

    def test_initial_epoch_is_where_the_count_begins(self):
        trainer = trainer_of()
        history = trainer.fit(batches(X, LABELS), initial_epoch=3, epochs=5, verbose=0)
        assert history.epoch == [3, 4]
        assert int(trainer.optimizer.iterations.numpy()) == 6

    def test_two_fits_go_on_and_do_not_start_again(self, one_or_two):
        def adam():
            return keras.optimizers.Adam(0.05)

        trainer = trainer_of(optimizer=adam(), replication=one_or_two)
        for _ in range(2):
            trainer.fit(batches(X, LABELS), verbose=0)
        model = compiled(optimizer=adam())
        model.fit(batches(X, LABELS), epochs=2, shuffle=False, verbose=0)
        assert_same_weights(trainer.model, model)
        assert int(trainer.optimizer.iterations.numpy()) == 6

    def test_a_second_fit_may_bring_another_shape_of_data(self):
        trainer = trainer_of()
        trainer.fit(batches(X, LABELS), verbose=0)
        trainer.fit(batches(X, LABELS, WEIGHTS, size=5), verbose=0)
        assert int(trainer.optimizer.iterations.numpy()) == 5

    def test_what_was_traced_once_is_not_traced_again(self):
        traced = []

        class Noting(keras.layers.Layer):
            def call(self, x):
                traced.append(len(traced))
                return x

        def build():
            return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Noting()])

        trainer = trainer_of(build)
        seen = []
        for _ in range(3):
            trainer.fit(X, LABELS, batch_size=3, validation_data=(X, LABELS), verbose=0)
            trainer.evaluate(X, LABELS, batch_size=3)
            trainer.predict(X, batch_size=3)
            seen.append(len(traced))
        assert seen[0] == seen[1] == seen[2]

    def test_an_evaluation_before_the_first_fit_builds_the_model(self, one_or_two):
        trainer = trainer_of(replication=one_or_two, metrics=["accuracy"])
        model = compiled(metrics=["accuracy"])
        expected = model.evaluate(X, LABELS, batch_size=3, verbose=0, return_dict=True)
        assert_same_numbers(trainer.evaluate(X, LABELS, batch_size=3), expected)
        trainer.fit(batches(X, LABELS), verbose=0)
        model.fit(batches(X, LABELS), shuffle=False, verbose=0)
        assert_same_weights(trainer.model, model)

    def test_a_learning_rate_schedule_counts_applied_steps_only(self, one_or_two):
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [1.0, 0.1, 0.01])
        x = np.ones([6, 2, 1], np.float32)
        x[2, 1] = np.nan  # The third batch of 2: with two replicas on the second one alone.
        data = tf.data.Dataset.from_tensor_slices((x, np.ones([6, 2, 1], np.float32)))

        def mean_of_output(y_true, y_pred):
            return -keras.ops.mean(y_pred, axis=-1)

        trainer = trainer_of(
            one_weight, optimizer=sgd(schedule), loss=mean_of_output, replication=one_or_two
        )
        trainer.fit(data, verbose=0)
        # 1 at the first two steps, 0.1 at the third one that is applied, 0.01 at the others.
        assert int(trainer.optimizer.iterations.numpy()) == 5
        np.testing.assert_allclose(trainer.model.get_weights()[0], [[2.12]], rtol=1e-6)

    def test_switching_the_optimizer_keeps_the_weights_and_trains_on(self, one_or_two):
        trainer = trainer_of(replication=one_or_two)
        trainer.fit(batches(X, LABELS), verbose=0)
        weights = trainer.model.get_weights()
        trainer.switch_optimizer(keras.optimizers.SGD(0.05, momentum=0.9))
        for before, after in zip(weights, trainer.model.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)
        trainer.fit(batches(X, LABELS), epochs=2, verbose=0)

        model = compiled()
        model.fit(batches(X, LABELS), shuffle=False, verbose=0)
        model.compile(
            optimizer=keras.optimizers.SGD(0.05, momentum=0.9), loss=CROSSENTROPY, jit_compile=False
        )
        model.fit(batches(X, LABELS), epochs=2, shuffle=False, verbose=0)
        assert_same_weights(trainer.model, model)
        assert trainer.model.optimizer is trainer.optimizer

    def test_the_clip_stays_when_the_optimizer_is_switched(self):
        trainer = trainer_of(clip=disttrain.ClipByValue(1.0), loss_scale=4.0)
        trainer.switch_optimizer("adam")
        assert trainer.optimizer.clip == disttrain.ClipByValue(1.0)
        assert trainer.optimizer.loss_scale.initial == 4.0


# Layers


class TestLayers:
    """Layers whose state or randomness belongs to a replica."""

    @staticmethod
    def normalised():
        return keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.BatchNormalization(momentum=0.5),
                keras.layers.Dense(3),
            ]
        )

    @staticmethod
    def moving(batches_of_a_replica):
        mean, variance = np.zeros(4), np.ones(4)
        for batch in batches_of_a_replica:
            mean = mean * 0.5 + batch.mean(axis=0) * 0.5
            variance = variance * 0.5 + batch.var(axis=0) * 0.5
        return mean, variance

    def test_moving_statistics_are_the_mean_over_replicas(self, mirrored):
        trainer = trainer_of(self.normalised, optimizer=sgd(0.0), replication=mirrored(2))
        trainer.fit(batches(X, LABELS), verbose=0)
        replicas = [
            self.moving([X[0:2], X[4:6], X[8:9]]),
            self.moving([X[2:4], X[6:8], X[9:10]]),
        ]
        layer = trainer.model.layers[0]
        mean, variance = np.mean(replicas, axis=0)
        np.testing.assert_allclose(layer.moving_mean, mean, **CLOSE)
        np.testing.assert_allclose(layer.moving_variance, variance, **CLOSE)

    def test_a_replica_without_examples_leaves_its_moving_statistics_alone(self, mirrored):
        trainer = trainer_of(self.normalised, optimizer=sgd(0.0), replication=mirrored(2))
        trainer.fit(batches(X[:5], LABELS[:5]), verbose=0)
        replicas = [self.moving([X[0:2]]), self.moving([X[2:4], X[4:5]])]
        layer = trainer.model.layers[0]
        mean, variance = np.mean(replicas, axis=0)
        np.testing.assert_allclose(layer.moving_mean, mean, **CLOSE)
        np.testing.assert_allclose(layer.moving_variance, variance, **CLOSE)

    def test_every_replica_starts_the_next_epoch_from_the_mean(self, mirrored):
        trainer = trainer_of(self.normalised, optimizer=sgd(0.0), replication=mirrored(2))
        trainer.fit(batches(X[:4], LABELS[:4]), verbose=0)
        variable = trainer.model.layers[0].moving_mean.value
        first, second = trainer.replication.strategy.experimental_local_results(variable)
        np.testing.assert_array_equal(first, second)

    def test_replicas_drop_different_units(self, mirrored):
        def build():
            return keras.Sequential(
                [
                    keras.Input((64,)),
                    keras.layers.Dropout(0.5),
                    keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros"),
                ]
            )

        # Each replica has one of two equal examples; the gradient shows which units it kept.
        trainer = trainer_of(
            build,
            optimizer=sgd(1.0),
            loss=lambda y_true, y_pred: -y_pred[:, 0],
            replication=mirrored(2),
        )
        trainer.fit(batches(np.ones([2, 64], np.float32), np.zeros([2, 1]), size=2), verbose=0)
        kept_by = trainer.model.get_weights()[0].ravel()
        assert set(np.round(kept_by, 5)) == {0.0, 1.0, 2.0}

    def test_dropout_is_off_in_evaluation(self):
        def build():
            return keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5)])

        trainer = trainer_of(build, loss="mse")
        np.testing.assert_array_equal(trainer.predict(X), X)
        assert trainer.evaluate(X, X)["loss"] == 0


# Metrics

METRICS = {
    "names": lambda: ["accuracy"],
    "objects": lambda: [
        keras.metrics.SparseCategoricalAccuracy(),
        keras.metrics.SparseTopKCategoricalAccuracy(2, name="top"),
    ],
    "a function of the arguments": lambda: [lambda y_true, y_pred: keras.ops.max(y_pred, axis=-1)],
}


class TestMetrics:
    """Metrics are those of one device over all examples."""

    @pytest.mark.parametrize("case", METRICS)
    def test_metrics_are_exact_over_uneven_replicas(self, case, replication):
        make = METRICS[case]
        trainer = trainer_of(metrics=make(), replication=replication)
        data = batches(X, LABELS, WEIGHTS)
        history = trainer.fit(data, epochs=2, validation_data=data, verbose=0).history
        model = compiled(metrics=make())
        expected = model.fit(data, epochs=2, validation_data=data, shuffle=False, verbose=0).history
        assert_same_numbers(history, expected)

    def test_the_area_under_the_curve_is_that_of_all_examples(self, replication):
        def build():
            return keras.Sequential(
                [keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")]
            )

        trainer = trainer_of(
            build, loss="binary_crossentropy", metrics=["auc"], replication=replication
        )
        history = trainer.fit(batches(X, HITS), epochs=2, verbose=0).history
        model = compiled(build, loss="binary_crossentropy", metrics=["auc"])
        expected = model.fit(batches(X, HITS), epochs=2, shuffle=False, verbose=0).history
        assert_same_numbers(history, expected)
        assert_same_numbers(
            trainer.evaluate(batches(X, HITS)),
            model.evaluate(batches(X, HITS), verbose=0, return_dict=True),
        )

    def test_metrics_of_each_output(self, one_or_two):
        def build():
            x = keras.Input((4,))
            return keras.Model(
                x,
                {
                    "number": keras.layers.Dense(3, name="number")(x),
                    "kind": keras.layers.Dense(3, name="kind")(x),
                },
            )

        def options():
            return {
                "loss": {"number": "mse", "kind": CROSSENTROPY},
                "metrics": {"number": ["mae"], "kind": ["accuracy"]},
            }

        data = batches(X, {"number": Y, "kind": LABELS}, size=5)
        trainer = trainer_of(build, replication=one_or_two, **options())
        history = trainer.fit(data, epochs=2, verbose=0).history
        model = compiled(build, **options())
        assert_same_numbers(history, model.fit(data, epochs=2, shuffle=False, verbose=0).history)

    def test_a_function_makes_the_metrics_in_the_scope(self, one_or_two):
        made = []

        def metrics():
            made.append(tf.distribute.has_strategy())
            return [keras.metrics.SparseCategoricalAccuracy("hits")]

        trainer = trainer_of(metrics=metrics, replication=one_or_two)
        assert "hits" in trainer.fit(batches(X, LABELS), verbose=0).history
        assert made == [one_or_two != "single"]

    def test_an_evaluation_in_between_does_not_disturb_the_numbers_of_an_epoch(self):
        trainer = trainer_of(metrics=["accuracy"])
        first = trainer.evaluate(X, LABELS)
        trainer.fit(batches(X, LABELS), epochs=1, validation_data=(X[:3], LABELS[:3]), verbose=0)
        trainer.switch_optimizer(sgd(0.0))
        again = trainer.evaluate(X, LABELS)
        assert again == trainer.evaluate(X, LABELS)
        assert again != first


# Precision, compilation, loss scale and clip


class TestPrecisionAndCompilation:
    def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights(self, one_or_two):
        trainer = trainer_of(precision="mixed_bfloat16", replication=one_or_two)
        history = trainer.fit(batches(X, LABELS), epochs=3, verbose=0).history
        assert trainer.model.layers[0].compute_dtype == "bfloat16"
        assert trainer.model.layers[0].kernel.dtype == "float32"
        assert trainer.optimizer.loss_scale is None
        assert history["loss"][-1] < history["loss"][0]
        assert keras.config.dtype_policy().name == "float32"

    def test_float16_comes_with_a_dynamic_loss_scale(self, one_or_two):
        trainer = trainer_of(precision="mixed_float16", replication=one_or_two)
        trainer.fit(batches(X, LABELS), epochs=2, verbose=0)
        assert isinstance(trainer.optimizer.loss_scale, disttrain.DynamicLossScale)
        assert float(trainer.optimizer.current_loss_scale()) == 2.0**15
        model = compiled()
        model.fit(batches(X, LABELS), epochs=2, shuffle=False, verbose=0)
        for ours, theirs in zip(trainer.model.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-2, atol=2e-3)

    def test_a_loss_scale_of_one_s_own_replaces_the_dynamic_one(self):
        assert (
            trainer_of(precision="mixed_float16", loss_scale=8.0).optimizer.loss_scale.initial == 8
        )
        own = keras.optimizers.SGD(0.1, loss_scale_factor=4.0)
        trainer = trainer_of(precision="mixed_float16", optimizer=own)
        assert trainer.optimizer.loss_scale.initial == 4.0

    @pytest.mark.parametrize("loss_scale", [1024.0, "dynamic"])
    def test_a_loss_scale_changes_no_weight(self, loss_scale, one_or_two):
        trainer = trainer_of(loss_scale=loss_scale, replication=one_or_two)
        trainer.fit(batches(X, LABELS), epochs=2, verbose=0)
        model = compiled()
        model.fit(batches(X, LABELS), epochs=2, shuffle=False, verbose=0)
        assert_same_weights(trainer.model, model)

    def test_compiled_steps_make_the_same_weights(self):
        trainer = trainer_of(jit_compile=True, metrics=["accuracy"])
        trainer.fit(batches(X, LABELS), epochs=2, verbose=0)
        model = compiled()
        model.fit(batches(X, LABELS), epochs=2, shuffle=False, verbose=0)
        assert_same_weights(trainer.model, model)

    def test_the_clip_acts_on_the_gradient_of_the_global_batch(self, one_or_two):
        options = {"optimizer": sgd(1.0), "clip": disttrain.ClipByGlobalNorm(0.05)}
        trainer = trainer_of(replication=one_or_two, **options)
        trainer.fit(batches(X, LABELS), epochs=2, verbose=0)
        model = compiled(optimizer=sgd(1.0, global_clipnorm=0.05))
        model.fit(batches(X, LABELS), epochs=2, shuffle=False, verbose=0)
        assert_same_weights(trainer.model, model)

    @pytest.mark.parametrize("name", ["clipnorm", "global_clipnorm", "clipvalue"])
    def test_a_clip_of_the_optimizer_is_taken_over_and_acts_after_the_sum(self, name, mirrored):
        # Outputs of 10 and -2: a clip of each replica's gradient at 1 would cancel them.
        x = np.asarray([[10.0], [-2.0]], np.float32)
        optimizer = sgd(1.0, **{name: 1.0})
        trainer = trainer_of(
            one_weight,
            optimizer=optimizer,
            loss=lambda y_true, y_pred: y_pred[:, 0],
            replication=mirrored(2),
        )
        trainer.fit(batches(x, x, size=2), verbose=0)
        assert getattr(trainer.optimizer.inner, name) is None
        assert trainer.optimizer.clip.limit == 1.0
        np.testing.assert_allclose(trainer.model.get_weights()[0], [[-1.0]], rtol=1e-6)


def test_replications_of_different_sizes_follow_each_other_in_one_process(mirrored):
    for replicas in (2, 3, 2, 4):
        trainer = trainer_of(replication=mirrored(replicas))
        trainer.fit(batches(X, LABELS), verbose=0)
        assert trainer.replication.replicas == replicas


# Wrong arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"replication": "mirorred"}, ValueError, r"mirorred.*'mirrored'"),
        ({"replication": 3}, TypeError, r"replication must be.*not 3"),
        ({"loss": None}, ValueError, r"give a loss"),
        ({"loss": 3}, (TypeError, ValueError), r"loss.*3"),
        ({"steps_per_execution": 0}, ValueError, r"steps_per_execution.*not 0"),
        ({"steps_per_execution": 1.5}, ValueError, r"steps_per_execution.*1\.5"),
        ({"jit_compile": "yes"}, ValueError, r"jit_compile.*'yes'"),
        ({"telemetry": 10}, TypeError, r"disttrain\.Telemetry.*10"),
        ({"optimizer": 0.1}, TypeError, r"keras\.optimizers\.Optimizer.*0\.1"),
        ({"optimizer": "adman"}, ValueError, r"adman"),
        ({"clip": 1.0}, TypeError, r"ClipByGlobalNorm.*1\.0"),
        ({"loss_scale": 0}, ValueError, r"loss scale.*0"),
        ({"loss_scale": "dynamite"}, ValueError, r"dynamite"),
        ({"precision": "mixed_float17"}, ValueError, r"mixed_float17"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_argument_is_named(options, error, message):
    with pytest.raises(error, match=message):
        trainer_of(**options).fit(batches(X, LABELS), verbose=0)


@pytest.mark.parametrize(
    ("own", "given", "message"),
    [
        ({"clipnorm": 1.0}, {"clip": disttrain.ClipByValue(2.0)}, r"clipnorm=1\.0.*ClipByValue"),
        ({"global_clipnorm": 1.0}, {"clip": disttrain.ClipByNorm(2.0)}, r"global_clipnorm=1\.0"),
        ({"clipvalue": 1.0}, {"clip": disttrain.ClipByNorm(2.0)}, r"clipvalue=1\.0"),
        ({"loss_scale_factor": 8.0}, {"loss_scale": 4.0}, r"loss_scale_factor=8\.0.*4\.0"),
        (
            {"gradient_accumulation_steps": 2},
            {"accumulate_steps": 3},
            r"gradient_accumulation_steps=2.*accumulate_steps=3",
        ),
    ],
)
def test_an_optimizer_that_does_the_same_as_the_trainer_is_refused(own, given, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(optimizer=sgd(**own), **given)


def test_a_distributed_optimizer_brings_its_own_clip():
    own = disttrain.DistributedOptimizer(sgd(), clip=disttrain.ClipByNorm(1.0))
    assert trainer_of(optimizer=own).optimizer.clip == disttrain.ClipByNorm(1.0)
    with pytest.raises(ValueError, match=r"is a DistributedOptimizer.*clip.*not to the trainer"):
        trainer_of(optimizer=own, clip=disttrain.ClipByNorm(1.0))


def test_a_loss_scale_optimizer_is_unwrapped(one_or_two):
    own = keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=64.0)
    trainer = trainer_of(optimizer=own, replication=one_or_two)
    trainer.fit(batches(X, LABELS), verbose=0)
    assert isinstance(trainer.optimizer.inner, keras.optimizers.SGD)
    assert float(trainer.optimizer.current_loss_scale()) == 64.0
    model = compiled()
    model.fit(batches(X, LABELS), shuffle=False, verbose=0)
    assert_same_weights(trainer.model, model)


def test_an_optimizer_built_outside_of_the_scope_is_refused(mirrored):
    optimizer = sgd()
    optimizer.build(dense().trainable_variables)
    with pytest.raises(ValueError, match=r"built its slots outside.*replication\.scope"):
        trainer_of(optimizer=optimizer, replication=mirrored(2))


def test_an_optimizer_made_outside_of_the_scope_is_brought_in_with_its_settings(mirrored):
    trainer = trainer_of(optimizer=sgd(0.25, momentum=0.5, nesterov=True), replication=mirrored(2))
    inner = trainer.optimizer.inner
    assert (float(inner.learning_rate.numpy()), inner.momentum, inner.nesterov) == (0.25, 0.5, True)


def test_compiled_steps_need_one_replica_a_process(mirrored):
    with pytest.raises(ValueError, match=r"jit_compile=True needs one replica a process"):
        trainer_of(jit_compile=True, replication=mirrored(2))


class OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        ("model", TypeError, r"function that returns a keras\.Model.*'model'"),
        (lambda: 7, TypeError, r"must return a keras\.Model, not int"),
        (OwnStep, ValueError, r"OwnStep overrides train_step.*DistributedOptimizer.*Model\.fit"),
    ],
)
def test_what_builds_no_model_that_can_be_trained_is_named(build, error, message):
    with pytest.raises(error, match=message):
        trainer_of(build)


def test_a_model_instead_of_a_function_is_refused():
    with pytest.raises(TypeError, match=r"build_model must be a function that returns a keras"):
        trainer_of(dense())


def test_horovod_that_is_not_installed_says_how_to_install_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "horovod" else find(name, *a)
    )
    with pytest.raises(RuntimeError, match=r"not installed.*launch/setup\.sh"):
        trainer_of(replication="horovod")


WORKERS = ["host1:2222", "host2:2222"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("not json", r"is not JSON"),
        ("[]", r"lacks cluster\.worker"),
        ({"task": {"type": "worker", "index": 0}}, r"lacks cluster\.worker"),
        ({"cluster": {"worker": WORKERS}}, r"lacks task\.type"),
        ({"cluster": {"worker": WORKERS}, "task": {"type": "worker"}}, r"lacks task\.index"),
        ({"cluster": {"worker": WORKERS}, "task": {"index": 0}}, r"lacks task\.type"),
        (
            {"cluster": {"worker": WORKERS}, "task": {"type": "worker", "index": 2}},
            r"task index 2, outside of 0 to 1",
        ),
        (
            {"cluster": {"worker": WORKERS}, "task": {"type": "worker", "index": -1}},
            r"task index -1",
        ),
        (
            {"cluster": {"worker": WORKERS}, "task": {"type": "wroker", "index": 0}},
            r"task type 'wroker'",
        ),
        (
            {"cluster": {"worker": WORKERS[:1] * 2}, "task": {"type": "worker", "index": 0}},
            r"names one host:port twice",
        ),
    ],
)
@pytest.mark.parametrize("asked", ["multi_worker", "auto"])
def test_a_wrong_tf_config_is_shown(config, message, asked, monkeypatch):
    text = config if isinstance(config, str) else json.dumps(config)
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message) as caught:
        replication_module.resolve(asked)
    assert repr(text) in str(caught.value), "the value is shown"
    assert '"cluster": {"worker": ["host1:2222"' in str(caught.value), "so is a right one"


def test_multi_worker_without_a_tf_config_says_what_one_looks_like(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=r"needs the environment variable TF_CONFIG.*cluster"):
        replication_module.resolve("multi_worker")


def test_a_tf_config_of_one_worker_is_a_single_process(monkeypatch):
    config = {"cluster": {"worker": WORKERS[:1]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert replication_module.resolve("auto").name == "single"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tf.data.Dataset.from_tensor_slices, r"not batched.*dataset\.batch"),
        (
            lambda arrays: tf.data.Dataset.from_tensor_slices(arrays).batch(2, drop_remainder=True),
            r"global batch of 2 is smaller.*replicas \(3\)",
        ),
        (
            lambda arrays: tf.data.Dataset.from_tensor_slices(arrays).batch(2),
            r"global batch is smaller.*replicas \(3\).*2",
        ),
        (
            lambda arrays: lambda context: tf.data.Dataset.from_tensor_slices(arrays).batch(2),
            r"global batch.*smaller.*replicas \(3\)",
        ),
    ],
    ids=["not batched", "static batch", "dynamic batch", "function"],
)
def test_data_that_cannot_be_split_are_named(data, message, mirrored):
    trainer = trainer_of(replication=mirrored(3))
    with pytest.raises(ValueError, match=message):
        trainer.fit(data((X, LABELS)), verbose=0)


def test_arrays_with_fewer_examples_than_replicas_are_named(mirrored):
    trainer = trainer_of(replication=mirrored(3))
    for arrays, options in (((X[:2], LABELS[:2]), {}), ((X, LABELS), {"batch_size": 2})):
        with pytest.raises(ValueError, match=r"global batch of 2 is smaller.*replicas \(3\)"):
            trainer.fit(*arrays, verbose=0, **options)
    assert trainer.predict(X[:2]).shape == (2, 3), "only training needs every replica"


def batched():
    return batches(X, LABELS)


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (batched, {"validation_split": 0.5}, ValueError, r"validation_split.*arrays"),
        (X, {"y": LABELS, "validation_split": 1.5}, ValueError, r"between 0 and 1, not 1\.5"),
        (X, {"y": LABELS, "validation_split": 0.95}, ValueError, r"one side empty"),
        (
            X,
            {"y": LABELS, "validation_split": 0.5, "validation_data": (X, LABELS)},
            ValueError,
            r"not both",
        ),
        (X, {}, ValueError, r"no targets"),
        (lambda: batches(X), {}, ValueError, r"no targets"),
        (batched, {"callbacks": [print]}, TypeError, r"keras\.callbacks\.Callback"),
        (
            lambda: iter([(X, LABELS)]),
            {},
            TypeError,
            r"iterator is not supported.*tf\.data\.Dataset",
        ),
        (lambda: batched().filter(lambda x, y: False), {}, ValueError, r"gave no batch"),
    ],
)
def test_a_fit_that_cannot_be_done_says_why(x, options, error, message):
    with pytest.raises(error, match=message):
        trainer_of().fit(x() if callable(x) else x, verbose=0, **options)


def test_data_without_targets_are_named_by_fit_and_evaluate_at_any_time():
    trainer = trainer_of()
    for _ in range(2):
        with pytest.raises(ValueError, match="no targets"):
            trainer.evaluate(X)
        with pytest.raises(ValueError, match="no targets"):
            trainer.fit(batches(X), verbose=0)
        trainer.fit(batches(X, LABELS), verbose=0)


def test_a_dataset_that_turns_out_empty_is_named():
    empty = batches(X, LABELS).filter(lambda x, y: False)
    trainer = trainer_of()
    with pytest.raises(ValueError, match="gave no batch"):
        trainer.predict(empty)
    with pytest.raises(ValueError, match="gave no batch"):
        trainer.evaluate(empty)


class Above(keras.metrics.Mean):
    """Tells nobody how to make another one of it."""

    def __init__(self, limit):
        super().__init__(name="above")
        self.limit = limit


def test_a_metric_that_cannot_be_made_anew_in_the_scope_is_named(mirrored):
    with pytest.raises((TypeError, ValueError), match=r"Above.*function that returns"):
        trainer_of(metrics=[Above(3)], replication=mirrored(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": {"nothing": ["mae"]}}, r"metrics.*nothing"),
        ({"metrics": [["mae"]]}, r"metrics"),
        ({"metrics": ["accurracy"]}, r"accurracy"),
        ({"loss": {"nothing": "mse"}}, r"nothing.*'p', 'q'"),
        ({"loss": ["mse"]}, r"1 entries for the 2 outputs.*p.*q"),
    ],
    ids=str,
)
def test_structures_that_do_not_fit_the_outputs_are_named(options, message):
    def build():
        x = keras.Input((4,))
        return keras.Model(x, {"p": keras.layers.Dense(3)(x), "q": keras.layers.Dense(3)(x)})

    trainer = trainer_of(build, **{"loss": "mse", **options})
    with pytest.raises(ValueError, match=message):
        trainer.fit(X, {"p": Y, "q": Y}, verbose=0)


def test_an_epoch_whose_loss_is_never_finite_stops_the_training(one_or_two):
    x = np.full_like(X, np.nan)
    trainer = trainer_of(replication=one_or_two)
    trainer.fit(batches(X, LABELS), verbose=0)
    weights = trainer.model.get_weights()
    with pytest.raises(RuntimeError, match=r"NaN.*every one of the 3 steps of epoch 1.*clip="):
        trainer.fit(batches(x, LABELS), epochs=3, verbose=0)
    for before, after in zip(weights, trainer.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_nan_on_one_replica_skips_the_step_on_all(mirrored):
    x = X[:8].copy()
    x[7] = np.nan  # the second replica's last example of the second batch
    trainer = trainer_of(replication=mirrored(2))
    trainer.fit(batches(x, LABELS[:8]), verbose=0)
    assert int(trainer.optimizer.iterations.numpy()) == 1
    model = compiled()
    model.fit(batches(X[:4], LABELS[:4]), shuffle=False, verbose=0)
    assert_same_weights(trainer.model, model)


def test_a_log_directory_that_cannot_be_written_is_named_before_the_first_step(tmp_path):
    file = tmp_path / "taken"
    file.write_text("a file")
    with pytest.raises(RuntimeError, match=rf"{re.escape(str(file))}.*cannot be written"):
        trainer_of(logdir=file)
    with pytest.raises(RuntimeError, match=r"cannot be written"):
        trainer_of(logdir=file / "below")


def headed(used):
    """A model with two heads whose loss sees `used` of them."""

    class Headed(keras.Model):
        def __init__(self):
            super().__init__()
            self.heads = [keras.layers.Dense(3, name=f"head_{i}") for i in range(2)]

        def call(self, x):
            y = self.heads[0](x)
            self.heads[1](x)
            return y if used else keras.ops.stop_gradient(y)

    return Headed


def test_a_loss_that_depends_on_no_variable_is_refused(one_or_two):
    trainer = trainer_of(headed(0), replication=one_or_two)
    with pytest.raises(ValueError, match=r"no variable has a gradient.*head_0/kernel"):
        trainer.fit(batches(X, LABELS), verbose=0)


def test_variables_without_a_gradient_are_named_once_and_stay(one_or_two):
    trainer = trainer_of(headed(1), replication=one_or_two)
    trainer.evaluate(X, LABELS)
    before = trainer.model.heads[1].kernel.numpy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(batches(X, LABELS), epochs=2, verbose=0)
        trainer.fit(batches(X, LABELS, WEIGHTS), verbose=0)
    about = [w for w in caught if "no gradient" in str(w.message)]
    assert len(about) == 1
    assert re.search(r"2 of 4 .*head_1/kernel.*head_1/bias", str(about[0].message))
    np.testing.assert_array_equal(trainer.model.heads[1].kernel.numpy(), before)


def test_a_frozen_layer_is_not_trained_and_may_thaw(one_or_two):
    def build():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(3)])

    trainer = trainer_of(build, replication=one_or_two)
    trainer.model.layers[0].trainable = False
    before = trainer.model.layers[0].kernel.numpy()
    trainer.fit(batches(X, LABELS), verbose=0)
    np.testing.assert_array_equal(trainer.model.layers[0].kernel.numpy(), before)
    trainer.model.layers[0].trainable = True
    trainer.switch_optimizer(sgd())
    trainer.fit(batches(X, LABELS), verbose=0)
    assert np.abs(trainer.model.layers[0].kernel.numpy() - before).max() > 0


def test_the_same_seed_builds_the_same_model_under_every_replication(replication):
    weights = trainer_of(replication=replication, seed=5).model.get_weights()
    keras.utils.set_random_seed(5)
    for ours, theirs in zip(weights, dense().get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_public_names_are_there():
    for name in disttrain.__all__:
        assert getattr(disttrain, name) is not None
    with pytest.raises(AttributeError, match="Trianer"):
        disttrain.Trianer  # noqa: B018

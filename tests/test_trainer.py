"""`Trainer` against plain Keras on one device."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from tests._support.tiny_models import (
    CLOSE,
    CROSSENTROPY,
    HITS,
    LABELS,
    WEIGHTS,
    X,
    Y,
    assert_same_numbers,
    assert_same_weights,
    batches,
    compiled,
    one_weight,
    sgd,
    trainer_of,
)

pytestmark = pytest.mark.graph

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

    def test_steps_per_epoch_does_not_repeat_a_finite_dataset(self):
        trainer = trainer_of()
        with pytest.warns(UserWarning, match="ended after 3"):
            trainer.fit(batches(X, LABELS), steps_per_epoch=5, verbose=0)
        assert int(trainer.optimizer.iterations.numpy()) == 3

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

    def test_what_brings_replicas_state_together_is_traced_once(self, mirrored, monkeypatch):
        traced = []
        replication = mirrored(2)
        reduce_sum = replication.reduce_sum

        def noting(tensors, name):
            traced.append(name)
            return reduce_sum(tensors, name)

        monkeypatch.setattr(replication, "reduce_sum", noting)

        def build():
            layers = [keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
            return keras.Sequential(layers)

        trainer = trainer_of(build, replication=replication)
        for _ in range(3):
            trainer.fit(X, LABELS, batch_size=4, epochs=2, verbose=0)
        assert traced.count("state.first") == 2, "once for each replica"

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


def weighted():
    return batches(X, LABELS, WEIGHTS)


@functools.cache
def metrics_by_keras(case):
    """The history of two epochs with the metrics of a case, by Keras on one device."""
    options = {"epochs": 2, "validation_data": weighted(), "shuffle": False, "verbose": 0}
    return compiled(metrics=METRICS[case]()).fit(weighted(), **options).history


class TestMetrics:
    """Metrics are those of one device over all examples."""

    @pytest.mark.parametrize("case", METRICS)
    def test_metrics_are_exact_over_uneven_replicas(self, case, replication):
        trainer = trainer_of(metrics=METRICS[case](), replication=replication)
        options = {"epochs": 2, "validation_data": weighted(), "verbose": 0}
        history = trainer.fit(weighted(), **options).history
        assert_same_numbers(history, metrics_by_keras(case))

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

"""What is wrong is named, with the value, what was expected, and what to do."""

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
from tests._support.tiny_models import (
    LABELS,
    WEIGHTS,
    X,
    Y,
    assert_same_weights,
    batches,
    compiled,
    dense,
    sgd,
    trainer_of,
)

# Wrong arguments


@pytest.mark.unit
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


@pytest.mark.unit
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


@pytest.mark.unit
def test_a_distributed_optimizer_brings_its_own_clip():
    own = disttrain.DistributedOptimizer(sgd(), clip=disttrain.ClipByNorm(1.0))
    assert trainer_of(optimizer=own).optimizer.clip == disttrain.ClipByNorm(1.0)
    with pytest.raises(ValueError, match=r"is a DistributedOptimizer.*clip.*not to the trainer"):
        trainer_of(optimizer=own, clip=disttrain.ClipByNorm(1.0))


@pytest.mark.graph
def test_a_loss_scale_optimizer_is_unwrapped(one_or_two):
    own = keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=64.0)
    trainer = trainer_of(optimizer=own, replication=one_or_two)
    trainer.fit(batches(X, LABELS), verbose=0)
    assert isinstance(trainer.optimizer.inner, keras.optimizers.SGD)
    assert float(trainer.optimizer.current_loss_scale()) == 64.0
    model = compiled()
    model.fit(batches(X, LABELS), shuffle=False, verbose=0)
    assert_same_weights(trainer.model, model)


@pytest.mark.unit
def test_an_optimizer_built_outside_of_the_scope_is_refused(mirrored):
    optimizer = sgd()
    optimizer.build(dense().trainable_variables)
    with pytest.raises(ValueError, match=r"built its slots outside.*replication\.scope"):
        trainer_of(optimizer=optimizer, replication=mirrored(2))


@pytest.mark.unit
def test_an_optimizer_made_outside_of_the_scope_is_brought_in_with_its_settings(mirrored):
    trainer = trainer_of(optimizer=sgd(0.25, momentum=0.5, nesterov=True), replication=mirrored(2))
    inner = trainer.optimizer.inner
    assert (float(inner.learning_rate.numpy()), inner.momentum, inner.nesterov) == (0.25, 0.5, True)


@pytest.mark.unit
def test_compiled_steps_need_one_replica_a_process(mirrored):
    with pytest.raises(ValueError, match=r"jit_compile=True needs one replica a process"):
        trainer_of(jit_compile=True, replication=mirrored(2))


class OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        ("model", TypeError, r"function that returns a keras\.Model.*'model'"),
        (lambda: 7, TypeError, r"must return a keras\.Model, not int"),
        (
            OwnStep,
            ValueError,
            r"overrides train_step.*disttrain\.CustomStep.*Trainer\(step=.*Model\.fit",
        ),
    ],
)
def test_what_builds_no_model_that_can_be_trained_is_named(build, error, message):
    with pytest.raises(error, match=message):
        trainer_of(build)


@pytest.mark.unit
def test_a_model_instead_of_a_function_is_refused():
    with pytest.raises(TypeError, match=r"build_model must be a function that returns a keras"):
        trainer_of(dense())


@pytest.mark.unit
def test_horovod_that_is_not_installed_says_how_to_install_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "horovod" else find(name, *a)
    )
    with pytest.raises(RuntimeError, match=r"not installed.*launch/setup\.sh"):
        trainer_of(replication="horovod")


WORKERS = ["host1:2222", "host2:2222"]


@pytest.mark.unit
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


@pytest.mark.unit
def test_multi_worker_without_a_tf_config_says_what_one_looks_like(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=r"needs the environment variable TF_CONFIG.*cluster"):
        replication_module.resolve("multi_worker")


@pytest.mark.unit
def test_a_tf_config_of_one_worker_is_a_single_process(monkeypatch):
    config = {"cluster": {"worker": WORKERS[:1]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert replication_module.resolve("auto").name == "single"


@pytest.mark.graph
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


@pytest.mark.graph
def test_arrays_with_fewer_examples_than_replicas_are_named(mirrored):
    trainer = trainer_of(replication=mirrored(3))
    for arrays, options in (((X[:2], LABELS[:2]), {}), ((X, LABELS), {"batch_size": 2})):
        with pytest.raises(ValueError, match=r"global batch of 2 is smaller.*replicas \(3\)"):
            trainer.fit(*arrays, verbose=0, **options)
    assert trainer.predict(X[:2]).shape == (2, 3), "only training needs every replica"


def batched():
    return batches(X, LABELS)


@pytest.mark.graph
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
        (lambda: iter([(X, LABELS)]), {"epochs": 2}, ValueError, r"can be read only once"),
        (lambda: object(), {}, TypeError, r"a object is no array.*tf\.data\.Dataset"),
        (lambda: [[1.0], [1.0, 2.0]], {}, ValueError, r"first axis.*tf\.RaggedTensor"),
        (lambda: tf.sparse.from_dense(X), {"y": Y}, TypeError, r"SparseTensor is not taken.*dense"),
        (X, {"y": LABELS, "workers": 2}, TypeError, r"no argument 'workers'; .*PyDataset\(workers"),
        (X, {"y": LABELS, "epoch": 2}, TypeError, r"no argument 'epoch'; did you mean 'epochs'"),
        (X, {"y": LABELS, "zzz": 2}, TypeError, r"no argument 'zzz'; its arguments are x, y"),
        (lambda: batched().filter(lambda x, y: False), {}, ValueError, r"gave no batch"),
    ],
)
def test_a_fit_that_cannot_be_done_says_why(x, options, error, message):
    with pytest.raises(error, match=message):
        trainer_of().fit(x() if callable(x) else x, verbose=0, **options)


@pytest.mark.graph
def test_data_without_targets_are_named_by_fit_and_evaluate_at_any_time():
    trainer = trainer_of()
    for _ in range(2):
        with pytest.raises(ValueError, match="no targets"):
            trainer.evaluate(X)
        with pytest.raises(ValueError, match="no targets"):
            trainer.fit(batches(X), verbose=0)
        trainer.fit(batches(X, LABELS), verbose=0)


@pytest.mark.graph
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


@pytest.mark.unit
def test_a_metric_that_cannot_be_made_anew_in_the_scope_is_named(mirrored):
    with pytest.raises((TypeError, ValueError), match=r"Above.*function that returns"):
        trainer_of(metrics=[Above(3)], replication=mirrored(2))


@pytest.mark.graph
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


@pytest.mark.graph
def test_an_epoch_whose_loss_is_never_finite_stops_the_training(one_or_two):
    x = np.full_like(X, np.nan)
    trainer = trainer_of(replication=one_or_two)
    trainer.fit(batches(X, LABELS), verbose=0)
    weights = trainer.model.get_weights()
    with pytest.raises(RuntimeError, match=r"NaN.*every one of the 3 steps of epoch 1.*clip="):
        trainer.fit(batches(x, LABELS), epochs=3, verbose=0)
    for before, after in zip(weights, trainer.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.graph
def test_a_nan_on_one_replica_skips_the_step_on_all(mirrored):
    x = X[:8].copy()
    x[7] = np.nan  # the second replica's last example of the second batch
    trainer = trainer_of(replication=mirrored(2))
    trainer.fit(batches(x, LABELS[:8]), verbose=0)
    assert int(trainer.optimizer.iterations.numpy()) == 1
    model = compiled()
    model.fit(batches(X[:4], LABELS[:4]), shuffle=False, verbose=0)
    assert_same_weights(trainer.model, model)


@pytest.mark.unit
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


@pytest.mark.graph
def test_a_loss_that_depends_on_no_variable_is_refused(one_or_two):
    trainer = trainer_of(headed(0), replication=one_or_two)
    with pytest.raises(ValueError, match=r"no variable has a gradient.*head_0/kernel"):
        trainer.fit(batches(X, LABELS), verbose=0)


@pytest.mark.graph
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


@pytest.mark.graph
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


@pytest.mark.unit
def test_the_same_seed_builds_the_same_model_under_every_replication(replication):
    weights = trainer_of(replication=replication, seed=5).model.get_weights()
    keras.utils.set_random_seed(5)
    for ours, theirs in zip(weights, dense().get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.unit
def test_the_public_names_are_there():
    for name in disttrain.__all__:
        assert getattr(disttrain, name) is not None
    with pytest.raises(AttributeError, match="Trianer"):
        disttrain.Trianer  # noqa: B018

"""`from_legacy`: optimizers of Keras 2's API and of TensorFlow Core's style, unchanged."""

import importlib
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.optimizers.legacy import from_legacy, import_legacy
from disttrain.optimizers.slots import find_slots
from tests._support.timeouts import TIMEOUT
from tests.distributed import checks

CLOSE = {"rtol": 1e-6, "atol": 1e-6}

#: What a user wrote for TensorFlow 2.4 to 2.15, down to the name of the base class.
OLD_MODULE = '''
import tensorflow as tf
from tensorflow.keras import backend as K


class OldMomentum(tf.keras.optimizers.legacy.Optimizer):
    """Momentum that also counts rows it has seen, and weighs them by a slot of another shape."""

    def __init__(self, learning_rate=0.1, momentum=0.9, name="OldMomentum", **kwargs):
        super().__init__(name, **kwargs)
        self._set_hyper("learning_rate", kwargs.get("lr", learning_rate))
        self._set_hyper("momentum", momentum)
        self.epsilon = K.epsilon()

    def _create_slots(self, var_list):
        for var in var_list:
            self.add_slot(var, "velocity")
        for var in var_list:
            self.add_slot(var, "updates", initializer="ones", shape=[])

    def _create_all_weights(self, var_list):
        super()._create_all_weights(var_list)
        if not hasattr(self, "total"):
            self.total = self.add_weight("total", shape=[], initializer="zeros")

    def _prepare_local(self, var_device, var_dtype, apply_state):
        super()._prepare_local(var_device, var_dtype, apply_state)
        apply_state[(var_device, var_dtype)]["momentum"] = self._get_hyper("momentum", var_dtype)

    def _resource_apply_dense(self, grad, var, apply_state=None):
        settings = apply_state[(var.device, var.dtype.base_dtype)]
        velocity = self.get_slot(var, "velocity")
        updates = self.get_slot(var, "updates")
        count = updates.assign_add(1.0)
        new = velocity.assign(settings["momentum"] * velocity + grad)
        return tf.group(var.assign_sub(settings["lr_t"] * new), count)

    def _resource_apply_sparse(self, grad, var, indices, apply_state=None):
        settings = apply_state[(var.device, var.dtype.base_dtype)]
        return self._resource_scatter_add(var, indices, -settings["lr_t"] * grad)

    def apply_gradients(self, grads_and_vars, name=None, **kwargs):
        result = super().apply_gradients(grads_and_vars, name, **kwargs)
        self.total.assign_add(1.0)
        return result

    def get_config(self):
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter("learning_rate"),
            "momentum": self._serialize_hyperparameter("momentum"),
        }
'''


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The user's module; without tf-keras the test is skipped, or fails if DISTTRAIN_STRICT=1."""
    if importlib.util.find_spec("tf_keras") is None:
        if os.environ.get("DISTTRAIN_STRICT") == "1":
            pytest.fail("tf-keras is not installed, and DISTTRAIN_STRICT=1 asks for it")
        pytest.skip("tf-keras is not installed")
    folder = tmp_path_factory.mktemp("old")
    (folder / "old_optimizers.py").write_text(OLD_MODULE)
    sys.path.insert(0, str(folder))
    try:
        yield import_legacy("old_optimizers")
    finally:
        sys.path.remove(str(folder))
        del sys.modules["old_optimizers"]


class PlainDescent:
    """As in TensorFlow's guides: no base class, a Python number for the rate, no state."""

    def __init__(self, learning_rate=0.1):
        self.learning_rate = learning_rate

    def apply_gradients(self, grads, vars):
        for grad, var in zip(grads, vars, strict=True):
            var.assign_sub(self.learning_rate * grad)


class LazyMomentum:
    """Creates its state at the first step, and keeps a flag."""

    def __init__(self, learning_rate=0.1, beta=0.9):
        self.learning_rate = learning_rate
        self.beta = beta
        self.velocity = []
        self.built = False

    def get_config(self):
        return {"learning_rate": self.learning_rate, "beta": self.beta}

    def apply_gradients(self, grads, vars):
        if not self.built:
            self.velocity = [tf.Variable(tf.fill(var.shape, 2.0)) for var in vars]
            self.built = True
        for velocity, grad, var in zip(self.velocity, grads, vars, strict=True):
            velocity.assign(self.beta * velocity + grad)
            var.assign_sub(self.learning_rate * velocity)


class ModuleAdam(tf.Module):
    """A `tf.Module` whose rate and step count are variables, and whose slots hang on a dict."""

    def __init__(self, rate=0.1):
        super().__init__()
        self.lr = tf.Variable(rate, trainable=False)
        self.t = tf.Variable(0.0, trainable=False)
        self.m = {}
        self.v = {}

    def build(self, vars):
        for var in vars:
            self.m[var.ref()] = tf.Variable(tf.zeros_like(var), trainable=False)
            self.v[var.ref()] = tf.Variable(tf.zeros_like(var), trainable=False)

    def apply_gradients(self, grads, vars):
        self.t.assign_add(1.0)
        for grad, var in zip(grads, vars, strict=True):
            m, v = self.m[var.ref()], self.v[var.ref()]
            m.assign(0.9 * m + 0.1 * grad)
            v.assign(0.999 * v + 0.001 * grad**2)
            scale = tf.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
            var.assign_sub(self.lr * scale * m / (tf.sqrt(v) + 1e-7))


class PythonCounter:
    """Counts steps in a Python number, which a graph does not do."""

    def __init__(self):
        self.steps = 0

    def apply_gradients(self, grads, vars):
        self.steps += 1
        for grad, var in zip(grads, vars, strict=True):
            var.assign_sub(grad / self.steps)


GRADIENTS = [[1.0, -2.0], [0.5, 4.0], [-3.0, 0.25]]


def momentum(gradients, beta=0.9, rate=0.1, velocity=0.0):
    """The weights after each of the gradients, from 0."""
    weights, velocity = np.zeros(2), np.full(2, velocity)
    for i, gradient in enumerate(gradients):
        velocity = beta * velocity + gradient
        weights = weights - (rate(i) if callable(rate) else rate) * velocity
    return weights


def adam(gradients, rate=0.1):
    weights, m, v = np.zeros(2), np.zeros(2), np.zeros(2)
    for t, gradient in enumerate(gradients, 1):
        gradient = np.asarray(gradient)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        weights = weights - rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
    return weights


def descent(gradients, rate=0.1):
    return -rate * np.sum(gradients, axis=0)


CORE = {
    "plain": (PlainDescent, descent),
    "lazy": (LazyMomentum, lambda gradients: momentum(gradients, velocity=2.0)),
    "module": (ModuleAdam, adam),
}


def start(optimizer, scope=None):
    with scope or tf.distribute.get_strategy().scope():
        optimizer = optimizer()
        variable = keras.Variable([0.0, 0.0], name="x")
        optimizer.build([variable])
    return optimizer, variable


def take_steps(optimizer, variable, gradients=GRADIENTS, compiled=True):
    def step(gradient):
        optimizer.apply([gradient], [variable])

    step = tf.function(step) if compiled else step
    for gradient in gradients:
        step(tf.constant(gradient))


# Keras 2's API


@pytest.mark.graph
@pytest.mark.parametrize("compiled", [True, False])
def test_an_old_subclass_runs_unchanged(old, compiled):
    optimizer, variable = start(lambda: from_legacy(old.OldMomentum(0.1)))
    take_steps(optimizer, variable, compiled=compiled)
    np.testing.assert_allclose(variable.numpy(), momentum(GRADIENTS), **CLOSE)
    assert optimizer.iterations.numpy() == 3
    (slots,) = find_slots(optimizer, [variable])
    assert set(slots) == {"velocity", "updates"}
    assert slots["updates"].numpy() == 4.0
    assert optimizer.wrapped.total.numpy() == 3.0
    assert [v.name for v in optimizer.variables] == [
        "iteration",
        "learning_rate",
        "x_velocity",
        "x_updates",
        "total",
    ]


@pytest.mark.graph
def test_an_old_subclass_gets_one_gradient_for_all_replicas(old, mirrored):
    replication = mirrored(2)
    optimizer, variable = start(
        lambda: disttrain.DistributedOptimizer(
            from_legacy(old.OldMomentum(0.1)), replication=replication
        ),
        replication.scope(),
    )
    step = tf.function(
        lambda parts: replication.run(lambda g: optimizer.apply([g], [variable]), parts) and None
    )
    for gradient in GRADIENTS:
        wide = np.float32([5.0, -7.0])
        step([tf.constant(np.float32(gradient) + wide), tf.constant(np.float32(gradient) - wide)])
    np.testing.assert_allclose(variable.numpy(), momentum(GRADIENTS), **CLOSE)
    assert optimizer.inner.wrapped.total.numpy() == 3.0
    assert optimizer.iterations.numpy() == 3


@pytest.mark.graph
def test_repeated_rows_of_a_sparse_gradient_are_added_up_for_it(old):
    table = keras.Variable(np.zeros((3, 1), np.float32))
    optimizer = from_legacy(old.OldMomentum(1.0))
    slices = tf.IndexedSlices(tf.constant([[3.0], [4.0]]), tf.constant([1, 1]), [3, 1])
    optimizer.apply([slices], [table])
    np.testing.assert_allclose(table.numpy(), [[0], [-7], [0]])


@pytest.mark.graph
def test_schedules_of_keras_2_and_3_drive_it(old):
    import tf_keras

    for home in (keras, tf_keras):
        schedule = home.optimizers.schedules.PiecewiseConstantDecay([0, 1], [1.0, 0.5, 0.25])
        optimizer, variable = start(lambda rate=schedule: from_legacy(old.OldMomentum(rate)))
        take_steps(optimizer, variable)
        expected = momentum(GRADIENTS, rate=lambda i: [1.0, 0.5, 0.25][i])
        np.testing.assert_allclose(variable.numpy(), expected, **CLOSE)


@pytest.mark.graph
def test_a_rate_that_is_set_reaches_the_old_code(old):
    optimizer, variable = start(lambda: from_legacy(old.OldMomentum(0.1, momentum=0.0)))
    optimizer.learning_rate = 1.0
    take_steps(optimizer, variable)
    np.testing.assert_allclose(variable.numpy(), descent(GRADIENTS, 1.0), **CLOSE)
    assert float(optimizer.wrapped.lr) == 1.0


@pytest.mark.graph
def test_its_clips_are_taken_over(old):
    optimizer = from_legacy(old.OldMomentum(1.0, clipnorm=0.5))
    assert optimizer.clipnorm == 0.5
    assert optimizer.wrapped.clipnorm is None
    assert disttrain.DistributedOptimizer(optimizer).clip == disttrain.ClipByNorm(0.5)


def model_with(optimizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile(optimizer, checks.loss())
    return model


@pytest.mark.graph
def test_a_saved_model_comes_back_with_the_old_optimizer(old, tmp_path):
    import tf_keras

    x, y = checks.data(16)
    schedule = tf_keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    model = model_with(from_legacy(old.OldMomentum(schedule, momentum=0.75)))
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer.wrapped, old.OldMomentum)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert float(loaded.optimizer.wrapped.momentum) == 0.75
    for one in (model, loaded):
        one.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for mine, wanted in zip(
        [*loaded.variables, *loaded.optimizer.variables],
        [*model.variables, *model.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_allclose(mine.numpy(), wanted.numpy(), **CLOSE)


@pytest.mark.graph
def test_a_class_that_is_not_known_is_asked_for(old):
    config = from_legacy(old.OldMomentum()).get_config()
    config["optimizer"]["class_name"] = "legacy>elsewhere.Mine"
    with pytest.raises(ValueError, match=r"custom_objects=\{'Mine': Mine\}"):
        disttrain.optimizers.legacy.LegacyOptimizer.from_config(config)
    found = disttrain.optimizers.legacy.LegacyOptimizer.from_config(
        config, custom_objects={"Mine": old.OldMomentum}
    )
    assert isinstance(found.wrapped, old.OldMomentum)


@pytest.mark.graph
@pytest.mark.parametrize("name", ["Adadelta", "Adagrad", "Adamax", "Ftrl", "Nadam", "RMSprop"])
def test_the_optimizers_of_keras_2_themselves_are_taken_and_restored(old, name):
    import tf_keras

    kind = getattr(tf_keras.optimizers.legacy, name)
    optimizer, variable = start(lambda: from_legacy(kind(0.05)))
    copy = type(optimizer).from_config(optimizer.get_config())
    take_steps(optimizer, variable)
    reference = tf.Variable([0.0, 0.0])
    theirs = kind(0.05)
    for gradient in GRADIENTS:
        theirs.apply_gradients([(tf.constant(gradient), reference)])
    np.testing.assert_allclose(variable.numpy(), reference.numpy(), **CLOSE)
    again = keras.Variable([0.0, 0.0], name="x")
    copy.build([again])
    take_steps(copy, again)
    np.testing.assert_allclose(again.numpy(), reference.numpy(), **CLOSE)


@pytest.mark.graph
def test_a_trainer_takes_it_into_its_scope(old, mirrored):
    weights = []
    for replication in ("single", mirrored(2)):
        trainer = checks.trainer(replication, optimizer=from_legacy(old.OldMomentum(0.05)))
        trainer.fit(checks.dataset(41), epochs=2, verbose=0)
        weights.append(checks.flat(trainer.model.trainable_variables))
    np.testing.assert_allclose(*weights, atol=1e-5)


@pytest.mark.graph
def test_a_module_that_keras_3_has_seen_is_not_imported_again(old):
    with pytest.raises(ValueError, match="'textwrap' has been imported already, with Keras 3"):
        import_legacy("textwrap")


# TensorFlow Core's style


@pytest.mark.graph
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", CORE)
def test_a_core_optimizer_gives_its_formula(name, compiled):
    kind, formula = CORE[name]
    optimizer, variable = start(lambda: from_legacy(kind()))
    np.testing.assert_array_equal(variable.numpy(), [0.0, 0.0])
    take_steps(optimizer, variable, compiled=compiled)
    np.testing.assert_allclose(variable.numpy(), formula(GRADIENTS), rtol=1e-5)
    assert optimizer.iterations.numpy() == 3


@pytest.mark.graph
@pytest.mark.parametrize("name", CORE)
def test_a_core_optimizer_makes_one_update_for_all_replicas(mirrored, name):
    kind, formula = CORE[name]
    replication = mirrored(2)
    optimizer, variable = start(
        lambda: disttrain.DistributedOptimizer(from_legacy(kind()), replication=replication),
        replication.scope(),
    )
    step = tf.function(
        lambda parts: replication.run(lambda g: optimizer.apply([g], [variable]), parts) and None
    )
    for gradient in GRADIENTS:
        wide = np.float32([5.0, -7.0])
        step([tf.constant(np.float32(gradient) + wide), tf.constant(np.float32(gradient) - wide)])
    np.testing.assert_allclose(variable.numpy(), formula(GRADIENTS), rtol=1e-5)
    for state in [variable, *optimizer.variables]:
        one, two = replication.strategy.experimental_local_results(state.value)
        np.testing.assert_array_equal(one, two)


@pytest.mark.graph
def test_the_state_of_a_core_optimizer_is_found():
    lazy, variable = start(lambda: from_legacy(LazyMomentum()))
    np.testing.assert_array_equal(find_slots(lazy, [variable])[0]["velocity"].numpy(), [2.0, 2.0])
    module, variable = start(lambda: from_legacy(ModuleAdam()))
    take_steps(module, variable)
    assert set(find_slots(module, [variable])[0]) == {"m", "v"}
    assert [v.name for v in module.variables] == ["iteration", "learning_rate", "x_m", "x_v", "t"]
    assert module.variables[-1].numpy() == 3.0


@pytest.mark.graph
@pytest.mark.parametrize("kind", [PlainDescent, ModuleAdam])
def test_a_schedule_takes_the_place_of_a_core_optimizers_rate(kind):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.0])
    optimizer, variable = start(
        lambda: disttrain.optimizers.legacy.CoreOptimizer(kind(), learning_rate=schedule)
    )
    take_steps(optimizer, variable, GRADIENTS[:1])
    once = variable.numpy()
    assert (np.abs(once) > 0.5).all()
    take_steps(optimizer, variable, GRADIENTS[1:])
    np.testing.assert_array_equal(variable.numpy(), once)


@pytest.mark.graph
def test_a_core_optimizers_rate_is_set():
    optimizer, variable = start(lambda: from_legacy(PlainDescent(0.5)))
    assert float(optimizer.learning_rate.numpy()) == 0.5
    optimizer.learning_rate = 1.0
    take_steps(optimizer, variable)
    np.testing.assert_allclose(variable.numpy(), descent(GRADIENTS, 1.0))
    assert optimizer.wrapped.learning_rate == 0.5


@pytest.mark.unit
def test_a_core_optimizer_sees_sparse_gradients_dense():
    table = keras.Variable(np.zeros((3, 1), np.float32))
    slices = tf.IndexedSlices(tf.constant([[3.0], [4.0]]), tf.constant([1, 1]), [3, 1])
    from_legacy(PlainDescent(1.0)).apply([slices], [table])
    np.testing.assert_allclose(table.numpy(), [[0], [-7], [0]])


@pytest.mark.graph
def test_a_python_counter_works_eagerly_and_is_refused_in_a_graph():
    optimizer, variable = start(lambda: from_legacy(PythonCounter()))
    take_steps(optimizer, variable, compiled=False)
    expected = -sum(np.float32(g) / n for n, g in enumerate(GRADIENTS, 1))
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5)
    optimizer, variable = start(lambda: from_legacy(PythonCounter()))
    with pytest.raises(RuntimeError, match=r"steps from 0 to 1.*Make it a tf\.Variable"):
        take_steps(optimizer, variable)


@pytest.mark.graph
def test_a_model_is_saved_with_a_core_optimizer_that_has_a_configuration(tmp_path):
    x, y = checks.data(16)
    model = model_with(from_legacy(LazyMomentum(0.05, beta=0.5)))
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.wrapped.beta == 0.5
    for one in (model, loaded):
        one.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for mine, wanted in zip(
        [*loaded.variables, *loaded.optimizer.variables],
        [*model.variables, *model.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_allclose(mine.numpy(), wanted.numpy(), **CLOSE)


@pytest.mark.graph
def test_without_a_configuration_weights_are_saved_and_a_scope_is_entered(mirrored, tmp_path):
    x, y = checks.data(16)
    model = model_with(from_legacy(PlainDescent()))
    model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="PlainDescent does not define get_config"):
        model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")

    replication = mirrored(2)
    with pytest.raises(ValueError, match="in the scope"):
        checks.trainer(replication, optimizer=from_legacy(PlainDescent(0.05)))
    with replication.scope():
        mirrored_model = model_with(disttrain.DistributedOptimizer(from_legacy(PlainDescent())))
    mirrored_model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    alone = model_with(keras.optimizers.SGD(0.1))
    alone.fit(x, y, batch_size=16, epochs=2, verbose=0)
    np.testing.assert_allclose(
        checks.flat(mirrored_model.trainable_variables),
        checks.flat(alone.trainable_variables),
        atol=1e-6,
    )


@pytest.mark.processes
def test_a_core_optimizer_needs_no_tf_keras():
    program = """
        import sys
        for name in ("tf_keras", "tensorflow_addons"):
            sys.modules[name] = None
        import keras, tensorflow as tf
        from disttrain.optimizers.legacy import from_legacy
        from disttrain.optimizers.legacy_import import tf_keras
        class Descent:
            def apply_gradients(self, grads, vars):
                for grad, var in zip(grads, vars):
                    var.assign_sub(grad)
        variable = keras.Variable([1.0])
        from_legacy(Descent()).apply([tf.constant([1.0])], [variable])
        assert variable.numpy()[0] == 0.0
        try:
            tf_keras()
        except RuntimeError as error:
            print(error)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert "is not installed; run pip install 'disttrain[addons]'" in done.stdout, done.stderr


# Bad input


class AppliesNothing:
    def minimize(self, loss):
        pass


@pytest.mark.unit
@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (lambda: 3, "not 3"),
        (lambda: "sgd", "not 'sgd'"),
        (AppliesNothing, r"apply_gradients\(grads, vars\)"),
        (lambda: PlainDescent, r"from_legacy\(PlainDescent\(\.\.\.\)\)"),
        (lambda: keras.optimizers.SGD(), "Keras 3 optimizer already"),
    ],
)
def test_what_is_no_old_optimizer_is_refused(optimizer, words):
    with pytest.raises(TypeError, match=words):
        from_legacy(optimizer())


@pytest.mark.graph
def test_an_optimizer_that_was_used_is_refused(old):
    used = old.OldMomentum()
    used.apply_gradients([(tf.constant([1.0]), tf.Variable([1.0]))])
    with pytest.raises(ValueError, match="OldMomentum has state already"):
        from_legacy(used)


@pytest.mark.graph
def test_a_step_count_that_was_set_goes_on(old):
    counted = old.OldMomentum()
    counted.iterations.assign(5)
    optimizer, variable = start(lambda: from_legacy(counted))
    take_steps(optimizer, variable)
    assert optimizer.iterations.numpy() == 8


@pytest.mark.graph
def test_a_rate_that_is_no_rate_is_refused(old):
    with pytest.raises(TypeError, match="learning rate must be a number.*'fast'"):
        from_legacy(old.OldMomentum("fast"))


@pytest.mark.graph
def test_an_old_optimizer_without_get_config_is_not_saved_half(old):
    class Silent(old.OldMomentum):
        def __init__(self, strength):
            super().__init__()
            self.strength = strength

        get_config = old.OldMomentum.__mro__[1].get_config

    with pytest.raises(ValueError, match="define get_config"):
        from_legacy(Silent(3)).get_config()

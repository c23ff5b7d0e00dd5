"""`DistributedOptimizer` by itself: in `Model.fit`, in hand-written loops, saved and loaded."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.replication.tf_distribute import TfDistribute, single
from tests.distributed import checks

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.05),
    "adamw": lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1),
}


def fit(scope, optimizer, rows=32):
    x, y = checks.data(rows)
    with scope:
        model = checks.build()
        model.compile(optimizer(), checks.loss(), metrics=["accuracy"], auto_scale_loss=False)
    examples = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    history = model.fit(examples, epochs=3, verbose=0)
    return checks.flat(model.trainable_variables), history.history["loss"], model


def plain():
    return tf.distribute.get_strategy().scope()


@functools.cache
def by_keras(name):
    """`(weights, losses)` of the inner optimizer by itself on one device."""
    return fit(plain(), OPTIMIZERS[name])[:2]


@pytest.mark.graph
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("scale", [None, 256.0, "dynamic"])
def test_model_fit_on_one_device_gives_what_the_inner_optimizer_gives(name, scale):
    expected, losses = by_keras(name)
    weights, history, _ = fit(
        plain(), lambda: disttrain.DistributedOptimizer(OPTIMIZERS[name](), loss_scale=scale)
    )
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(history, losses, rtol=1e-5)


@pytest.mark.graph
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_model_fit_on_mirrored_replicas_gives_what_one_device_gives(mirrored, name):
    expected, losses = by_keras(name)
    weights, history, _ = fit(
        mirrored(2).scope(),
        lambda: disttrain.DistributedOptimizer(OPTIMIZERS[name](), loss_scale="dynamic"),
    )
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(history, losses, rtol=1e-5)


class Penalized(keras.layers.Layer):
    """A weight whose gradient does not depend on data."""

    def build(self, shape):
        self.unused = self.add_weight(
            name="unused", shape=(2,), initializer="ones", regularizer=keras.regularizers.L2(0.1)
        )

    def call(self, x):
        return x


def of_length(known, replication, logdir, **options):
    """A model trained on four batches whose number Keras knows or not, and the recorded steps."""
    with replication.scope():
        inputs = keras.Input((checks.FEATURES,))
        model = keras.Sequential([inputs, *checks.build().layers, Penalized()])
        optimizer = disttrain.DistributedOptimizer(keras.optimizers.Adam(0.05), **options)
        model.compile(optimizer, checks.loss(), auto_scale_loss=False)
    examples = tf.data.Dataset.from_tensor_slices(checks.data(32)).batch(8)
    if not known:
        examples = examples.filter(lambda x, y: True)
    options = disttrain.Telemetry(every=1)
    callback = disttrain.callbacks.TelemetryCallback(logdir / str(known), options)
    steps = []
    noting = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: steps.append(optimizer.observer.steps())
    )
    model.fit(examples, epochs=3, verbose=0, callbacks=[callback, noting])
    return model, steps


@pytest.mark.graph
@pytest.mark.parametrize(("replicas", "micro_batches"), [(1, 1), (1, 2), (2, 3)])
def test_an_epoch_of_unknown_length_makes_no_update_from_its_empty_step(
    mirrored, replicas, micro_batches, tmp_path
):
    replication = mirrored(2) if replicas == 2 else single()
    options = {"accumulate_steps": micro_batches}
    known, steps = of_length(True, replication, tmp_path, **options)
    unknown, found = of_length(False, replication, tmp_path, **options)
    assert int(unknown.optimizer.iterations.numpy()) == int(known.optimizer.iterations.numpy())
    assert found == steps
    np.testing.assert_array_equal(
        checks.flat(unknown.trainable_variables), checks.flat(known.trainable_variables)
    )
    np.testing.assert_array_equal(
        checks.flat(unknown.optimizer.variables), checks.flat(known.optimizer.variables)
    )


@pytest.mark.graph
def test_a_loop_by_hand_with_keras_losses_under_mirrored_is_the_mean(mirrored):
    """Keras's loss objects divide by the replicas; `scale_loss` undoes that."""
    x, y = checks.data(8)
    strategy = mirrored(2).strategy
    with strategy.scope():
        model = checks.build()
        optimizer = disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1), loss_scale=64.0)
        optimizer.build(model.trainable_variables)

    def replica(x, y):
        with tf.GradientTape() as tape:
            loss = optimizer.scale_loss(checks.loss()(y, model(x)))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    parts = strategy.experimental_distribute_values_from_function
    xs = parts(lambda c: tf.constant(x[4 * c.replica_id_in_sync_group :][:4]))
    ys = parts(lambda c: tf.constant(y[4 * c.replica_id_in_sync_group :][:4]))
    tf.function(lambda: strategy.run(replica, args=(xs, ys)))()

    alone = checks.build()
    alone.compile(keras.optimizers.SGD(0.1), checks.loss())
    alone.train_on_batch(x, y)
    np.testing.assert_allclose(
        checks.flat(model.trainable_variables), checks.flat(alone.trainable_variables), atol=1e-6
    )


@pytest.mark.graph
def test_float64_keeps_its_digits_on_three_replicas(mirrored):
    """A third in float32 takes half of them; Keras's own division by the replicas, too."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)), rng.normal(size=(12, 2))
    start = [rng.normal(size=(4, 2)), rng.normal(size=2)]
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(6)

    def weights(scope, wrap):
        with scope:
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
            model.set_weights(start)
            model.compile(wrap(keras.optimizers.SGD(0.1)), "mse", jit_compile=False)
        model.fit(data, verbose=0)
        return checks.flat(model.trainable_variables)

    policy = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        expected = weights(plain(), lambda inner: inner)
        found = weights(mirrored(3).scope(), disttrain.DistributedOptimizer)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(policy)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


@pytest.mark.graph
def test_the_loss_scale_is_read_at_each_step_even_if_traced_before_the_first():
    variable = keras.Variable([0.0])
    optimizer = disttrain.DistributedOptimizer(
        keras.optimizers.SGD(1.0), loss_scale=disttrain.DynamicLossScale(8.0, growth_interval=1)
    )
    scaled = []

    @tf.function
    def step():
        loss = optimizer.scale_loss(tf.constant(1.0))
        optimizer.apply([tf.reshape(loss, [1])], [variable])
        return loss

    scaled = [float(step()) for _ in range(3)]
    assert scaled == [8.0, 16.0, 32.0]
    assert variable.numpy()[0] == -3.0


@pytest.mark.graph
def test_the_sum_is_not_divided(mirrored):
    replication = mirrored(2)
    result = checks.apply_once(replication, [10.0, -2.0], reduction="sum")
    assert result["value"] == -8.0


@pytest.mark.unit
def test_sparse_gradients_with_repeated_rows_count_each_row():
    table = keras.Variable(np.zeros((3, 1), np.float32))
    optimizer = disttrain.DistributedOptimizer(
        keras.optimizers.SGD(1.0), clip=disttrain.ClipByGlobalNorm(7.0)
    )
    slices = tf.IndexedSlices(tf.constant([[3.0], [4.0]]), tf.constant([1, 1]), [3, 1])
    optimizer.apply([slices], [table])
    np.testing.assert_allclose(table.numpy(), [[0], [-7], [0]])


@pytest.mark.graph
def test_a_saved_model_comes_back_with_all_optimizer_state(tmp_path):
    _, _, model = fit(
        plain(),
        lambda: disttrain.DistributedOptimizer(
            keras.optimizers.Adam(0.05),
            clip=disttrain.ClipByGlobalNorm(1.0),
            loss_scale=disttrain.DynamicLossScale(16.0, growth_interval=5),
        ),
    )
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert isinstance(loaded.optimizer, disttrain.DistributedOptimizer)
    assert loaded.optimizer.clip == model.optimizer.clip
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    np.testing.assert_array_equal(
        checks.flat(loaded.optimizer.variables), checks.flat(model.optimizer.variables)
    )
    assert float(loaded.optimizer.current_loss_scale()) == 16.0 * 2**2


def accumulating(scope, name="dense"):
    x, y = checks.data(24)
    with scope:
        init = keras.initializers.GlorotUniform(1)
        layer = keras.layers.Dense(3, kernel_initializer=init, name=name)
        model = keras.Sequential([keras.Input((checks.FEATURES,)), layer])
        optimizer = disttrain.DistributedOptimizer(keras.optimizers.Adam(0.05), accumulate_steps=2)
        model.compile(optimizer, checks.loss(), auto_scale_loss=False)
    return model, tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


@pytest.mark.graph
def test_a_model_that_is_saved_between_two_updates_goes_on_there(tmp_path, mirrored):
    """Three batches in twos, on two replicas that have each added up something else."""
    straight, examples = accumulating(mirrored(2).scope())
    straight.fit(examples, epochs=2, verbose=0)
    saved, _ = accumulating(mirrored(2).scope())
    saved.fit(examples, epochs=1, verbose=0)
    saved.save(tmp_path / "model.keras")
    with mirrored(2).scope():
        loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(examples, epochs=1, verbose=0)
    assert int(loaded.optimizer.iterations.numpy()) == 3
    np.testing.assert_allclose(
        checks.flat(loaded.trainable_variables),
        checks.flat(straight.trainable_variables),
        rtol=1e-5,
    )


@pytest.mark.graph
def test_state_goes_by_position_not_by_the_names_that_keras_counts(tmp_path):
    saved, examples = accumulating(plain(), "dense_7")
    saved.fit(examples, verbose=0)
    saved.save_weights(tmp_path / "state.weights.h5")
    other, _ = accumulating(plain(), "dense_8")
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "state.weights.h5")
    np.testing.assert_array_equal(
        checks.flat(other.optimizer.variables), checks.flat(saved.optimizer.variables)
    )


@pytest.mark.graph
def test_state_that_does_not_fit_is_refused(tmp_path):
    _, _, saved = fit(plain(), lambda: disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1)))
    saved.save_weights(tmp_path / "state.weights.h5")
    _, _, other = fit(plain(), lambda: disttrain.DistributedOptimizer(keras.optimizers.Adam(0.1)))
    with pytest.raises(ValueError, match="variables where it now has"):
        other.load_weights(tmp_path / "state.weights.h5")


@pytest.mark.unit
def test_what_keras_would_do_before_the_reduction_is_taken_over():
    inner = keras.optimizers.SGD(1.0, global_clipnorm=2.0, loss_scale_factor=8.0)
    optimizer = disttrain.DistributedOptimizer(inner)
    assert optimizer.clip == disttrain.ClipByGlobalNorm(2.0)
    assert optimizer.loss_scale.initial == 8.0
    assert inner.global_clipnorm is None
    assert inner.loss_scale_factor is None


@pytest.mark.unit
def test_keras_own_loss_scale_is_unwrapped_with_its_settings():
    keras_own = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1.0), initial_scale=512.0, dynamic_growth_steps=7
    )
    optimizer = disttrain.DistributedOptimizer(keras_own)
    assert isinstance(optimizer.inner, keras.optimizers.SGD)
    assert (optimizer.loss_scale.initial, optimizer.loss_scale.growth_interval) == (512.0, 7)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inner": lambda: keras.optimizers.SGD(clipnorm=1.0)}, "clipnorm=1.0"),
        ({"inner": lambda: keras.optimizers.SGD(clipvalue=1.0)}, "clipvalue=1.0"),
    ],
)
def test_two_clips_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        disttrain.DistributedOptimizer(options["inner"](), clip=disttrain.ClipByGlobalNorm(1.0))


@pytest.mark.unit
def test_bad_arguments_are_refused():
    sgd = keras.optimizers.SGD
    with pytest.raises(ValueError, match="reduction 'average'"):
        disttrain.DistributedOptimizer(sgd(), reduction="average")
    with pytest.raises(TypeError, match="keras.optimizers.Optimizer"):
        disttrain.DistributedOptimizer(object())
    with pytest.raises(TypeError, match="DistributedOptimizer already"):
        disttrain.DistributedOptimizer(disttrain.DistributedOptimizer(sgd()))
    with pytest.raises(TypeError, match="clip must be"):
        disttrain.DistributedOptimizer(sgd(), clip=1.0)
    with pytest.raises(ValueError, match="gradient_accumulation_steps=2"):
        disttrain.DistributedOptimizer(sgd(gradient_accumulation_steps=2), accumulate_steps=3)
    with pytest.raises(ValueError, match="loss_scale_factor"):
        disttrain.DistributedOptimizer(sgd(loss_scale_factor=2.0), loss_scale=4.0)
    with pytest.raises(ValueError, match="build"):
        disttrain.DistributedOptimizer(sgd()).apply([tf.constant([1.0])])


@pytest.mark.unit
def test_only_missing_gradients_are_an_error_and_some_a_single_warning():
    one, two = keras.Variable([0.0], name="one"), keras.Variable([0.0], name="two")
    optimizer = disttrain.DistributedOptimizer(keras.optimizers.SGD(1.0))
    optimizer.build([one, two])
    with pytest.raises(ValueError, match="no variable has a gradient"):
        optimizer.apply([None, None], [one, two])
    with pytest.warns(UserWarning, match="1 of 2 trainable variables"):
        optimizer.apply([tf.constant([1.0]), None], [one, two])
    optimizer.apply([tf.constant([1.0]), None], [one, two])
    assert (one.numpy()[0], two.numpy()[0]) == (-2.0, 0.0)


@pytest.mark.unit
def test_a_variable_that_the_optimizer_does_not_know_is_named():
    one, two = keras.Variable([0.0], name="one"), keras.Variable([0.0], name="two")
    optimizer = disttrain.DistributedOptimizer(keras.optimizers.SGD(1.0))
    optimizer.build([one])
    with pytest.raises(ValueError, match="was not built with two"):
        optimizer.apply([tf.constant([1.0])], [two])


@pytest.mark.unit
def test_the_private_method_that_is_replaced_still_exists():
    """Keras sums gradients over the replicas there; where it moves, everything is summed twice."""
    assert callable(keras.optimizers.Optimizer._all_reduce_sum_gradients)


@pytest.mark.graph
def test_an_object_that_cannot_be_serialized_trains_on_one_device():
    class Descent:
        """The old way: anything that can apply gradients to variables."""

        def apply_gradients(self, gradients, variables):
            for gradient, variable in zip(gradients, variables, strict=True):
                variable.assign_sub(0.1 * gradient)

    made = checks.trainer("single", optimizer=disttrain.optimizers.from_legacy(Descent()))
    expected = checks.trainer("single", optimizer=keras.optimizers.SGD(0.1))
    for one in (made, expected):
        one.fit(checks.dataset(19), epochs=2, verbose=0)
    np.testing.assert_allclose(
        checks.flat(made.model.trainable_variables),
        checks.flat(expected.model.trainable_variables),
        atol=1e-6,
    )


class Counting(TfDistribute):
    """One device that counts, at run time, how often replicas would have to speak."""

    def __init__(self):
        super().__init__(tf.distribute.get_strategy(), "counting")
        self.count = tf.Variable(0, trainable=False)

    def reduce_sum(self, tensors, name):
        self.count.assign_add(1)
        return super().reduce_sum(tensors, name)

    def gather(self, tensor, name):
        self.count.assign_add(1)
        return super().gather(tensor, name)


@pytest.mark.graph
def test_nothing_is_communicated_before_the_accumulated_step_is_complete():
    replication, variable = Counting(), keras.Variable([0.0])
    optimizer = disttrain.DistributedOptimizer(
        keras.optimizers.SGD(1.0), accumulate_steps=3, replication=replication
    )
    optimizer.build([variable])
    step = tf.function(lambda: optimizer.apply([tf.ones(1)], [variable]), autograph=False)
    seen = []
    for _ in range(6):
        step()
        seen.append(int(replication.count.numpy()))
    assert seen == [0, 0, 1, 1, 1, 2]


@pytest.mark.graph
def test_the_trainer_communicates_once_for_each_accumulated_update():
    counts = {}
    for steps in (1, 3):
        replication = Counting()
        made = checks.trainer(replication, accumulate_steps=steps)
        made.fit(checks.dataset(48), verbose=0)
        counts[steps] = int(replication.count.numpy())
    assert counts == {1: 6, 3: 2}

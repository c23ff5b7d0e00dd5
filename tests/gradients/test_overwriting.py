"""A next value is no gradient: nothing scales, clips or averages it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.replication.tf_distribute import single
from tests.distributed import checks, gradient_checks

pytestmark = pytest.mark.graph


def parts(replication):
    return range(replication.topology.local_replicas)


def applied(replication, gradients, values, calls=1, local=(), **options):
    """The weight and the next value after calls of `apply`, one value for each replica and call."""
    with replication.scope():
        weight = keras.Variable(np.zeros(1, np.float32), name="weight")
        scale = keras.Variable(np.ones(2, np.float32), name="scale")
        scale.overwrite_with_gradient = True
        optimizer = disttrain.DistributedOptimizer(
            keras.optimizers.SGD(1.0, use_ema=True, ema_overwrite_frequency=100),
            replication=replication,
            local_variables=local,
            **options,
        )
        optimizer.build([weight, scale])

    @tf.function(autograph=False)
    def step(gradients, values):
        pairs = [(gradients[i], values[i]) for i in parts(replication)]
        replication.run(
            lambda pair: optimizer.apply(
                [pair[0][None] * optimizer.current_loss_scale(), pair[1]], [weight, scale]
            ),
            pairs,
        )

    for call in range(calls):
        step(tf.constant(gradients[call]), tf.constant(values[call]))
    strategy = getattr(replication, "strategy", None)
    kept = strategy.experimental_local_results(scale.value)
    return weight.numpy()[0], [value.numpy().tolist() for value in kept], optimizer


OPTIONS = [
    {},
    {"loss_scale": 64.0},
    {"clip": disttrain.ClipByGlobalNorm(2.0)},
    {"clip": disttrain.ClipByValue(2.0, before_reduce=True)},
    {"compression": "fp16"},
    {"reduction": "sum"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_replicas_keep_the_largest_whatever_becomes_of_gradients(mirrored, options):
    values = [[[5.0, 70000.0], [6.0, 1.0]]]
    weight, kept, _ = applied(mirrored(2), [[0.5, 1.5]], values, **options)
    assert kept == [[6.0, 70000.0]] * 2
    assert weight == pytest.approx(-2.0 if "reduction" in options else -1.0)


def test_a_local_one_stays_with_its_replica(mirrored):
    values = [[[5.0, 70000.0], [6.0, 1.0]]]
    _, kept, _ = applied(mirrored(2), [[1.0, 1.0]], values, local=["scale"])
    assert kept == values[0]


def test_micro_batches_keep_the_largest_of_each_update(mirrored):
    gradients = [[1.0, 3.0]] * 4
    values = [[[5.0, 9.0], [6.0, 1.0]], [[2.0, 3.0], [1.0, 1.0]]]
    values += [[[1.0, 1.0], [2.0, 1.0]], [[1.0, 1.0], [1.0, 4.0]]]
    _, kept, _ = applied(mirrored(2), gradients, values, calls=2, accumulate_steps=2)
    assert kept == [[6.0, 9.0]] * 2
    weight, kept, _ = applied(mirrored(2), gradients, values, calls=4, accumulate_steps=2)
    assert kept == [[2.0, 4.0]] * 2
    assert weight == -4.0


@pytest.mark.parametrize("where", ["gradient", "value"])
def test_a_skipped_step_leaves_it(mirrored, where):
    gradients, values = [[1.0, 1.0]], [[[5.0, 1.0], [6.0, 1.0]]]
    if where == "gradient":
        gradients[0][1] = np.inf
    else:
        values[0][1][0] = np.inf
    weight, kept, optimizer = applied(mirrored(2), gradients, values, loss_scale="dynamic")
    assert kept == [[1.0, 1.0]] * 2
    assert weight == 0.0
    assert int(optimizer.iterations.numpy()) == 0


def test_a_second_gradient_gives_none(mirrored):
    sam = disttrain.optimizers.SAM(keras.optimizers.SGD(0.1))
    made, _ = gradient_checks.short(mirrored(2), sam, model=gradient_checks.float8)
    scale = made.model.get_layer("eight").inputs_amax_history.numpy()
    assert 0 < scale.max() < 10


def test_float8_training_is_that_of_keras():
    model = gradient_checks.float8()
    model.compile(keras.optimizers.Adam(0.01), checks.loss(), auto_scale_loss=False)
    examples = tf.data.Dataset.from_tensor_slices(checks.data(21)).batch(checks.BATCH)
    model.fit(examples, epochs=2, verbose=0)
    made, _ = gradient_checks.short(
        single(), keras.optimizers.Adam(0.01), 2, model=gradient_checks.float8
    )
    for ours, theirs in zip(made.model.variables, model.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_it_needs_no_other_variable():
    scale = keras.Variable([1.0])
    scale.overwrite_with_gradient = True
    optimizer = disttrain.DistributedOptimizer(keras.optimizers.SGD(1.0), loss_scale=4.0)
    optimizer.apply([tf.constant([7.0])], [scale])
    assert scale.numpy() == 7.0

"""Steps that are skipped one after another stop the training, and name the variables."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain import kernels
from tests.distributed import checks

NAN = np.asarray([np.nan], np.float32)


def optimizer(most):
    return disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1), max_skipped=most)


@pytest.mark.graph
def test_the_third_skipped_step_in_a_row_names_the_variables():
    good, bad, unused = (keras.Variable([0.0], name=name) for name in ("good", "bad", "unused"))
    made = optimizer(3)
    made.build([good, unused, bad])
    fine, nan = tf.constant([1.0]), tf.constant(NAN)
    for gradients in ([fine, nan], [fine, nan], [fine, fine], [fine, nan], [fine, nan]):
        made.apply(gradients, [good, bad])
    with pytest.raises(RuntimeError, match=r"3 steps in a row .* not finite: bad; look"):
        made.apply([fine, nan], [good, bad])
    made.apply([fine, fine], [good, bad])
    assert made.iterations == 2


@pytest.mark.graph
def test_none_never_stops():
    variable = keras.Variable([0.0])
    made = optimizer(None)
    made.build([variable])
    for _ in range(5):
        made.apply([tf.constant(NAN)], [variable])
    made.check_skipped()


@pytest.mark.graph
def test_a_traced_loop_stops_when_it_looks():
    variable = keras.Variable([0.0], name="only")
    made = optimizer(3)
    made.build([variable])
    step = tf.function(lambda gradient: made.apply([gradient], [variable]), autograph=False)
    for _ in range(4):
        step(tf.constant(NAN))
    step(tf.constant([1.0]))
    with pytest.raises(RuntimeError, match="3 steps in a row .*only"):
        made.check_skipped()
    made.check_skipped()


@pytest.mark.graph
@pytest.mark.parametrize("replicas", [1, 2])
def test_model_fit_stops_at_its_end(replicas, mirrored):
    x, y = checks.data(32)
    data = tf.data.Dataset.from_tensor_slices((x * np.nan, y)).batch(8)
    with mirrored(replicas).scope():
        model = checks.build()
        model.compile(optimizer(3), checks.loss(), jit_compile=False)
    with pytest.raises(RuntimeError, match="3 steps in a row .*kernel"):
        model.fit(data, verbose=0)


@pytest.mark.graph
def test_xla_compiles_the_step_of_model_fit(monkeypatch):
    # The operations in C++ run on CPUs alone; on GPUs Keras compiles this step by default.
    monkeypatch.setattr(kernels, "available", lambda: None)
    x, y = checks.data(32)
    x[24:] = np.nan

    def weights(jit_compile):
        model = checks.build()
        made = disttrain.DistributedOptimizer(
            keras.optimizers.Adam(0.01), clip=disttrain.ClipByGlobalNorm(0.1), loss_scale="dynamic"
        )
        model.compile(made, checks.loss(), jit_compile=jit_compile)
        model.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(8), epochs=2, verbose=0)
        assert made.iterations == 6
        return checks.flat(model.trainable_variables)

    np.testing.assert_allclose(weights(True), weights(False), atol=1e-6)

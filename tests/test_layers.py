"""Layers work over all replicas, whatever their parts of a batch, and Keras's own are made to."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain import layers
from disttrain.replication import active
from tests.distributed import checks

pytestmark = pytest.mark.graph

MOMENTUM = {"momentum": 0.8}


def normalizing(layer, masked=False):
    def build():
        init = keras.initializers.GlorotUniform
        inputs = keras.Input((None, checks.FEATURES) if masked else (checks.FEATURES,))
        hidden = keras.layers.Masking()(inputs) if masked else inputs
        hidden = layer()(keras.layers.Dense(4, kernel_initializer=init(1))(hidden))
        hidden = keras.layers.GlobalAveragePooling1D()(hidden) if masked else hidden
        return keras.Model(
            inputs, keras.layers.Dense(checks.CLASSES, kernel_initializer=init(2))(hidden)
        )

    return build


def sequences(rows):
    """Every other time step of every third example is padding."""
    x, y = checks.data(rows)
    x = np.stack([x, x**2, 2 * x], axis=1)
    x[::3, 1] = 0
    return x, y


@pytest.mark.parametrize("options", [{}, {"renorm": True}], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_kerass_synchronized_layer_gives_what_one_device_gives(mirrored, masked, options):
    """The last batch of 41 has one example; Keras itself synchronizes nothing under a mask."""
    x, y = (sequences if masked else checks.data)(41)
    found = []
    for replication, synchronized in (("single", False), (mirrored(2), True)):
        layer = lambda synchronized=synchronized: keras.layers.BatchNormalization(  # noqa: E731
            synchronized=synchronized, **MOMENTUM, **options
        )
        made = checks.trainer(replication, normalizing(layer, masked))
        made.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        found.append(checks.flat(made.model.variables))
    np.testing.assert_allclose(found[1], found[0], atol=2e-5)


def test_it_stays_kerass_layer_in_a_file(mirrored, tmp_path):
    build = normalizing(lambda: keras.layers.BatchNormalization(synchronized=True))
    made = checks.trainer(mirrored(2), build)
    made.fit(checks.dataset(37), verbose=0)
    made.export(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x, _ = checks.data(3)
    np.testing.assert_allclose(loaded(x), made.model(x), atol=1e-6)
    assert [one.synchronized for one in loaded.layers if hasattr(one, "synchronized")] == [True]


class Own(keras.layers.BatchNormalization):
    def _moments(self, inputs, mask):
        return super()._moments(inputs, mask)


def test_other_layers_are_left_alone():
    plain = keras.layers.BatchNormalization
    others = [plain(), Own(synchronized=True), disttrain.layers.SyncBatchNormalization()]
    model = keras.Sequential([keras.Input((2,)), *others])
    assert not layers.synchronize(model)
    assert all("_moments" not in vars(layer) for layer in others)


def test_a_layer_that_has_adapted_follows_its_variables():
    layer = keras.layers.Normalization()
    layer.adapt(np.float32([[1.0], [3.0]]))
    fixed = keras.layers.Normalization(mean=5.0, variance=4.0)
    model = keras.Sequential([keras.Input((1,)), layer, fixed])
    layer.adapt_mean.assign([0.0])
    layer.adapt_variance.assign([4.0])
    layers.refresh(model)
    assert layer(np.float32([[6.0]])) == 3.0
    assert fixed(np.float32([[7.0]])) == 1.0


def test_collectives_of_a_function_are_numbered_in_order():
    found = []

    def body(i):
        found.append(active.collective_number())
        return [i + 1]

    @tf.function(autograph=False)
    def inner():
        found.append(active.collective_number())

    def outer():
        found.append(active.collective_number())
        inner()
        tf.while_loop(lambda i: i < 2, body, [0])
        found.append(active.collective_number())

    tf.function(outer, autograph=False)()
    tf.function(outer, autograph=False).get_concrete_function()
    assert found == [0, 1, 2, 3, 0, 1, 2]
    assert [active.collective_number() for _ in range(2)] == [0, 0]

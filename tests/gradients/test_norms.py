"""Norms of gradients: the compiled operation, TensorFlow's own and NumPy in float64 agree."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from disttrain import kernels
from disttrain.gradients.norms import norms_and_finite

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

#: Around the sizes of lanes, blocks and tasks of the compiled operation.
SHAPES = [(), (1,), (15,), (17,), (63,), (65,), (1025,), (7, 3, 5), (260, 257), (3, 65537)]


@pytest.fixture(params=["compiled", "TensorFlow"])
def compiled(request, monkeypatch):
    """Whether the compiled operation is used."""
    if request.param == "TensorFlow":
        monkeypatch.setattr(kernels, "available", lambda: None)
    elif kernels.available() is None:
        pytest.skip("there is no C++ compiler")
    return request.param == "compiled"


def norm(array):
    return np.sqrt(np.sum(np.square(np.asarray(array, np.float64))))


def random(shape, dtype="float32", size=1.0):
    values = np.random.default_rng(len(shape)).standard_normal(shape) * size
    return np.asarray(values, DTYPES[dtype])


def assert_norms(arrays, finite=True, graph=False, rtol=1e-6):
    function = tf.function(norms_and_finite) if graph else norms_and_finite
    norms, found = function([tf.constant(array) for array in arrays])
    assert norms.dtype == tf.float32
    assert norms.shape == [len(arrays)]
    assert found.shape == []
    np.testing.assert_allclose(norms, [norm(array) for array in arrays], rtol=rtol)
    assert bool(found) == finite


@pytest.mark.graph
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_every_shape(compiled, dtype, graph):
    assert_norms([random(shape, dtype) for shape in SHAPES], graph=graph)


@pytest.mark.unit
def test_gradients_of_several_dtypes(compiled):
    assert_norms([random((9, 70), dtype) for dtype in DTYPES])


@pytest.mark.unit
def test_a_dtype_that_the_operation_does_not_take(compiled):
    assert_norms([random((5,)), np.float64(random((40, 30)))])


@pytest.mark.unit
def test_a_gradient_without_elements(compiled):
    if compiled:
        assert_norms([random((0, 3)), random((5,)), random((0,))])
    else:
        assert_norms([random((0, 3)), random((5,))])


@pytest.mark.unit
def test_a_sparse_gradient_is_as_long_as_its_rows(compiled):
    values = random((3, 5))
    rows = tf.IndexedSlices(tf.constant(values), tf.constant([7, 2, 900]), tf.constant([1000, 5]))
    norms, finite = norms_and_finite([rows])
    np.testing.assert_allclose(norms, [norm(values)], rtol=1e-6)
    assert bool(finite)


@pytest.mark.unit
@pytest.mark.parametrize("size", [1e19, 1e25, 1e34])
def test_squares_that_overflow(compiled, size):
    assert_norms([random((70, 1000), size=size), random((5,))])


@pytest.mark.graph
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("size", [1e-18, 1e-22, 1e-31])
def test_squares_that_vanish(size, graph):
    """TensorFlow's own operations give 0 there, which no clip minds."""
    if kernels.available() is None:
        pytest.skip("there is no C++ compiler")
    assert_norms([random((70, 1000), size=size), random((5,))], graph=graph)


@pytest.mark.unit
def test_denormal_numbers_are_finite(compiled):
    """A processor that flushes them takes them for zeros."""
    norms, finite = norms_and_finite([tf.fill([300], 1e-40), tf.constant([3.0, 4.0])])
    assert bool(finite)
    assert 0 <= float(norms[0]) < 1e-38
    assert float(norms[1]) == 5


@pytest.mark.unit
@pytest.mark.parametrize("place", [0, 1024, 65536, 100_000], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_element_that_is_not_finite(compiled, dtype, bad, place):
    """The norms of the others are what they were."""
    gradients = [random((5,)), random((100_001,), dtype), random((1025,))]
    gradients[1][place] = bad
    norms, finite = norms_and_finite([tf.constant(g) for g in gradients])
    assert not bool(finite)
    assert not np.isfinite(norms[1])
    np.testing.assert_allclose(norms[0], norm(gradients[0]), rtol=1e-6)
    np.testing.assert_allclose(norms[2], norm(gradients[2]), rtol=1e-6)


@pytest.mark.unit
def test_the_sum_does_not_depend_on_threads(compiled):
    gradients = [tf.constant(random((400, 1000))), tf.constant(random((90_001,)))]
    found = {norms_and_finite(gradients)[0].numpy().tobytes() for _ in range(5)}
    assert len(found) == 1

"""The values that an update of all variables at once writes to, and those that it must not."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import optimizers

import disttrain
from disttrain.optimizers import fused
from tests.optimizers.fused_steps import eager, graph

pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("compiled_operations")]


@pytest.fixture(params=[(5, 3), (300, 400)], ids=["small", "shared by threads"])
def shape(request):
    return request.param


class Model:
    """Two variables with momentum, which an update moves by known steps."""

    def __init__(self, shape=(5, 3)):
        self.variables = [
            keras.Variable(np.full(shape, start, np.float32), name=f"variable_{start}")
            for start in (1, 2)
        ]
        self.optimizer = disttrain.DistributedOptimizer(
            optimizers.SGD(0.5, momentum=0.5), replication="single"
        )
        self.optimizer.build(self.variables)
        assert fused.find(self.optimizer.inner, self.variables) is not None
        self.gradients = [tf.fill(shape, 1.0), tf.fill(shape, 3.0)]
        #: Variables, then their slots, as TensorFlow has them.
        self.all = [v.value for v in (*self.variables, *self.optimizer.inner.momentums)]

    def step(self):
        self.optimizer.apply(self.gradients, self.variables)

    def at_once(self, gradients=None, variables=None, scales=None):
        """An update past the `DistributedOptimizer`, which checks what it gets."""
        update = fused.find(self.optimizer.inner, variables or self.variables)
        scales = tf.ones([2]) if scales is None else scales
        one = tf.constant(1.0)
        update.apply(gradients or self.gradients, scales, one, own=lambda v: v.value)

    def values(self):
        return [np.array(variable.numpy()) for variable in self.all]

    def assert_are(self, *expected):
        """Compares variables and slots with numbers that all of their elements have."""
        for value, number in zip(self.values(), expected, strict=True):
            np.testing.assert_array_equal(value, np.full_like(value, number))


#: Values before an update, after one and after two.
STARTS, FIRST, SECOND = (1, 2, 0, 0), (0.5, 0.5, -0.5, -1.5), (-0.25, -1.75, -0.75, -2.25)


@pytest.mark.parametrize("function", [eager, graph])
def test_what_was_read_before_an_update_stays(shape, function):
    model = Model(shape)
    step = function(model.step)
    held = [variable.read_value() for variable in model.all]
    step()
    later = [variable.read_value() for variable in model.all]
    step()
    for read, expected in ((held, STARTS), (later, FIRST)):
        for value, number in zip(read, expected, strict=True):
            np.testing.assert_array_equal(value, tf.fill(value.shape, float(number)))
    model.assert_are(*SECOND)


def test_what_a_step_reads_before_and_after_its_update(shape):
    model = Model(shape)

    @tf.function(autograph=False)
    def step():
        before = [variable.read_value() for variable in model.all]
        model.step()
        return before, [variable.read_value() for variable in model.all]

    for expected in ((STARTS, FIRST), (FIRST, SECOND)):
        for read, numbers in zip(step(), expected, strict=True):
            for value, number in zip(read, numbers, strict=True):
                np.testing.assert_array_equal(value, tf.fill(value.shape, float(number)))


@pytest.mark.parametrize("function", [eager, graph])
def test_variables_that_were_updated_by_rows(shape, function):
    """From then on TensorFlow copies what is read of them, and writes in place."""
    model = Model(shape)
    for variable in model.all:
        nothing = tf.IndexedSlices(tf.zeros([1, shape[1]]), tf.constant([0]))
        variable.scatter_add(nothing)
    step = function(model.step)
    held = [variable.read_value() for variable in model.all]
    step()
    model.assert_are(*FIRST)
    step()
    model.assert_are(*SECOND)
    for value, number in zip(held, STARTS, strict=True):
        np.testing.assert_array_equal(value, tf.fill(value.shape, float(number)))


@pytest.mark.parametrize("function", [eager, graph])
def test_variables_of_one_buffer_part(shape, function):
    """As after an assignment, which shares the value that it gets."""
    model = Model(shape)
    one, other = model.variables
    spare = tf.Variable(tf.zeros(shape))
    one.value.assign(other.value.read_value())
    spare.assign(other.value.read_value())
    function(model.step)()
    model.assert_are(1.5, 0.5, -0.5, -1.5)
    np.testing.assert_array_equal(spare, tf.fill(shape, 2.0))


@pytest.mark.parametrize("rule", ["SGD", "Adagrad", "momentum"])
def test_rows_alone_leave_what_was_read(rule):
    """Where the other rows are not touched, they have to be copied all the same."""
    make = {
        "SGD": lambda: optimizers.SGD(0.5),
        "Adagrad": lambda: optimizers.Adagrad(0.5),
        "momentum": lambda: optimizers.SGD(0.5, momentum=0.5),
    }
    variable = keras.Variable(np.arange(12, dtype=np.float32).reshape(4, 3))
    optimizer = disttrain.DistributedOptimizer(make[rule](), replication="single")
    optimizer.build([variable])
    held = variable.value.read_value()
    rows = tf.IndexedSlices(tf.ones([1, 3]), tf.constant([2]), tf.constant([4, 3]))
    graph(lambda: optimizer.apply([rows], [variable]))()
    np.testing.assert_array_equal(held, np.arange(12).reshape(4, 3))
    moved = variable.numpy() != held.numpy()
    np.testing.assert_array_equal(moved.all(axis=1), [False, False, True, False])
    np.testing.assert_array_equal(moved.any(axis=1), [False, False, True, False])


def a_row(row):
    return tf.IndexedSlices(tf.ones([1, 3]), tf.constant([row]), tf.constant([5, 3]))


WRONG = {
    "lists of other lengths": (lambda m: m.at_once(scales=tf.ones([3])), "differ in length"),
    "a gradient of another shape": (
        lambda m: m.at_once([m.gradients[0], tf.ones([3, 5])]),
        "differ in",
    ),
    "a gradient of another size": (
        lambda m: m.at_once([m.gradients[0], tf.ones([5, 4])]),
        "differ in size",
    ),
    "a row too far": (lambda m: m.at_once([m.gradients[0], a_row(5)]), "row"),
    "a row below 0": (lambda m: m.at_once([m.gradients[0], a_row(-1)]), "row"),
    "a variable twice": (lambda m: m.at_once(variables=[m.variables[0]] * 2), "twice"),
}


@pytest.mark.parametrize("function", [eager, graph])
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_and_changes_nothing(name, function):
    model = Model()
    act, words = WRONG[name]
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        function(lambda: act(model))()
    model.assert_are(*STARTS)
    # No variable stays locked.
    model.step()
    model.assert_are(*FIRST)

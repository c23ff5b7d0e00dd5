"""Which state a step moves, and that equal values stay what they are to the last bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.replication.tf_distribute import single
from disttrain.state_averaging import AssignedVariables, average
from tests._support.threaded_processes import together
from tests.distributed import checks

pytestmark = pytest.mark.graph


class Moves(keras.layers.Layer):
    """State that is assigned in every way, and some that is not."""

    def build(self, shape):
        def state(name, **options):
            return self.add_weight(
                name=name, shape=(), initializer="ones", trainable=False, **options
            )

        self.untouched = state("untouched")
        self.plain = state("plain")
        self.raw = state("raw")
        self.in_branch = state("in_branch")
        self.in_loop = state("in_loop")
        self.in_function = state("in_function")
        self.by_itself = state("by_itself")
        self.by_way_of_plain = state("by_way_of_plain")
        self.read_in_branch = state("read_in_branch")
        self.doubled = tf.function(lambda x: self.in_function.assign(self.in_function * x))

    def call(self, x):
        mean = keras.ops.mean(x)
        self.plain.assign(0.9 * self.plain + 0.1 * mean)
        self.raw.value.assign_add(mean)
        self.by_itself.assign(0.99 * self.by_itself)
        self.by_way_of_plain.assign(self.plain * 2)
        tf.cond(mean > 0, lambda: self.in_branch.value.assign(mean), lambda: tf.constant(0.0))
        tf.cond(mean > 0, lambda: self.read_in_branch.value + mean, lambda: mean)
        tf.while_loop(lambda i: i < 3, lambda i: [i + self._count(mean)], [0])
        self.doubled(mean)
        return x * self.untouched

    def _count(self, mean):
        self.in_loop.value.assign_add(mean)
        return 1


def assigned(traced):
    layer = Moves()
    layer.build((None, 2))
    found = {}

    def forward(x):
        watch = AssignedVariables(layer.weights, single())
        layer(x)
        found["all"] = [v.name for v, _ in watch.find()]
        found["dependent"] = [v.name for v, _ in watch.find_dependent((x, None))]
        return [before for _, before in watch.find()]

    forward = tf.function(forward, autograph=False) if traced else forward
    return found, forward(tf.ones([4, 2]) * 3)


MOVED = ["plain", "raw", "in_branch", "in_loop", "in_function", "by_itself", "by_way_of_plain"]


def test_every_way_to_assign_is_found_in_a_graph():
    found, before = assigned(traced=True)
    assert found["all"] == MOVED
    np.testing.assert_array_equal(before, np.ones(len(MOVED)))


def test_what_does_not_depend_on_the_data_is_told_apart():
    found, _ = assigned(traced=True)
    assert found["dependent"] == [name for name in MOVED if name != "by_itself"]


def test_eagerly_values_are_compared():
    found, before = assigned(traced=False)
    assert found["all"] == MOVED
    np.testing.assert_array_equal(before, np.ones(len(MOVED)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_equal_values_keep_their_bits_on_three_replicas(dtype):
    values = np.concatenate(
        [np.random.default_rng(0).standard_normal(1000), [0.0, -0.0, 1e-7, 3e4, np.inf, -np.inf]]
    )

    def run(replication):
        variable = keras.Variable(values, dtype=dtype, trainable=False)
        before = bits(variable)
        average(Summing(replication), [variable], tf.constant(replication.topology.process == 0))
        return before, bits(variable)

    for before, after in together(3, run):
        assert before == after


class Summing:
    """A replication of threads that also sums."""

    def __init__(self, process):
        self._process = process
        self.replicas = process.topology.processes

    def replica_index(self):
        return self._process.topology.process

    def reduce_sum(self, tensors, name):
        return [tf.constant(_sum(self._process.all_gather(tensor.numpy()))) for tensor in tensors]


def _sum(parts):
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def bits(variable):
    return np.asarray(variable.value).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_different_values_become_their_mean(dtype):
    def run(replication):
        rank = replication.topology.process
        variable = keras.Variable([1.0 + rank, 60000.0, -3.0 * rank], dtype=dtype, trainable=False)
        average(Summing(replication), [variable], tf.constant(rank == 0))
        return np.asarray(variable.value, np.float32)

    for found in together(3, run):
        expected = tf.cast(tf.constant([2.0, 60000.0, -3.0]), dtype)
        np.testing.assert_array_equal(found, tf.cast(expected, tf.float32))


@pytest.fixture
def three(mirrored):
    return mirrored(3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_frozen_weights_keep_their_bits(three, dtype):
    made = checks.trainer(three, lambda: checks.counting(dtype))
    before = [bits(v) for v in made.model.get_layer("frozen").weights]
    made.fit(checks.dataset(37), epochs=3, verbose=0)
    assert [bits(v) for v in made.model.get_layer("frozen").weights] == before


def test_a_replica_without_examples_counts_steps_but_has_no_part_in_a_mean(three):
    made = checks.trainer(three, checks.counting)
    made.fit(checks.dataset(41), verbose=0)  # the last batch has one example
    layer = made.model.get_layer("counts")
    assert float(layer.temperature.numpy()) == pytest.approx(0.9**6)
    for steps in three.strategy.experimental_local_results(layer.steps.value):
        assert int(steps) == 1 + 6
    x, _ = checks.data(41)
    # Replica 2 alone has a part of the last batch; the others keep what the one before gave.
    expected = [x[32:34].mean(), x[34:37].mean(), x[40].mean()]
    assert float(layer.mean.numpy()) == pytest.approx(np.mean(expected), abs=1e-6)


def test_only_what_a_step_assigns_travels(three):
    made = checks.trainer(three, checks.counting)
    made.fit(checks.dataset(41), verbose=0)
    names = [v.name for v in made._task.state_to_average()]
    averaged = dict(zip(names, made._train_step._averaged, strict=True))
    assert averaged == {
        "kernel": False,
        "bias": False,
        "temperature": True,
        "mean": True,
        "kept": False,
    }


def test_a_second_pass_sees_the_state_of_the_first_and_copies_nothing_else(three):
    made = checks.trainer(
        three, checks.counting, disttrain.optimizers.SAM(keras.optimizers.SGD(0.1))
    )
    made.fit(checks.dataset(41), verbose=0)
    assert float(made.model.get_layer("counts").temperature.numpy()) == pytest.approx(0.9**6)

"""Replicas that drift apart are found, named and told from replicas that only round differently."""

import threading
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain.replication import Replication, Topology, resolve
from disttrain.telemetry import divergence
from disttrain.telemetry.divergence import TOLERANCES, DivergenceCheck, bit_hashes
from tests._support.timeouts import TIMEOUT

FLOATS = ("float64", "float32", "float16", "bfloat16")
WEIGHTS = divergence._odd_weights(64)


class Together(Replication):
    """Processes of one replica each, as threads that wait for each other in every gather."""

    name = "together"

    def __init__(self, processes, process, shared):
        self.topology = Topology(processes, process)
        self._shared, self._barrier = shared

    def reduce_sum(self, tensors, name):
        raise NotImplementedError

    def gather(self, tensor, name):
        raise NotImplementedError

    def all_gather(self, array):
        self._shared[self.topology.process] = np.asarray(array)
        self._barrier.wait(TIMEOUT)
        gathered = np.stack(self._shared)
        self._barrier.wait(TIMEOUT)
        return gathered


def on_processes(values, steps=(1,)):
    """Checks variables `[processes][variables]` on as many processes at once.

    Returns:
        For each process, what it raised or `None`, and for all, the warnings.
    """
    count = len(values)
    shared = [None] * count, threading.Barrier(count)
    raised = [None] * count
    variables = [make(own) for own in values]

    def run(process):
        replication = Together(count, process, shared)
        check = DivergenceCheck(replication, variables[process], every=1)
        try:
            for step in steps:
                check.check(step)
        except RuntimeError as error:
            raised[process] = str(error)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=run, args=[process]) for process in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
    return raised, [str(warning.message) for warning in warned]


def make(values):
    return [
        keras.Variable(value, dtype=np.asarray(value).dtype.name, name=f"v{i}")
        for i, value in enumerate(values)
    ]


def numbers(shape, dtype="float32", seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return values.astype(tf.as_dtype(dtype).as_numpy_dtype)


@pytest.fixture
def two(mirrored):
    """A mirrored replication of two, and a function that makes variables in its scope."""
    replication = mirrored(2)

    def variables(*values, **options):
        with replication.scope():
            return [
                keras.Variable(value, dtype=np.asarray(value).dtype.name, name=f"v{i}", **options)
                for i, value in enumerate(values)
            ]

    return replication, variables


def hash_of(value):
    return int(bit_hashes([tf.constant(value)], tf.constant(WEIGHTS))[0])


def assign(variable, replica, value):
    """Gives one replica's component of a mirrored variable another value."""
    variable.value.values[replica].assign(value)


# Hashes.


@pytest.mark.unit
@pytest.mark.parametrize("dtype", [*FLOATS, "int8", "uint8", "int32", "int64", "bool"])
def test_every_single_bit_changes_the_hash(dtype):
    dtype = tf.as_dtype(dtype).as_numpy_dtype
    value = np.zeros(3, dtype) if dtype == np.bool_ else numbers(3).astype(dtype)
    seen = {hash_of(value)}
    bits = 1 if dtype == np.bool_ else 8 * value.itemsize
    for place in range(3):
        for bit in range(bits):
            changed = value.copy()
            words = changed.view(f"u{value.itemsize}")
            words[place] ^= words.dtype.type(1 << bit)
            seen.add(hash_of(changed))
    assert len(seen) == 1 + 3 * bits


@pytest.mark.unit
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [8, 20], ids=["one piece", "several pieces"])
def test_the_order_of_rows_and_of_columns_counts(rows, dtype):
    value = numbers((rows, 5), dtype)
    hashes = [
        hash_of(changed)
        for changed in (value, value[::-1], value[:, ::-1], np.roll(value, 1, axis=0))
    ]
    assert len(set(hashes)) == 4


@pytest.mark.unit
@pytest.mark.parametrize("size", [3, 63, 64, 65, 128, 1000])
def test_changes_that_are_alike_do_not_cancel_out(size):
    """All signs, two signs, all exponents, two elements swapped, and the first one elsewhere."""
    value = numbers(size)
    flipped, swapped = value.copy(), value.copy()
    flipped[[0, -1]] *= -1
    swapped[[0, -1]] = swapped[[-1, 0]]
    changed = [value, -value, flipped, swapped, 2 * value, value / 2, np.roll(value, 1)]
    changed += [np.zeros_like(value), np.ones_like(value), -np.zeros_like(value)]
    assert len({hash_of(v) for v in changed}) == len(changed)


@pytest.mark.unit
def test_the_hash_is_the_same_on_every_machine():
    """Processes compare them, so the weights must not depend on a library's random numbers."""
    found = hash_of([1.0, -2.0, 3.0])
    words = np.float32([1.0, -2.0, 3.0]).view(np.int32).astype(np.int64)
    weights = [-2152535657050944081, 7960286522194355701, 487617019471545679]
    total = sum(int(w) * x for w, x in zip(words, weights, strict=True)) % 2**64
    assert found % 2**64 == total


@pytest.mark.unit
def test_hashes_come_in_the_order_of_the_values_whatever_their_dtypes_and_sizes():
    """What is hashed together, and with which weights, depends on the list; a change shows."""
    sizes = [3, 0, 40, 1, 200, 5, 64, 65, 2, 30]
    dtypes = ["float32", "float64", "int8", "bfloat16", "float32", "float64"]
    values = [numbers(n, dtypes[i % len(dtypes)], seed=i) for i, n in enumerate(sizes)]
    hashes = bit_hashes([tf.constant(v) for v in values], tf.constant(WEIGHTS)).numpy()
    assert hashes.shape == (len(sizes),)
    assert hashes[1] == 0
    assert hashes[4] == hash_of(values[4])
    for i in range(len(sizes)):
        for place in (0, -1):
            if sizes[i]:
                changed = [v.copy() for v in values]
                changed[i].view(np.uint8)[place] ^= 1
                other = bit_hashes([tf.constant(v) for v in changed], tf.constant(WEIGHTS)).numpy()
                np.testing.assert_array_equal(other != hashes, np.arange(len(sizes)) == i)


@pytest.mark.unit
def test_each_of_many_small_values_has_its_own_hash():
    values = numbers(200).reshape(200, 1)
    hashes = bit_hashes([tf.constant(v) for v in values], tf.constant(WEIGHTS)).numpy()
    assert len(set(hashes)) == 200
    values[130] += 1
    other = bit_hashes([tf.constant(v) for v in values], tf.constant(WEIGHTS)).numpy()
    np.testing.assert_array_equal(np.flatnonzero(other != hashes), [130])


@pytest.mark.graph
def test_long_values_take_no_memory_of_their_size():
    """They are hashed piece by piece: outside of the loop they are only looked at."""
    hashed = tf.function(lambda value: bit_hashes([value], tf.constant(WEIGHTS)), autograph=False)
    graph = hashed.get_concrete_function(tf.TensorSpec([100_000])).graph
    large = {
        operation.type
        for operation in graph.get_operations()
        for output in operation.outputs
        if (output.shape.num_elements() or 0) > 64
    }
    assert large <= {"Placeholder", "Reshape", "While", "StatelessWhile"}


# Replicas in one process.


@pytest.mark.graph
def test_equal_replicas_pass(replication):
    replication = resolve(replication)
    with replication.scope():
        variables = make([numbers((4, 3)), numbers(3, "bfloat16"), np.float64(2.0)])
    check = DivergenceCheck(replication, variables, every=10)
    for step in (10, 20):
        check.check(step)


@pytest.mark.graph
@pytest.mark.parametrize("dtype", FLOATS)
def test_another_value_on_one_replica_is_an_error_that_names_the_variable(two, dtype):
    replication, variables = two
    made = variables(numbers(5, dtype), numbers((3, 4), dtype), numbers(2, dtype))
    check = DivergenceCheck(replication, made, every=1)
    check.check(1)
    assign(made[1], 1, made[1].value.values[0] * 2)
    assign(made[2], 1, made[2].value.values[0] + 1)
    with pytest.raises(RuntimeError, match=r"after step 2: 'v1' on replica 1 is not") as caught:
        check.check(2)
    assert "2 of 3 variables differ" in str(caught.value)
    assert "are 1 of their size apart" in str(caught.value)
    for cause in ("BroadcastVariables()", "callback", "seeds", "deterministic"):
        assert cause in str(caught.value)


@pytest.mark.graph
def test_the_replicas_that_differ_are_named(mirrored):
    replication = mirrored(4)
    with replication.scope():
        (variable,) = make([numbers(3)])
    for replica in (1, 3):
        assign(variable, replica, [1.0, 2.0, 3.0])
    with pytest.raises(RuntimeError, match="on replicas 1 and 3 is not that of replica 0"):
        DivergenceCheck(replication, [variable], every=1).check(7)


@pytest.mark.graph
def test_permuted_rows_are_found(two):
    replication, variables = two
    (embedding,) = variables(numbers((6, 4)))
    assign(embedding, 1, embedding.value.values[0][::-1])
    with pytest.raises(RuntimeError, match="v0"):
        DivergenceCheck(replication, [embedding], every=1).check(1)


@pytest.mark.graph
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_single_bit_is_seen_and_taken_for_rounding(two, dtype):
    replication, variables = two
    made = variables(numbers(4, dtype), numbers((7, 3), dtype))
    word = numbers((7, 3), dtype)
    word.view(f"u{word.itemsize}")[2, 1] ^= 1
    assign(made[1], 1, word)
    check = DivergenceCheck(replication, made, every=1)
    with pytest.warns(UserWarning, match=r"after step 5, elements of 'v1' are up to"):
        check.check(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check.check(6)


@pytest.mark.graph
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_tolerance_is_relative_to_the_weights(two, dtype, scale):
    replication, variables = two
    value = (scale * np.linspace(-1, 1, 9)).astype(tf.as_dtype(dtype).as_numpy_dtype)
    rounding = pytest.warns(UserWarning, match="round differently")
    for factor, outcome in ((0.5, rounding), (3.0, pytest.raises(RuntimeError, match="v0"))):
        (variable,) = variables(value)
        moved = value.astype(np.float64)
        moved[8] *= 1 + factor * TOLERANCES[dtype]
        assign(variable, 1, moved.astype(value.dtype))
        with outcome:
            DivergenceCheck(replication, [variable], every=1).check(1)


@pytest.mark.graph
def test_elements_near_zero_are_measured_by_the_root_mean_square(two):
    replication, variables = two
    value = np.float32([1e-9, 1.0, -1.0])
    (variable,) = variables(value)
    assign(variable, 1, value * np.float32([-1, 1, 1]))
    with pytest.warns(UserWarning, match="2.4e-09"):
        DivergenceCheck(replication, [variable], every=1).check(1)


@pytest.mark.graph
def test_zeros_on_replica_0_do_not_hide_what_others_hold(two):
    replication, variables = two
    (variable,) = variables(np.zeros(3, np.float32))
    assign(variable, 1, [0.0, 1e-30, 0.0])
    with pytest.raises(RuntimeError, match="v0"):
        DivergenceCheck(replication, [variable], every=1).check(1)


@pytest.mark.graph
@pytest.mark.parametrize("dtype", FLOATS)
def test_zeros_of_different_sign_are_equal(two, dtype):
    replication, variables = two
    (variable,) = variables(np.zeros(3, tf.as_dtype(dtype).as_numpy_dtype))
    assign(variable, 1, -variable.value.values[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DivergenceCheck(replication, [variable], every=1).check(1)


@pytest.mark.graph
@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_on_all_replicas_is_no_difference(two, dtype):
    replication, variables = two
    value = numbers(4, dtype)
    value[1], value[2] = np.nan, np.inf
    (variable,) = variables(value)
    check = DivergenceCheck(replication, [variable], every=1)
    check.check(1)
    # Processors differ in the sign of the NaN that they make.
    value.view(f"u{value.itemsize}")[1] ^= 1 << (8 * value.itemsize - 1)
    assign(variable, 1, value)
    check.check(2)


@pytest.mark.graph
@pytest.mark.parametrize("other", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("replica", [0, 1])
def test_nan_on_one_replica_is_a_difference(two, replica, other):
    replication, variables = two
    value = numbers(4)
    (variable,) = variables(value)
    value[3] = other
    assign(variable, replica, value)
    with pytest.raises(RuntimeError, match="finite on one of them only"):
        DivergenceCheck(replication, [variable], every=1).check(1)


@pytest.mark.graph
def test_infinities_of_different_sign_differ(two):
    replication, variables = two
    (variable,) = variables(np.float32([np.inf, 1.0]))
    assign(variable, 1, [-np.inf, 1.0])
    with pytest.raises(RuntimeError, match="v0"):
        DivergenceCheck(replication, [variable], every=1).check(1)


@pytest.mark.graph
@pytest.mark.parametrize("dtype", ["int32", "int64", "bool"])
def test_whole_numbers_have_no_rounding(two, dtype):
    replication, variables = two
    (variable,) = variables(np.asarray([5, 0, 1], dtype), trainable=False)
    assign(variable, 1, np.asarray([5, 1, 1], dtype))
    with pytest.raises(RuntimeError, match="v0"):
        DivergenceCheck(replication, [variable], every=1).check(1)


@pytest.mark.graph
def test_a_large_rounding_before_a_real_difference_does_not_hide_it(two):
    replication, variables = two
    made = variables(np.ones(3, np.float32), np.ones(3, np.float32))
    assign(made[0], 1, np.nextafter(np.ones(3, np.float32), np.float32(2)))
    assign(made[1], 1, np.full(3, 1.5, np.float32))
    with pytest.raises(RuntimeError, match="'v1'"):
        DivergenceCheck(replication, made, every=1).check(1)


@pytest.mark.graph
def test_long_variables_are_compared_piece_by_piece(two, monkeypatch):
    monkeypatch.setattr(divergence, "_WORDS", 64)
    monkeypatch.setattr(divergence, "_COMPARED", 32)
    replication, variables = two
    for place in (0, 15, 16, 999):
        (variable,) = variables(np.ones((100, 10), np.float32))
        check = DivergenceCheck(replication, [variable], every=1)
        check.check(1)
        value = np.ones(1000, np.float32)
        value[place] = 3
        assign(variable, 1, value.reshape(100, 10))
        with pytest.raises(RuntimeError, match="are 2 of their size apart"):
            check.check(2)


@pytest.mark.graph
def test_slots_of_an_optimizer_are_watched_as_weights_are(two):
    replication, variables = two
    made = variables(numbers(3))
    with replication.scope():
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(made)
    assign(optimizer.momentums[0], 1, [1.0, 0.0, 0.0])
    with pytest.raises(RuntimeError, match="momentum"):
        DivergenceCheck(replication, [*made, *optimizer.momentums], every=1).check(1)


@pytest.mark.unit
def test_one_replica_and_no_variables_need_no_check(two):
    replication, _ = two
    DivergenceCheck(replication, [], every=1).check(1)
    (variable,) = make([np.float32([np.nan])])
    DivergenceCheck(resolve("single"), [variable], every=1).check(1)


# Several processes.


@pytest.mark.graph
def test_equal_processes_pass():
    raised, warned = on_processes([[numbers(4), numbers((2, 3), "bfloat16")]] * 3, steps=(1, 2))
    assert raised == [None] * 3
    assert not warned


@pytest.mark.graph
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("process", [0, 2])
def test_all_processes_raise_the_same_error(dtype, process):
    values = [[numbers(4), numbers((3, 2), dtype)] for _ in range(3)]
    values[process][1] = numbers((3, 2), dtype, seed=1)
    raised, _ = on_processes(values)
    assert raised[0] is not None
    assert raised == [raised[0]] * 3
    named = "replicas 1 and 2" if process == 0 else "replica 2"
    assert f"'v1' on {named} is not" in raised[0]


@pytest.mark.graph
def test_only_the_chief_warns_of_rounding_and_only_once():
    near = np.nextafter(numbers(4), np.float32(9))
    raised, warned = on_processes([[numbers(4)], [near]], steps=(1, 2, 3))
    assert raised == [None, None]
    assert len(warned) == 1
    assert "round differently" in warned[0]


@pytest.mark.graph
def test_processes_that_compute_the_difference_differently_still_decide_alike(monkeypatch):
    """As processors that round differently might, at the limit of what is tolerated."""
    found = iter([np.float64([0, 1.0]), np.float64([0, 0.0])])
    lock = threading.Lock()

    def differ(values, rms):
        with lock:
            return next(found)

    monkeypatch.setattr(divergence, "_difference", differ)
    raised, _ = on_processes([[numbers(4)], [numbers(4, seed=1)]])
    assert raised in ([None, None], [raised[0]] * 2)


@pytest.mark.graph
def test_many_replicas_are_not_all_listed():
    values = [[np.float32([process])] for process in range(12)]
    raised, _ = on_processes(values)
    assert "on replicas 1, 2, 3, 4, 5, 6, 7, 8, ... (11 in all) is not" in raised[0]


# When.


@pytest.mark.unit
@pytest.mark.parametrize("every", [1, 3, 10])
@pytest.mark.parametrize("per_execution", [1, 2, 4, 25])
def test_an_execution_with_a_multiple_among_its_steps_is_followed_by_a_check(every, per_execution):
    check = DivergenceCheck(resolve("single"), [], every)
    for first in range(1, 100, per_execution):
        last = first + per_execution - 1
        expected = first == 1 or any(step % every == 0 for step in range(first, last + 1))
        assert check.due(first, last) == expected
        if expected:
            check.check(last)


@pytest.mark.unit
def test_the_first_execution_of_a_resumed_run_is_checked():
    check = DivergenceCheck(resolve("single"), [], every=1000)
    assert check.due(501, 510)
    check.check(510)
    assert not check.due(511, 520)


@pytest.mark.unit
@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_an_interval_that_is_no_whole_number_is_refused(every):
    with pytest.raises(ValueError, match="every"):
        DivergenceCheck(resolve("single"), [], every)

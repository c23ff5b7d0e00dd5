"""Global batches are cut into parts: every row exactly once, in order, and nearly evenly."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain import data
from disttrain.data import parts
from disttrain.replication import Topology

RANGE = np.arange(4)


def single(replicas):
    return Topology(local_replicas=replicas)


def rows_of(element):
    """The rows of each part that count."""
    return [
        part[0].numpy()[: int(count)].tolist()
        for part, count in zip(element["parts"], element["rows"].numpy(), strict=True)
    ]


def dataset(*arrays, size):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


@pytest.mark.unit
@pytest.mark.parametrize("replicas", range(1, 6))
@pytest.mark.parametrize("rows", range(1, 10))
def test_every_row_goes_to_exactly_one_replica(rows, replicas):
    batch = (tf.range(rows),)
    for static_rows in (None, rows) if rows % replicas == 0 else (None,):
        element = parts.split(batch, single(replicas), static_rows)
        cut = rows_of(element)
        assert list(itertools.chain(*cut)) == list(range(rows)), "in order, each once"
        counts = [len(part) for part in cut]
        assert counts == element["rows"].numpy().tolist()
        assert max(counts) - min(counts) <= 1, "nearly even"
        assert float(element["total"]) == sum(counts) == rows
        assert all(len(part[0]) >= 1 for part in element["parts"]), "an empty part borrows a row"


@pytest.mark.unit
@pytest.mark.parametrize("rows", [1, 5, 6])
def test_processes_cut_the_same_parts_as_replicas_of_one_process(rows):
    batch = (tf.range(rows),)
    together = rows_of(parts.split(batch, single(6), None))
    apart = [
        part
        for process in range(3)
        for part in rows_of(parts.split(batch, Topology(3, process, 2), None))
    ]
    assert apart == together


@pytest.mark.graph
def test_static_shapes_stay_where_the_replicas_divide_the_batch():
    x = np.zeros([8, 3], np.float32)
    fixed = tf.data.Dataset.from_tensor_slices((x, x)).batch(4, drop_remainder=True)
    assert data.make_feed(fixed, single(2)).spec[0].shape == (2, 3)
    assert data.make_feed(dataset(x, x, size=4), single(2)).spec[0].shape == (None, 3)


@pytest.mark.unit
@pytest.mark.parametrize(
    "whole", [RANGE, (RANGE, RANGE + 10), {"a": RANGE, "b": (RANGE + 10,)}], ids=["x", "x, y", "{}"]
)
@pytest.mark.parametrize("topology", [single(2), Topology(2, 1, 1), Topology(2, 1, 2)], ids=str)
def test_a_step_cuts_batches_of_a_known_size_by_itself(whole, topology):
    fixed = tf.data.Dataset.from_tensor_slices(whole).batch(4, drop_remainder=True)
    feed = data.make_feed(fixed, topology)
    element = next(iter(feed.dataset(0)))
    tf.nest.assert_same_structure(element, whole)
    own = feed.divide(element)
    batch = element if type(element) is tuple else (element,)
    expected = parts.split(batch, topology, None)
    tf.nest.assert_same_structure(own, expected)
    for part, other in zip(*map(tf.nest.flatten, (own, expected)), strict=True):
        np.testing.assert_array_equal(part, other)
    tf.nest.map_structure(
        lambda spec, part: spec.shape.assert_is_compatible_with(part.shape),
        feed.spec,
        own["parts"][0],
    )


@pytest.mark.graph
def test_batches_are_cut_on_the_cpu_before_a_gpu_gets_its_part():
    divide = parts.cut(Topology(2, 1, 1), 4)

    @tf.function(autograph=False)
    def cut(x):
        with tf.device("GPU:0"):
            return divide((x,))["parts"][0][0]

    graph = cut.get_concrete_function(tf.TensorSpec([4, 3])).graph
    slices = [op.device for op in graph.get_operations() if op.type == "StridedSlice"]
    assert slices
    assert all(device.endswith("CPU:0") for device in slices)


@pytest.mark.unit
def test_structures_are_cut_leaf_by_leaf():
    batch = ({"a": tf.range(4), "b": (tf.range(10, 14),)}, tf.range(20, 24))
    first, second = parts.split(batch, single(2), None)["parts"]
    assert first[0]["a"].numpy().tolist() == [0, 1]
    assert second[0]["b"][0].numpy().tolist() == [12, 13]
    assert second[1].numpy().tolist() == [22, 23]


@pytest.mark.unit
@pytest.mark.parametrize(
    "element",
    [
        RANGE,
        (RANGE, RANGE + 4),
        {"a": RANGE, "b": (RANGE + 10,)},
        ({"a": RANGE}, RANGE, RANGE.astype(np.float32)),
    ],
    ids=["tensor", "pair", "dictionary", "weights"],
)
def test_a_single_replica_gets_the_element_as_it_is(element):
    element = tf.nest.map_structure(tf.constant, element)
    batch = element if type(element) is tuple else (element,)
    expected = parts.split(batch, single(1), None)
    tf.nest.assert_same_structure(parts.whole(element), expected)
    for own, other in zip(*map(tf.nest.flatten, (parts.whole(element), expected)), strict=True):
        assert own.dtype == other.dtype
        assert own.numpy().tolist() == other.numpy().tolist()


@pytest.mark.graph
def test_the_rows_of_a_batch_are_counted_where_its_shape_does_not_tell():
    @tf.function(input_signature=[(tf.TensorSpec([None, 3]),)])
    def rows(element):
        return parts.whole(element)["rows"], parts.whole(element)["total"]

    assert [r.numpy().tolist() for r in rows((tf.zeros([5, 3]),))] == [[5.0], 5.0]


@pytest.mark.unit
@pytest.mark.parametrize("drop", [False, True])
def test_the_structure_of_a_part_is_known_before_it_is_read(drop):
    whole = tf.data.Dataset.from_tensor_slices({"a": np.zeros([8, 3], np.float32)})
    feed = data.make_feed(whole.batch(4, drop_remainder=drop), single(1))
    assert feed.spec[0]["a"].shape == (4 if drop else None, 3)
    assert len(feed.spec) == 1


@pytest.mark.graph
def test_nothing_has_the_shapes_of_a_part_and_rows_that_do_not_count():
    x = np.ones([4, 3], np.float32)
    feed = data.make_feed(lambda context: dataset(x, np.arange(4), size=2), single(2))
    element = next(iter(feed.dataset(0)))
    nothing = parts.nothing(tf.nest.map_structure(tf.TensorSpec.from_tensor, element))
    tf.nest.assert_same_structure(element, nothing)
    assert nothing["rows"].numpy().tolist() == [0, 0]
    for part in nothing["parts"]:
        assert part[0].dtype == tf.float32
        assert part[1].dtype == tf.int64
        assert part[0].shape[1:] == (3,)
        assert len(part[0]) >= 1
        assert not np.any(part[0])


@pytest.mark.graph
def test_a_process_whose_part_is_shorter_goes_on_with_nothing():
    longest = lambda array: np.asarray([array, 3])  # noqa: E731, another process has 3 steps
    feed = data.make_feed(
        lambda context: dataset(np.arange(4), size=2), Topology(2, 0, 1), all_gather=longest
    )
    elements = list(feed.dataset(0))
    assert feed.steps == len(elements) == 3
    assert [rows_of(element) for element in elements] == [[[0, 1]], [[2, 3]], [[]]]
    assert not feed.shared


@pytest.mark.graph
def test_the_function_of_an_input_context_learns_its_part_of_the_batch():
    seen = []

    def function(context):
        seen.append(
            (
                context.num_input_pipelines,
                context.input_pipeline_id,
                context.get_per_replica_batch_size(8),
            )
        )
        return dataset(np.arange(4), size=2)

    data.make_feed(function, Topology(2, 1, 3), all_gather=lambda array: np.asarray([array, array]))
    assert seen == [(2, 1, 4)]


def order(feed, epoch):
    elements = map(feed.divide, feed.dataset(epoch))
    return [row for element in elements for part in rows_of(element) for row in part]


@pytest.mark.graph
def test_arrays_are_shuffled_anew_in_each_epoch_and_alike_for_the_same_seed():
    def feed(seed, replicas=1):
        return data.make_feed(
            np.arange(20), single(replicas), batch_size=6, shuffle=True, seed=seed
        )

    assert order(feed(1), 0) == order(feed(1), 0) == order(feed(1, replicas=3), 0)
    assert order(feed(1), 0) != order(feed(1), 1)
    assert order(feed(1), 0) != order(feed(2), 0)
    assert sorted(order(feed(1), 1)) == list(range(20))


@pytest.mark.graph
def test_arrays_without_shuffle_keep_their_order():
    assert order(data.make_feed(np.arange(7), single(2), batch_size=3), 4) == list(range(7))


@pytest.mark.unit
@pytest.mark.parametrize("rows", [1, 2, 5, 6])
@pytest.mark.parametrize("topology", [single(2), Topology(3, 2, 1), Topology(3, 1, 2)], ids=str)
def test_of_arrays_a_process_takes_its_own_rows_alone(topology, rows):
    taken = []
    arrays = tf.range(100, 120), {"y": tf.range(20, 40)[:, None]}

    def take(numbers):
        taken.append(len(numbers))
        return keras.tree.map_structure(lambda leaf: tf.gather(leaf, numbers), arrays)

    order = tf.constant([7, 3, 11, 0, 19, 5][:rows], tf.int64)
    found = parts.split_rows(order, take, topology)
    fingerprints = 1 if topology.processes > 1 else 0
    assert len(taken) == topology.local_replicas + fingerprints
    assert sum(taken) <= -(-rows // topology.replicas) * topology.local_replicas + fingerprints
    expected = parts.split(take(order), topology, None)
    tf.nest.assert_same_structure(found, expected)
    for own, other in zip(*map(tf.nest.flatten, (found, expected)), strict=True):
        np.testing.assert_array_equal(own, other)


@pytest.mark.graph
@pytest.mark.parametrize("shuffle", [False, True])
def test_arrays_are_mapped_once_for_all_epochs(shuffle, monkeypatch):
    mapped = []
    split = parts.split_rows
    monkeypatch.setattr(parts, "split_rows", lambda *given: mapped.append(given) or split(*given))
    feed = data.make_feed(np.arange(7), single(2), batch_size=3, shuffle=shuffle, seed=5)
    for epoch in (0, 1, 7, 1):
        expected = np.random.default_rng([5, epoch]).permutation(7) if shuffle else np.arange(7)
        assert order(feed, epoch) == expected.tolist()
    assert len(mapped) == 1


@pytest.mark.graph
def test_arrays_go_on_in_the_middle_of_an_epoch():
    feed = data.make_feed(np.arange(7), single(2), batch_size=3, shuffle=True, seed=5)
    rest = [row for element in feed.dataset(4, 1) for part in rows_of(element) for row in part]
    assert rest == np.random.default_rng([5, 4]).permutation(7)[3:].tolist()


@pytest.mark.graph
def test_arrays_are_read_in_the_scope_of_a_strategy_too(mirrored):
    with mirrored(2).scope():
        feed = data.make_feed(np.arange(7), single(2), batch_size=3, shuffle=True, seed=5)
    assert order(feed, 1) == np.random.default_rng([5, 1]).permutation(7).tolist()


@pytest.mark.unit
def test_fingerprints_tell_batches_apart_where_there_are_several_processes():
    def prints(rows, topology):
        x = tf.constant(rows, tf.float32)[:, None]
        return float(parts.split((x, tf.range(len(rows))), topology, None)["fingerprint"])

    first, second = Topology(2, 0, 1), Topology(2, 1, 1)
    assert prints([1, 2], first) == prints([1, 2], second)
    assert len({prints([number, 2], first) for number in range(40)}) > 35
    assert prints([1, 2], single(2)) == 0


@pytest.mark.unit
def test_fingerprints_add_up_exactly():
    assert all(
        0 <= float(parts.split((tf.constant([i]),), Topology(2), None)["fingerprint"]) < 1021
        for i in range(20)
    )


@pytest.mark.graph
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (lambda: np.zeros([3, 2]), tf.float32),
        (lambda: np.zeros([3, 2], np.int64), tf.int64),
        (lambda: np.zeros([3, 2], np.float16), tf.float16),
        (lambda: tf.zeros([3, 2], tf.float64), tf.float32),
    ],
)
def test_arrays_become_tensors_of_the_model_s_precision(given, expected):
    assert data.make_feed(given(), single(1)).spec[0].dtype == expected


@pytest.mark.graph
def test_steps_come_from_the_data_or_from_the_user():
    x = np.arange(10)
    assert data.make_feed(x, single(1), batch_size=4).steps == 3
    assert data.make_feed(dataset(x, size=4), single(1)).steps == 3
    unknown = dataset(x, size=4).filter(lambda rows: True)
    assert data.make_feed(unknown, single(1)).steps is None
    endless = data.make_feed(dataset(x, size=4), single(1), steps=5)
    assert (endless.steps, endless.endless, endless.length) == (5, True, 3)
    assert len(list(endless.dataset(0).take(7))) == 3


X = np.zeros([6, 2], np.float32)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        (lambda: tf.data.Dataset.range(3), {}, ValueError, r"not batched.*dataset\.batch"),
        (lambda: tf.data.Dataset.from_tensor_slices((X, X[:, :1])), {}, ValueError, r"not batched"),
        (lambda: dataset(X, size=2).take(0), {}, ValueError, r"dataset is empty"),
        (lambda: dataset(X, size=2).repeat(), {}, ValueError, r"no end.*steps_per_epoch"),
        (lambda: dataset(X, X, X, X, size=2), {}, ValueError, r"yields 4 parts"),
        (lambda: dataset(X, size=2), {"y": X}, ValueError, r"come from the dataset itself"),
        (lambda: dataset(X, size=2), {"batch_size": 2}, ValueError, r"batch_size goes with arrays"),
        (lambda: X, {"y": X[:5]}, ValueError, r"different numbers of examples: \[5, 6\]"),
        (lambda: X[:0], {}, ValueError, r"arrays are empty"),
        (lambda: X, {"batch_size": 0.5}, ValueError, r"batch_size.*0\.5"),
        (lambda: X, {"batch_size": -1}, ValueError, r"batch_size.*-1"),
        (lambda: X, {"batch_size": 0}, ValueError, r"batch_size.*0"),
        (lambda: np.float32(1), {}, ValueError, r"first axis of examples"),
        (lambda: lambda context: X, {}, TypeError, r"must return a tf\.data\.Dataset, not ndarray"),
        (
            lambda: lambda context: dataset(X, size=2).repeat(),
            {},
            ValueError,
            r"does not tell its length",
        ),
        (
            lambda: lambda context: dataset(X, size=2).take(0),
            {},
            ValueError,
            r"empty on every process",
        ),
    ],
)
def test_data_that_cannot_be_used_are_named(given, options, error, message):
    with pytest.raises(error, match=message):
        data.make_feed(given(), single(1), **options)


@pytest.mark.graph
@pytest.mark.parametrize(
    "given",
    [lambda: X[:2], lambda: tf.data.Dataset.from_tensor_slices(X).batch(2, drop_remainder=True)],
    ids=["arrays", "dataset"],
)
def test_a_global_batch_smaller_than_the_replicas_is_refused_for_training_alone(given):
    with pytest.raises(ValueError, match=r"global batch of 2 is smaller.*replicas \(3\)"):
        data.make_feed(given(), single(3), training=True)
    assert data.make_feed(given(), single(3)).steps

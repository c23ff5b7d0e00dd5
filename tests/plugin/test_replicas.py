"""What the reader says of replicas: each one's quantities, joined over elastic restarts."""

import json

import numpy as np
import pytest
from tensorboard import errors

from tensorboard_plugin import answers, metadata, parts, reader
from tests.plugin.run_writer import layers_part, replicas_part, variable
from tests.plugin.test_reader import CONTEXT, EXPERIMENT, MemoryProvider, decode_binary

pytestmark = pytest.mark.unit

TWO = replicas_part(2)


def _values(part, fill):
    """A record: `fill` in hundreds, the replica in tens, the column in ones."""
    replica, column = np.indices(part.shape(metadata.REPLICAS))
    return (100 * fill + 10 * replica + column).astype(np.float32)


def _add(memory, number, part, steps, wall=0, fill=None):
    data = [(s, wall + s, _values(part, s if fill is None else fill)) for s in steps]
    tag = metadata.part_tag(metadata.REPLICAS, number)
    memory.add("run", tag, metadata.encode(metadata.REPLICAS, part), data)


def _ask(memory, quantities=None, columns=512, **window):
    asked = reader.Reader(memory)
    return asked.replicas(CONTEXT, EXPERIMENT, "run", quantities, columns, **window)


def _json(*arguments, **window):
    return json.loads(answers.to_json(*_ask(*arguments, **window)))


def test_every_quantity_of_every_replica_is_answered():
    memory = MemoryProvider()
    _add(memory, 0, TWO, range(3))
    header, arrays, recorded = _ask(memory)
    assert header["replicas"] == 2
    assert [item["name"] for item in header["quantities"]] == list(TWO.columns)
    assert header["quantities"][0]["label"] == "Local gradient norm"
    assert header["first_step"] == [0, 1, 2]
    assert set(arrays) == {"minimum", "mean", "maximum", "nonfinite"}
    expected = np.stack([_values(TWO, step) for step in range(3)], axis=-1)
    np.testing.assert_array_equal(arrays["mean"], expected)
    assert recorded.shape == (2, 4, 3)
    assert recorded.all()


def test_columns_keep_the_slowest_step_of_each_replica():
    memory = MemoryProvider()
    values = np.ones((6, *TWO.shape(metadata.REPLICAS)), np.float32)
    values[4, 1, 2] = 9
    data = [(step, step, value) for step, value in enumerate(values)]
    memory.add("run", "disttrain/replicas/0", metadata.encode(metadata.REPLICAS, TWO), data)
    answer = _json(memory, ["step_seconds"], 2)
    assert answer["last_step"] == [2, 5]
    assert answer["maximum"] == [[[1, 1]], [[1, 9]]]
    assert answer["minimum"] == [[[1, 1]], [[1, 1]]]
    np.testing.assert_allclose(answer["mean"], [[[1, 1]], [[1, 11 / 3]]], rtol=1e-6)


def test_quantities_come_as_they_were_asked_for():
    memory = MemoryProvider()
    part = replicas_part(2, ["a", "b/kernel"])
    _add(memory, 0, part, [0])
    answer = _json(memory, ["gradient_norm/b/kernel", "loss"])
    assert [item["name"] for item in answer["quantities"]] == ["gradient_norm/b/kernel", "loss"]
    assert answer["quantities"][0]["label"] == "Local gradient norm of b/kernel"
    assert answer["mean"] == [[[5], [1]], [[15], [11]]]


def test_an_elastic_restart_joins_to_the_largest_number_of_replicas():
    memory = MemoryProvider()
    for number, replicas in enumerate([2, 4, 1]):
        _add(memory, number, replicas_part(replicas), [number])
    answer = _json(memory, ["gradient_norm"])
    assert answer["replicas"] == 4
    assert answer["mean"] == [
        [[0, 100, 200]],
        [[10, 110, None]],
        [[None, 120, None]],
        [[None, 130, None]],
    ]
    assert answer["nonfinite"][3] == [[None, 0, None]]


def test_a_column_that_only_one_part_has_is_not_recorded_elsewhere():
    memory = MemoryProvider()
    _add(memory, 0, replicas_part(2, ["a"]), [0])
    _add(memory, 1, replicas_part(2, ["b"]), [1])
    answer = _json(memory)
    names = [item["name"] for item in answer["quantities"]]
    assert sorted(names[4:]) == ["gradient_norm/a", "gradient_norm/b"]
    assert answer["mean"][0][names.index("gradient_norm/a")] == [4, None]
    assert answer["mean"][0][names.index("gradient_norm/b")] == [None, 104]


def test_a_nan_on_one_replica_is_its_alone():
    memory = MemoryProvider()
    value = _values(TWO, 0)
    value[1, 0] = np.nan
    content = metadata.encode(metadata.REPLICAS, TWO)
    memory.add("run", "disttrain/replicas/0", content, [(0, 0, value)])
    answer = _json(memory, ["gradient_norm"])
    assert answer["nonfinite"] == [[[0]], [[1]]]
    assert answer["mean"] == [[[0]], [["NaN"]]]


def test_a_resumed_run_and_a_range_of_steps():
    memory = MemoryProvider()
    _add(memory, 0, TWO, range(6), fill=1)
    _add(memory, 1, replicas_part(1), range(3, 5), wall=100, fill=2)
    answer = _json(memory, ["gradient_norm"])
    assert answer["first_step"] == [0, 1, 2, 3, 4]
    assert answer["mean"] == [[[100, 100, 100, 200, 200]], [[110, 110, 110, None, None]]]
    zoomed = _json(memory, ["gradient_norm"], start=2, end=3)
    assert zoomed["mean"] == [[[100, 200]], [[110, None]]]
    empty = _json(memory, ["gradient_norm"], start=5)
    assert empty["mean"] == [[[]], [[]]]


def test_too_many_cells_are_refused_with_what_would_do():
    memory = MemoryProvider()
    part = replicas_part(64, [f"v{index}" for index in range(60)])
    _add(memory, 0, part, [0])
    with pytest.raises(errors.InvalidArgumentError, match="at most 128 columns"):
        _ask(memory, columns=129)
    assert _ask(memory, columns=128)[1]["mean"].shape == (64, 64, 1)
    assert _ask(memory, ["loss"], 4096)[1]["mean"].shape == (64, 1, 1)
    _add(memory, 1, replicas_part(parts.MAX_REPLICAS, [f"v{index}" for index in range(60)]), [])
    with pytest.raises(errors.InvalidArgumentError, match="fewer variables or quantities"):
        _ask(memory, columns=1)


@pytest.mark.parametrize("name", ["none", "", "gradient_norm/a", "slot/momentum"])
def test_an_unknown_quantity_is_not_found(name):
    memory = MemoryProvider()
    _add(memory, 0, TWO, [0])
    with pytest.raises(errors.NotFoundError, match="quantity"):
        _ask(memory, ["loss", name])
    assert memory.reads == []


def test_a_run_without_the_tag_has_no_replicas():
    memory = MemoryProvider()
    part = layers_part([variable("a")])
    memory.add("run", "disttrain/layers/0", metadata.encode(metadata.LAYERS, part), [])
    header, arrays, _ = decode_and_ask(memory)
    assert (header["replicas"], header["quantities"], header["records"]) == (0, [], 0)
    assert arrays["mean"].shape == (0, 0, 0)


def decode_and_ask(memory):
    """The answer after a journey as bytes."""
    answer = _ask(memory)
    return *decode_binary(answers.to_binary(*answer)), answer[2]


@pytest.mark.parametrize("replicas", [0, -1, -(2**70), 10**9, 2**70])
def test_a_part_that_claims_an_odd_number_of_replicas_is_reported(replicas):
    memory = MemoryProvider()
    _add(memory, 0, TWO, [0])
    odd = metadata.Part(TWO.columns, replicas=replicas)
    content = metadata.encode(metadata.REPLICAS, odd)
    memory.add("run", "disttrain/replicas/1", content, [(1, 1, _values(TWO, 1))])
    answer = _json(memory, ["gradient_norm"])
    assert answer["mean"] == [[[0]], [[10]]]
    (problem,) = answer["problems"]
    assert problem["tag"] == "disttrain/replicas/1"
    assert f"{replicas} replicas" in problem["message"]


def test_a_record_of_another_number_of_replicas_is_left_out_and_reported():
    memory = MemoryProvider()
    content = metadata.encode(metadata.REPLICAS, TWO)
    data = [(0, 0, _values(TWO, 0)), (1, 1, _values(replicas_part(3), 1))]
    memory.add("run", "disttrain/replicas/0", content, data)
    answer = _json(memory, ["gradient_norm"])
    assert answer["mean"] == [[[0]], [[10]]]
    assert "1 of 2 records" in answer["problems"][0]["message"]

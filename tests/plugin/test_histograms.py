"""What the reader says of histograms: mean counts a column, joined over bins and variables."""

import json

import numpy as np
import pytest
from tensorboard import errors

from tensorboard_plugin import answers, axes, metadata, reader
from tests.plugin.run_writer import histograms_part, layers_part, normal_histogram, variable
from tests.plugin.test_reader import CONTEXT, EXPERIMENT, MemoryProvider, decode_binary

pytestmark = pytest.mark.unit

ONE = histograms_part([variable("a")], bins=("zero", -1, 0))


def _add(memory, number, part, data):
    tag = metadata.part_tag(metadata.HISTOGRAMS, number)
    memory.add("run", tag, metadata.encode(metadata.HISTOGRAMS, part), data)


def _filled(part, steps, fill, wall=0):
    """Records whose counts at a step are `fill(step)`, a number or anything that broadcasts."""
    shape = part.shape(metadata.HISTOGRAMS)
    return [(s, wall + s, np.broadcast_to(np.float32(fill(s)), shape)) for s in steps]


def _ask(memory, variables=("a",), quantity="weight", columns=512, **window):
    asked = reader.Reader(memory)
    variables = list(variables)
    return asked.histograms(CONTEXT, EXPERIMENT, "run", variables, quantity, columns, **window)


def _json(*arguments, **asked):
    return json.loads(answers.to_json(*_ask(*arguments, **asked)))


def test_an_answer_names_its_axes():
    memory = MemoryProvider()
    part = histograms_part([variable("a"), variable("b")], ["velocity"], ("zero", -1, 0))
    values = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    _add(memory, 0, part, [(7, 1000, values), (9, 1002, values + 1)])
    header, arrays, recorded = _ask(memory, ["b", "a"], "slot/velocity")
    assert header == {
        "run": "run",
        "variables": ["b", "a"],
        "quantity": {
            "name": "slot/velocity",
            "label": "Velocity",
            "description": "The optimizer's slot velocity.",
            "scale": "log",
            "target": None,
        },
        "bins": ["zero", -1, 0],
        "records": 2,
        "first_step": [7, 9],
        "last_step": [7, 9],
        "first_wall_time": [1000, 1002],
        "last_wall_time": [1000, 1002],
        "problems": [],
    }
    assert set(arrays) == {"mean"}
    expected = [[values[1, 3], values[1, 3] + 1], [values[0, 3], values[0, 3] + 1]]
    np.testing.assert_array_equal(arrays["mean"], expected)
    assert recorded.shape == (2, 2, 3)
    assert recorded.all()


@pytest.mark.parametrize("columns", [1, 2, 3, 7])
def test_a_ridges_area_is_the_number_of_elements_however_many_records_it_holds(columns):
    memory = MemoryProvider()
    part = histograms_part([variable("a", (1000,))])
    counts = [normal_histogram(1000, 10.0**-step) for step in range(7)]
    _add(memory, 0, part, [(s, s, np.tile(c, (1, 4, 1))) for s, c in enumerate(counts)])
    header, arrays, _ = _ask(memory, columns=columns)
    # What is negative is counted by magnitude, too.
    parts = [name != "negative" for name in header["bins"]]
    np.testing.assert_allclose(arrays["mean"][0][:, parts].sum(axis=-1), [1000] * columns)


def test_a_column_is_the_mean_of_its_records():
    memory = MemoryProvider()
    _add(memory, 0, ONE, _filled(ONE, range(6), lambda step: [0, step, 10]))
    answer = _json(memory, columns=2)
    assert (answer["first_step"], answer["last_step"]) == ([0, 3], [2, 5])
    assert answer["mean"] == [[[0, 1, 10], [0, 4, 10]]]


def test_a_column_over_two_parts_is_the_mean_of_both():
    memory = MemoryProvider()
    _add(memory, 0, ONE, _filled(ONE, [0], lambda _: 1))
    _add(memory, 1, ONE, _filled(ONE, [1, 2], lambda _: 4))
    assert _json(memory, columns=1)["mean"] == [[[3, 3, 3]]]


def test_bins_are_joined_by_name_and_in_order():
    memory = MemoryProvider()
    first = histograms_part([variable("a")], bins=("zero", "nan", 1, 2))
    second = histograms_part([variable("a")], bins=("zero", "negative", "nan", -1, 0, 1))
    _add(memory, 0, first, _filled(first, [0], lambda _: [5, 6, 1, 2]))
    _add(memory, 1, second, _filled(second, [1], lambda _: [7, 8, 9, -1, 0, 1]))
    answer = _json(memory)
    assert answer["bins"] == ["zero", "negative", "nan", -1, 0, 1, 2]
    assert answer["mean"] == [[[5, None, 6, None, None, 1, 2], [7, 8, 9, -1, 0, 1, None]]]


def test_a_bin_that_repeats_is_one_bin():
    part = histograms_part([variable("a")], bins=("zero", 0, "zero", 0))
    assert axes.merge_bins([part]) == ["zero", 0]
    memory = MemoryProvider()
    _add(memory, 0, part, _filled(part, [0], lambda _: [1, 2, 3, 4]))
    assert _json(memory)["mean"] == [[[1, 2]]]


def test_parts_are_joined_over_the_union_of_variables_and_quantities():
    memory = MemoryProvider()
    bins = ("zero", 0)
    first = histograms_part([variable("a"), variable("c")], ["momentum"], bins)
    second = histograms_part([variable("b"), variable("a")], ["velocity"], bins)
    _add(memory, 0, first, _filled(first, [0], lambda _: 1))
    _add(memory, 1, second, _filled(second, [1], lambda _: 2))
    missing, one, two = [None, None], [1, 1], [2, 2]
    answer = _json(memory, ["a", "b", "c"])
    assert answer["mean"] == [[one, two], [missing, two], [one, missing]]
    answer = _json(memory, ["a", "b", "c"], "slot/velocity")
    assert answer["mean"] == [[missing, two], [missing, two], [missing, missing]]


def test_what_has_no_counts_is_not_recorded_and_not_averaged():
    memory = MemoryProvider()
    part = histograms_part([variable("a"), variable("no slot", slots=())], bins=("zero", 0))
    values = np.ones((3, 2, 4, 2), np.float32)
    values[:, 1] = np.nan
    values[0, 0] = 4
    values[1, 0] = np.nan
    values[1, 0, 0, 0] = np.inf
    _add(memory, 0, part, [(step, step, value) for step, value in enumerate(values)])
    answer = _ask(memory, ["a", "no slot"], columns=2)
    assert json.loads(answers.to_json(*answer))["mean"] == [
        [[4, 4], [1, 1]],
        [[None, None], [None, None]],
    ]
    _, arrays = decode_binary(answers.to_binary(*answer))
    assert np.isnan(arrays["mean"][1]).all()
    assert np.isfinite(arrays["mean"][0]).all()


def test_a_resumed_run_and_a_range_of_steps():
    memory = MemoryProvider()
    _add(memory, 0, ONE, _filled(ONE, range(6), lambda _: 1))
    _add(memory, 1, ONE, _filled(ONE, range(3, 5), lambda _: 2, wall=100))
    answer = _json(memory)
    assert answer["first_step"] == [0, 1, 2, 3, 4]
    assert [ridge[0] for ridge in answer["mean"][0]] == [1, 1, 1, 2, 2]
    assert [ridge[0] for ridge in _json(memory, start=2, end=3)["mean"][0]] == [1, 2]
    assert _json(memory, start=5)["mean"] == [[]]


def test_too_many_cells_are_refused_with_what_would_do():
    memory = MemoryProvider()
    names = [f"v{index}" for index in range(100)]
    part = histograms_part([variable(name) for name in names])
    _add(memory, 0, part, _filled(part, [0], lambda _: 1))
    with pytest.raises(errors.InvalidArgumentError, match="at most 52 columns"):
        _ask(memory, names, columns=53)
    assert _ask(memory, names, columns=52)[1]["mean"].shape == (100, 1, 100)
    assert memory.reads == ["disttrain/histograms/0"]


@pytest.mark.parametrize(
    ("variables", "quantity"),
    [(["b"], "weight"), (["a", "none"], "weight"), ([""], "weight"), (["a"], "weight_norm")],
)
def test_what_has_no_histogram_is_not_found(variables, quantity):
    memory = MemoryProvider()
    layers = layers_part([variable("a"), variable("b")])
    memory.add("run", "disttrain/layers/0", metadata.encode(metadata.LAYERS, layers), [])
    _add(memory, 0, ONE, _filled(ONE, [0], lambda _: 1))
    with pytest.raises(errors.NotFoundError, match="histogram"):
        _ask(memory, variables, quantity)
    assert memory.reads == []


def test_variables_tells_which_have_histograms():
    memory = MemoryProvider()
    layers = layers_part([variable("a"), variable("b"), variable("c")])
    memory.add("run", "disttrain/layers/0", metadata.encode(metadata.LAYERS, layers), [])
    asked = reader.Reader(memory)
    assert asked.variables(CONTEXT, EXPERIMENT, "run")["histograms"] == []
    _add(memory, 0, histograms_part([variable("a"), variable("c")]), [])
    answer = asked.variables(CONTEXT, EXPERIMENT, "run")
    assert [item["path"] for item in answer["variables"]] == ["a", "b", "c"]
    assert answer["histograms"] == ["a", "c"]


def test_a_part_with_damaged_bins_is_reported_beside_the_others():
    memory = MemoryProvider()
    _add(memory, 0, ONE, _filled(ONE, [0], lambda _: 1))
    damaged = metadata.encode(metadata.HISTOGRAMS, ONE).replace(b'"zero"', b"[0]")
    memory.add("run", "disttrain/histograms/1", damaged, _filled(ONE, [1], lambda _: 2))
    _add(memory, 2, ONE, [*_filled(ONE, [2], lambda _: 3), (3, 3, np.ones((1, 4, 4), "f"))])
    answer = _json(memory)
    assert answer["mean"] == [[[1, 1, 1], [3, 3, 3]]]
    assert [problem["tag"][-2:] for problem in answer["problems"]] == ["/1", "/2"]
    assert "1 of 2 records" in answer["problems"][1]["message"]


def test_a_part_without_bins_has_no_ridges():
    memory = MemoryProvider()
    part = histograms_part([variable("a")], bins=())
    _add(memory, 0, part, _filled(part, [0, 1], lambda _: 1))
    header, arrays, _ = _ask(memory)
    assert (header["bins"], header["records"]) == ([], 2)
    assert arrays["mean"].shape == (1, 2, 0)

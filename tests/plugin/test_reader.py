"""The reader on a data provider in memory: joining, bucketing, bounding, and what is damaged."""

import gzip
import json
import struct

import numpy as np
import pytest
from tensorboard import errors
from tensorboard.data import provider

from tensorboard_plugin import answers, axes, buckets, joined, metadata, partreader, parts, reader
from tests.plugin.run_writer import (
    histograms_part,
    layers_part,
    replicas_part,
    steps_part,
    variable,
)

pytestmark = pytest.mark.unit

CONTEXT, EXPERIMENT = object(), "experiment"


class MemoryProvider:
    """A data provider that lists and reads what `add` was given.

    Attributes:
        reads: The tags read so far, in order.
    """

    def __init__(self):
        self.runs = {}
        self.contents = {}
        self.reads = []

    def add(self, run, tag, content, data):
        """Adds a tag: plugin content, and `(step, wall time, array)` for each record."""
        self.contents[run, tag] = content
        self.runs.setdefault(run, {})[tag] = [
            provider.TensorDatum(step=step, wall_time=wall, numpy=array)
            for step, wall, array in data
        ]

    def list_tensors(self, ctx, *, experiment_id, plugin_name, run_tag_filter):
        assert (ctx, experiment_id, plugin_name) == (CONTEXT, EXPERIMENT, "disttrain")
        return {
            run: {
                tag: provider.TensorTimeSeries(
                    max_step=max((datum.step for datum in data), default=None),
                    max_wall_time=max((datum.wall_time for datum in data), default=None),
                    plugin_content=self.contents[run, tag],
                    description="",
                    display_name="",
                )
                for tag, data in tags.items()
            }
            for run, tags in self.runs.items()
            if run_tag_filter.runs is None or run in run_tag_filter.runs
        }

    def read_tensors(self, ctx, *, experiment_id, plugin_name, downsample, run_tag_filter):
        assert (ctx, experiment_id, plugin_name) == (CONTEXT, EXPERIMENT, "disttrain")
        (run,), (tag,) = run_tag_filter.runs, run_tag_filter.tags
        self.reads.append(tag)
        assert downsample >= len(self.runs[run][tag])
        return {run: {tag: list(self.runs[run][tag])}}


def _layers(part, steps, fill, wall=0):
    """Records of a part, all of whose values at a step are `fill(step)`."""
    shape = (len(part.variables), len(part.columns))
    return [(step, wall + step, np.full(shape, fill(step), np.float32)) for step in steps]


def _add_layers(memory, number, part, data, run="run"):
    tag = metadata.part_tag(metadata.LAYERS, number)
    memory.add(run, tag, metadata.encode(metadata.LAYERS, part), data)


def _heatmap(memory, columns=512, statistic="weight_norm", **window):
    asked = reader.Reader(memory)
    answer = asked.heatmap(CONTEXT, EXPERIMENT, "run", statistic, columns, **window)
    return json.loads(answers.to_json(*answer))


ONE = layers_part([variable("a")])


# Buckets


@pytest.mark.parametrize("records", [0, 1, 2, 7, 100, 1001])
@pytest.mark.parametrize("columns", [1, 2, 7, 100])
def test_buckets_cover_every_record_once(records, columns):
    bounds = buckets.edges(records, columns)
    assert bounds[0] == 0
    assert bounds[-1] == records
    assert len(bounds) - 1 == min(records, columns)
    sizes = np.diff(bounds)
    assert (sizes > 0).all()
    assert sizes.size == 0 or sizes.max() - sizes.min() <= 1


def test_no_outlier_is_lost_and_the_mean_lies_between():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1000, 3)).astype(np.float32)
    values[417, 1] = 1e6
    summed = buckets.bucket(values, np.ones(values.shape, bool), buckets.edges(1000, 13))
    assert summed.maximum[:, 1].max() == 1e6
    np.testing.assert_array_equal(summed.minimum.min(0), values.min(0))
    np.testing.assert_array_equal(summed.maximum.max(0), values.max(0))
    assert (summed.minimum <= summed.mean).all()
    assert (summed.mean <= summed.maximum).all()
    assert summed.nonfinite.sum() == 0


def test_what_is_not_finite_is_counted_and_not_averaged_away():
    values = np.array([[1, np.nan, np.inf, 3], [np.nan] * 4, [-np.inf, 2, 2, 2]], np.float32).T
    summed = buckets.bucket(values, np.ones(values.shape, bool), np.array([0, 4]))
    np.testing.assert_array_equal(summed.nonfinite, [[2, 4, 1]])
    np.testing.assert_array_equal(summed.mean, [[2, np.nan, 2]])
    np.testing.assert_array_equal(summed.minimum, [[1, np.nan, -np.inf]])
    np.testing.assert_array_equal(summed.maximum, [[np.inf, np.nan, 2]])


def test_what_was_not_recorded_is_not_counted():
    values = np.full((4, 1), np.nan, np.float32)
    recorded = np.array([[False], [False], [False], [True]])
    summed = buckets.bucket(values, recorded, np.array([0, 2, 4]))
    np.testing.assert_array_equal(summed.nonfinite, [[0], [1]])
    np.testing.assert_array_equal(summed.recorded, [[False], [True]])


@pytest.mark.parametrize("cuts", [[], [1], [250], [1, 2, 999], [100, 500, 900]])
def test_buckets_are_the_same_in_portions(cuts):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1000, 3)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[rng.random(values.shape) < 0.1] = np.inf
    recorded = ~np.isnan(values) | (rng.random(values.shape) < 0.5)
    bounds = buckets.edges(1000, 13)
    whole = buckets.bucket(values, recorded, bounds)
    places = np.split(rng.permutation(1000), cuts)
    portions = [(np.sort(some), values[np.sort(some)], recorded[np.sort(some)]) for some in places]
    found = buckets.collect(portions, bounds, (3,))
    for name in ("minimum", "maximum", "nonfinite", "recorded"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-5)


def test_records_in_no_portion_are_not_recorded():
    portions = [(np.array([1, 4]), np.ones((2, 1), np.float32), np.ones((2, 1), bool))]
    found = buckets.collect(portions, np.array([0, 2, 4, 6]), (1,))
    assert found.recorded.tolist() == [[True], [False], [True]]
    np.testing.assert_array_equal(found.mean, [[1], [np.nan], [1]])
    np.testing.assert_array_equal(found.nonfinite, [[0], [0], [0]])


# Joining parts


def test_parts_are_joined_over_the_union_of_their_variables():
    memory = MemoryProvider()
    first = layers_part([variable("a"), variable("c")])
    second = layers_part([variable("a"), variable("b"), variable("c"), variable("d")])
    _add_layers(memory, 0, first, _layers(first, [0, 1], lambda step: step))
    _add_layers(memory, 1, second, _layers(second, [2], lambda step: step))
    answer = _heatmap(memory)
    assert answer["variables"] == ["a", "b", "c", "d"]
    assert answer["first_step"] == [0, 1, 2]
    assert answer["mean"] == [[0, 1, 2], [None, None, 2], [0, 1, 2], [None, None, 2]]
    assert answer["nonfinite"][1] == [None, None, 0]


def test_parts_follow_their_numbers_and_not_their_names():
    memory = MemoryProvider()
    for number in range(12):
        _add_layers(memory, number, ONE, _layers(ONE, [number], lambda step: step))
    assert _heatmap(memory)["mean"] == [list(range(12))]


def test_a_slot_is_not_recorded_where_another_optimizer_ran():
    memory = MemoryProvider()
    momentum = layers_part([variable("a")], ["momentum"])
    velocity = layers_part([variable("a", slots=["velocity"])], ["velocity"])
    _add_layers(memory, 0, momentum, _layers(momentum, [0], lambda _: 1))
    _add_layers(memory, 1, velocity, _layers(velocity, [1], lambda _: 2))
    assert _heatmap(memory, statistic="slot/velocity")["mean"] == [[None, 2]]
    assert _heatmap(memory, statistic="slot/momentum")["mean"] == [[1, None]]


def test_nan_of_a_statistic_that_does_not_apply_is_not_recorded():
    memory = MemoryProvider()
    frozen = variable("frozen", trainable=False)
    part = layers_part([variable("a"), frozen, variable("no slots", slots=())])
    _add_layers(memory, 0, part, _layers(part, [0], lambda _: np.nan))
    assert _heatmap(memory, statistic="gradient_norm")["mean"] == [["NaN"], [None], ["NaN"]]
    assert _heatmap(memory, statistic="slot/momentum")["mean"] == [["NaN"], [None], [None]]


def test_a_repeated_path_gets_a_number():
    part = metadata.Part((), (variable("a"), variable("b"), variable("a")))
    assert [found.path for found in axes.describe_variables(part)] == ["a", "b", "a#2"]


def test_fields_of_a_variable_that_make_no_sense_become_empty():
    entry = {"path": "a", "shape": "wide", "slots": 3}
    (found,) = axes.describe_variables(metadata.Part((), (entry,)))
    assert (found.shape, found.slots, found.dtype) == ([], {}, "")


@pytest.mark.parametrize(
    ("steps", "walls", "expected"),
    [
        ([0, 1, 2], [10, 11, 12], [0, 1, 2]),
        # The run went back to step 1 and wrote 1 and 2 again.
        ([0, 1, 2, 3, 1, 2], [10, 11, 12, 13, 20, 21], [0, 4, 5]),
        # The provider sorted the same records by step.
        ([0, 1, 1, 2, 2, 3], [10, 11, 20, 12, 21, 13], [0, 2, 4]),
        # The same step twice at the same time: the last one written counts.
        ([0, 1, 1], [5, 5, 5], [0, 2]),
        ([], [], []),
    ],
)
def test_steps_written_again_replace_the_old_ones(steps, walls, expected):
    found = parts.current(np.array(steps, np.int64), np.array(walls, np.float64))
    assert found.tolist() == expected


def test_a_resumed_run_shows_its_new_records():
    memory = MemoryProvider()
    _add_layers(memory, 0, ONE, _layers(ONE, range(6), lambda _: 1))
    _add_layers(memory, 1, ONE, _layers(ONE, range(3, 5), lambda _: 2, wall=100))
    answer = _heatmap(memory)
    assert answer["first_step"] == [0, 1, 2, 3, 4]
    assert answer["mean"] == [[1, 1, 1, 2, 2]]
    # The new records count even where the wanted steps lie behind them.
    assert _heatmap(memory, start=5)["first_step"] == []


def test_whole_arrays_say_what_the_answers_say():
    memory = MemoryProvider()
    first, second = layers_part([variable("a")]), layers_part([variable("b"), variable("a")])
    _add_layers(memory, 0, first, _layers(first, [0, 1], lambda step: step))
    _add_layers(memory, 1, second, _layers(second, [1, 2], lambda step: 10 * step, wall=100))
    listed = parts.list_runs(memory, CONTEXT, EXPERIMENT)["run"].parts[metadata.LAYERS]
    reads = partreader.PartReader(memory)
    records = [reads.read(CONTEXT, EXPERIMENT, "run", part) for part in listed]
    whole = joined.Joined([part.part for part in listed], records)
    values, recorded = whole.layers("weight_norm", ["a", "b"])
    np.testing.assert_array_equal(values, [[0, np.nan], [10, 10], [20, 20]])
    assert recorded.tolist() == [[True, False], [True, True], [True, True]]
    steps = steps_part()
    data = [parts.Records(np.arange(2), np.arange(2.0), np.ones((2, 9), np.float32))]
    values, recorded = joined.Joined([steps], data).quantities(["loss", "invented"])
    np.testing.assert_array_equal(values, [[1, np.nan], [1, np.nan]])
    assert recorded.tolist() == [[True, False], [True, False]]


# Ranges, columns and bounds


def test_start_and_end_are_both_included():
    memory = MemoryProvider()
    _add_layers(memory, 0, ONE, _layers(ONE, range(0, 100, 10), lambda step: step))
    assert _heatmap(memory, start=20, end=40)["mean"] == [[20, 30, 40]]
    assert _heatmap(memory, start=21, end=39)["mean"] == [[30]]
    assert _heatmap(memory, start=91)["mean"] == [[]]


def test_a_zoom_reads_no_part_that_ended_before_it():
    memory = MemoryProvider()
    for number in range(3):
        steps = range(10 * number, 10 * number + 10)
        _add_layers(memory, number, ONE, _layers(ONE, steps, lambda step: step))
    _heatmap(memory, start=15)
    assert memory.reads == ["disttrain/layers/1", "disttrain/layers/2"]


def test_columns_name_their_steps_and_wall_times():
    memory = MemoryProvider()
    _add_layers(memory, 0, ONE, _layers(ONE, range(10), lambda step: step, wall=1000))
    answer = _heatmap(memory, columns=2)
    assert answer["records"] == 10
    assert answer["first_step"] == [0, 5]
    assert answer["last_step"] == [4, 9]
    assert answer["first_wall_time"] == [1000, 1005]
    assert answer["last_wall_time"] == [1004, 1009]
    assert (answer["minimum"], answer["mean"], answer["maximum"]) == ([[0, 5]], [[2, 7]], [[4, 9]])


def test_too_many_cells_are_refused_with_what_would_do():
    memory = MemoryProvider()
    part = layers_part([variable(f"v{index}") for index in range(1000)])
    _add_layers(memory, 0, part, _layers(part, [0], lambda _: 1))
    with pytest.raises(errors.InvalidArgumentError, match="at most 524 columns"):
        _heatmap(memory, columns=525)
    assert len(_heatmap(memory, columns=524)["mean"]) == 1000


def test_series_is_the_heatmap_of_its_rows():
    memory = MemoryProvider()
    part = layers_part([variable("a"), variable("b"), variable("c")])
    rng = np.random.default_rng(0)
    data = [(s, s, rng.normal(size=(3, len(part.columns))).astype("f")) for s in range(50)]
    _add_layers(memory, 0, part, data)
    names = ["gradient_norm", "update_ratio"]
    _, arrays, _ = reader.Reader(memory).series(
        CONTEXT, EXPERIMENT, "run", ["c", "a"], names, columns=7
    )
    for place, name in enumerate(names):
        heat = _heatmap(memory, columns=7, statistic=name)
        for array in ("minimum", "mean", "maximum", "nonfinite"):
            np.testing.assert_allclose(
                arrays[array][:, place], [heat[array][2], heat[array][0]], rtol=1e-6
            )


def test_steps_answers_every_quantity():
    memory = MemoryProvider()
    part = steps_part()
    data = [(s, s, np.arange(len(part.columns), dtype=np.float32) + s) for s in range(4)]
    memory.add("run", "disttrain/steps/0", metadata.encode(metadata.STEPS, part), data)
    header, arrays, _ = reader.Reader(memory).steps(CONTEXT, EXPERIMENT, "run", columns=2)
    assert [quantity["name"] for quantity in header["quantities"]] == list(part.columns)
    np.testing.assert_array_equal(arrays["mean"][0], [0.5, 2.5])
    np.testing.assert_array_equal(arrays["maximum"][1], [2, 4])


def test_runs_describes_the_columns_of_every_tag_there_is():
    memory = MemoryProvider()
    local, counted = replicas_part(2, ["a"]), histograms_part([variable("a")])
    memory.add("run", "disttrain/histograms/0", metadata.encode(metadata.HISTOGRAMS, counted), [])
    memory.add("run", "disttrain/replicas/0", metadata.encode(metadata.REPLICAS, local), [])
    _add_layers(memory, 0, ONE, [], run="other")
    runs = {run["name"]: run for run in reader.Reader(memory).runs(CONTEXT, EXPERIMENT)["runs"]}
    assert runs["run"]["tags"] == ["disttrain/replicas", "disttrain/histograms"]
    assert (runs["run"]["statistics"], runs["run"]["quantities"]) == ([], [])
    assert runs["run"]["replicas"] == 2
    found = [item["label"] for item in runs["run"]["replica_quantities"]]
    assert found[0] == "Local gradient norm"
    assert found[-1] == "Local gradient norm of a"
    found = [item["label"] for item in runs["run"]["histogram_quantities"]]
    assert found == ["Weights", "Gradients", "Updates", "Momentum"]
    assert runs["other"]["tags"] == ["disttrain/layers"]
    assert runs["other"]["replica_quantities"] == runs["other"]["histogram_quantities"] == []


# What is damaged


def test_a_damaged_part_spoils_neither_other_parts_nor_other_runs():
    memory = MemoryProvider()
    _add_layers(memory, 0, ONE, _layers(ONE, [0], lambda _: 1))
    memory.add("run", "disttrain/layers/1", b"{", _layers(ONE, [1], lambda _: 1))
    _add_layers(memory, 2, ONE, _layers(ONE, [2], lambda _: 3))
    _add_layers(memory, 0, ONE, _layers(ONE, [0], lambda _: 1), run="other")
    answer = _heatmap(memory)
    assert answer["mean"] == [[1, 3]]
    assert [problem["tag"] for problem in answer["problems"]] == ["disttrain/layers/1"]
    runs = {run["name"]: run for run in reader.Reader(memory).runs(CONTEXT, EXPERIMENT)["runs"]}
    assert runs["run"]["parts"] == 2
    assert len(runs["run"]["problems"]) == 1
    assert runs["other"]["problems"] == []


@pytest.mark.parametrize(
    "odd",
    [np.ones((2, 9), np.float32), np.ones(9, np.float32), np.array([[b"x"] * 9], object)],
)
def test_a_record_that_does_not_fit_is_left_out_and_reported(odd):
    memory = MemoryProvider()
    data = _layers(ONE, [0, 1], lambda step: step)
    data.insert(1, (0, 0.5, odd))
    _add_layers(memory, 0, ONE, data)
    answer = _heatmap(memory)
    assert answer["mean"] == [[0, 1]]
    assert "1 of 3 records" in answer["problems"][0]["message"]


def test_a_tag_of_a_newer_version_is_reported():
    memory = MemoryProvider()
    _add_layers(memory, 0, ONE, _layers(ONE, [0], lambda _: 1))
    memory.add("run", "disttrain/future/0", b"{}", [])
    assert _heatmap(memory)["problems"][0]["tag"] == "disttrain/future/0"


@pytest.mark.parametrize("name", ["none", "../../etc/passwd", "run/../run", "", "RUN"])
def test_an_unknown_run_is_not_found(name):
    memory = MemoryProvider()
    _add_layers(memory, 0, ONE, _layers(ONE, [0], lambda _: 1))
    with pytest.raises(errors.NotFoundError):
        reader.Reader(memory).variables(CONTEXT, EXPERIMENT, name)
    assert memory.reads == []


# Answers


def decode_binary(content):
    """What `answers.to_binary` wrote: the header, and arrays by name."""
    content = gzip.decompress(content)
    (length,) = struct.unpack_from("<I", content)
    header = json.loads(content[4 : 4 + length])
    offset, arrays = 4 + length, {}
    assert offset % 4 == 0
    for entry in header["arrays"]:
        size = int(np.prod(entry["shape"]))
        flat = np.frombuffer(content, "<f4", size, offset)
        arrays[entry["name"]] = flat.reshape(entry["shape"])
        offset += 4 * size
    assert offset == len(content)
    return header, arrays


def test_binary_and_json_say_the_same():
    rng = np.random.default_rng(0)
    array = rng.normal(size=(2, 3)).astype(np.float32)
    answer = {"ü": "name"}, {"mean": array, "nonfinite": array + 1}, np.ones((2, 3), bool)
    plain = json.loads(answers.to_json(*answer))
    header, arrays = decode_binary(answers.to_binary(*answer))
    assert plain["ü"] == header["ü"] == "name"
    for name in ("mean", "nonfinite"):
        np.testing.assert_array_equal(np.float32(plain[name]), arrays[name])


def test_json_tells_missing_from_not_finite():
    array = np.array([1, np.nan, np.inf, -np.inf, np.nan], np.float32)
    recorded = np.array([True, True, True, True, False])
    text = answers.to_json({"lr": float("nan")}, {"mean": array}, recorded)
    found = json.loads(text, parse_constant=pytest.fail)
    assert found["mean"] == [1, "NaN", "Infinity", "-Infinity", None]
    assert found["lr"] == "NaN"

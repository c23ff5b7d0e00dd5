"""What is kept as a file: numbers that come back the same, safe cells and names, bounded size."""

import csv
import io

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from tensorboard import errors

from tensorboard_plugin import answers, export, metadata, reader
from tests.plugin.conftest import HOSTILE
from tests.plugin.run_writer import (
    histograms_part,
    layers_part,
    replicas_part,
    steps_part,
    variable,
)
from tests.plugin.test_reader import CONTEXT, EXPERIMENT, MemoryProvider

pytestmark = pytest.mark.unit

NUMBERS = ["minimum", "mean", "maximum", "nonfinite"]
AXIS = ["first_step", "last_step", "first_wall_time", "last_wall_time"]


def add(memory, tag, part, values, number=0):
    data = [(step, 0.5 + step, value) for step, value in enumerate(values)]
    memory.add("run", metadata.part_tag(tag, number), metadata.encode(tag, part), data)


def read(kind, answer):
    """The lines of an export, by column."""
    content = export.to_csv(kind, *answer).decode()
    assert content.endswith("\r\n")
    header, *rows = csv.reader(io.StringIO(content, newline=""))
    return header, [dict(zip(header, row, strict=True)) for row in rows]


def heatmap(memory, columns=512, **window):
    asked = reader.Reader(memory)
    return asked.heatmap(CONTEXT, EXPERIMENT, "run", "weight_norm", columns, **window)


def weights(part, values):
    """Records whose first statistic, `weight_norm`, is `[records, variables]`."""
    records = np.ones((*np.shape(values), len(part.columns)), np.float32)
    records[..., 0] = values
    return records


def test_a_heatmap_has_a_line_for_each_variable_and_column():
    memory, part = MemoryProvider(), layers_part([variable("a"), variable("b")])
    add(memory, metadata.LAYERS, part, weights(part, [[1, 10], [2, 20], [3, 30], [4, 40]]))
    header, rows = read("heatmap", heatmap(memory, 2))
    assert header == ["variable", "statistic", *AXIS, *NUMBERS]
    assert [list(row.values()) for row in rows] == [
        ["a", "weight_norm", "0", "1", "0.5", "1.5", "1.0", "1.5", "2.0", "0.0"],
        ["a", "weight_norm", "2", "3", "2.5", "3.5", "3.0", "3.5", "4.0", "0.0"],
        ["b", "weight_norm", "0", "1", "0.5", "1.5", "10.0", "15.0", "20.0", "0.0"],
        ["b", "weight_norm", "2", "3", "2.5", "3.5", "30.0", "35.0", "40.0", "0.0"],
    ]


def test_what_is_not_finite_and_what_was_not_recorded_are_told_apart():
    memory = MemoryProvider()
    one = layers_part([variable("a"), variable("b")])
    add(memory, metadata.LAYERS, one, weights(one, [[np.nan, np.inf], [-np.inf, 1]]))
    two = layers_part([variable("a")])
    data = [(2, 2.5, weights(two, [[7]])[0])]
    memory.add("run", "disttrain/layers/1", metadata.encode(metadata.LAYERS, two), data)
    _, rows = read("heatmap", heatmap(memory))
    assert [(r["minimum"], r["mean"], r["nonfinite"]) for r in rows] == [
        ("nan", "nan", "1.0"),
        ("-inf", "nan", "1.0"),
        ("7.0", "7.0", "0.0"),
        ("inf", "nan", "1.0"),
        ("1.0", "1.0", "0.0"),
        ("", "", ""),
    ]


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(strategies.lists(strategies.floats(width=32), min_size=1, max_size=20))
def test_numbers_come_back_the_same(values):
    memory, part = MemoryProvider(), layers_part([variable("a")])
    add(memory, metadata.LAYERS, part, weights(part, np.float32(values)[:, None]))
    _, rows = read("heatmap", heatmap(memory, len(values)))
    found = np.array([float(row["maximum"]) for row in rows], np.float32)
    np.testing.assert_array_equal(found, np.float32(values))
    assert all(len(row["maximum"]) <= 16 for row in rows)


def test_where_nothing_was_recorded_the_header_is_all():
    memory, part = MemoryProvider(), layers_part([variable("a")])
    add(memory, metadata.LAYERS, part, weights(part, [[1], [2]]))
    empty = heatmap(memory, start=7)
    assert (
        export.to_csv("heatmap", *empty).decode()
        == ",".join(["variable", "statistic", *AXIS, *NUMBERS]) + "\r\n"
    )
    empty = reader.Reader(memory).steps(CONTEXT, EXPERIMENT, "run", 5)
    assert export.to_csv("steps", *empty).decode().count("\r\n") == 1


def test_series_steps_and_replicas_name_their_rows():
    memory, asked = MemoryProvider(), reader.Reader
    part, whole, local = layers_part([variable("a")]), steps_part(), replicas_part(2)
    add(memory, metadata.LAYERS, part, weights(part, [[1], [2]]))
    add(memory, metadata.STEPS, whole, np.arange(2 * len(whole.columns)).reshape(2, -1))
    values = np.arange(2 * 2 * len(local.columns)).reshape(2, 2, -1)
    add(memory, metadata.REPLICAS, local, values)
    names = ["update_norm", "weight_norm"]
    answer = asked(memory).series(CONTEXT, EXPERIMENT, "run", ["a"], names, 9)
    header, rows = read("series", answer)
    assert header[:2] == ["variable", "statistic"]
    assert [(r["statistic"], r["mean"]) for r in rows] == [
        *[("update_norm", "1.0")] * 2,
        *[("weight_norm", text) for text in ("1.0", "2.0")],
    ]
    header, rows = read("steps", asked(memory).steps(CONTEXT, EXPERIMENT, "run", 1))
    assert header == ["quantity", *AXIS, *NUMBERS]
    assert [r["quantity"] for r in rows] == list(whole.columns)
    assert (rows[1]["minimum"], rows[1]["maximum"]) == ("1.0", "10.0")
    answer = asked(memory).replicas(CONTEXT, EXPERIMENT, "run", ["loss"], 9)
    header, rows = read("replicas", answer)
    assert header[:2] == ["replica", "quantity"]
    assert [(r["replica"], r["first_step"], r["mean"]) for r in rows] == [
        ("0", "0", "1.0"),
        ("0", "1", "9.0"),
        ("1", "0", "5.0"),
        ("1", "1", "13.0"),
    ]


def test_histograms_have_a_column_for_each_bin():
    memory = MemoryProvider()
    part = histograms_part([variable("a"), variable("b")], bins=("zero", "-x", -1, 0))
    values = np.ones(part.shape(metadata.HISTOGRAMS))
    values[1, 0] = [2, 3, 4, np.nan]
    add(memory, metadata.HISTOGRAMS, part, [values])
    answer = reader.Reader(memory).histograms(CONTEXT, EXPERIMENT, "run", ["b", "a"], "weight", 5)
    header, rows = read("histograms", answer)
    assert header == ["variable", "quantity", *AXIS, "zero", "'-x", "2^-1", "2^0"]
    assert [list(row.values()) for row in rows] == [
        ["b", "weight", "0", "0", "0.5", "0.5", "2.0", "3.0", "4.0", ""],
        ["a", "weight", "0", "0", "0.5", "0.5", "1.0", "1.0", "1.0", "1.0"],
    ]


@pytest.mark.parametrize(
    "path",
    [
        *HOSTILE,
        '=HYPERLINK("http://x","y")',
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        'a"b,c\r\nd',
        "ü,漢",
        "\ud800",
        "a\x00b",
    ],
)
def test_names_are_cells_and_no_formulas(path):
    path = path.encode(errors="replace").decode()
    memory, part = MemoryProvider(), layers_part([variable(path)])
    add(memory, metadata.LAYERS, part, weights(part, [[1]]))
    _, (row,) = read("heatmap", heatmap(memory))
    assert row["mean"] == "1.0"
    assert not row["variable"].startswith(tuple("=+-@\t\r"))
    assert path.lstrip("\t\r")[1:] in row["variable"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("run",), "disttrain-run-steps.csv"),
        (("a/b c", "slot/momentum"), "disttrain-a_b_c-steps-slot_momentum.csv"),
        ((".", "..", ""), "disttrain-steps.csv"),
        (("../../etc/passwd",), "disttrain-etc_passwd-steps.csv"),
        (('x"; filename="y\r\nSet-Cookie: z',), "disttrain-x_filename_y_Set-Cookie_z-steps.csv"),
        (("x" * 10_000,), f"disttrain-{'x' * 60}-steps.csv"),
        (("漢",), "disttrain-steps.csv"),
        (("a..b",), "disttrain-a_b-steps.csv"),
    ],
)
def test_file_names_are_plain(names, expected):
    assert export.file_name("csv", "steps", *names) == expected


def test_what_would_be_too_long_is_refused_with_what_would_do():
    memory, part = MemoryProvider(), layers_part([variable(f"v{i}") for i in range(500)])
    rng = np.random.default_rng(0)
    add(memory, metadata.LAYERS, part, weights(part, rng.random((1000, 500), np.float32)))
    with pytest.raises(errors.InvalidArgumentError, match="longer than 8 MB") as error:
        export.to_csv("heatmap", *heatmap(memory, 1000))
    most = int(str(error.value).split("at most ")[1].split()[0])
    assert 100 < most < 1000
    length = len(export.to_csv("heatmap", *heatmap(memory, most)))
    assert answers.MOST_BYTES / 2 < length <= answers.MOST_BYTES


def test_one_line_that_is_too_long_is_refused_too():
    memory, part = MemoryProvider(), layers_part([variable("x" * 5_000_000)])
    add(memory, metadata.LAYERS, part, weights(part, [[1], [2]]))
    with pytest.raises(errors.InvalidArgumentError, match="longer than 8 MB"):
        export.to_csv("heatmap", *heatmap(memory))

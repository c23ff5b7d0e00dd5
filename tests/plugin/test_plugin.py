"""Every route, asked of a running TensorBoard with the Rust and with the Python reader."""

import csv
import gzip
import io
import json
import os
import re
import urllib.request

import numpy as np
import pytest

from tensorboard_plugin import metadata, plugin, reader
from tests.plugin.conftest import HOSTILE, HOSTILE_RUN, PLAIN_RECORDS
from tests.plugin.run_writer import EPOCH, transformer
from tests.plugin.test_reader import decode_binary

pytestmark = pytest.mark.processes

ROUTES = {
    "runs": {},
    "variables": {"run": "plain"},
    "heatmap": {"run": "plain", "statistic": "update_ratio"},
    "series": {"run": "plain", "variable": "logits/kernel", "statistic": "update_ratio"},
    "histograms": {"run": "plain", "variable": "logits/kernel", "quantity": "gradient"},
    "steps": {"run": "plain"},
    "replicas": {"run": "plain"},
    "health": {"run": "plain"},
    "export": {"run": "plain", "what": "heatmap", "statistic": "update_ratio"},
}

PATHS = [path for path, _ in transformer(1)]


def test_runs_tells_what_each_run_holds(server):
    answer = server.json("runs")
    assert answer["limits"] == {"columns": reader.MAX_COLUMNS, "cells": reader.MAX_CELLS}
    runs = {run["name"]: run for run in answer["runs"]}
    assert {"plain", "changed", HOSTILE_RUN, "damaged", "hopeless"} <= set(runs)
    assert answer["runs"][0]["name"] == "plain"  # The one written last, by its wall times.
    plain, changed = runs["plain"], runs["changed"]
    assert (plain["parts"], plain["variables"], plain["replicas"]) == (1, 11, 4)
    assert plain["last_step"] == 10 * (PLAIN_RECORDS - 1)
    assert plain["last_wall_time"] == EPOCH + plain["last_step"]
    assert plain["optimizer"]["momentum"] == 0.9
    assert plain["problems"] == []
    ratio = next(item for item in plain["statistics"] if item["name"] == "update_ratio")
    assert (ratio["label"], ratio["scale"], ratio["target"]) == ("Update ratio", "log", 0.001)
    quantities = [item["name"] for item in plain["quantities"]]
    assert quantities == [item.name for item in metadata.STEP_QUANTITIES]
    assert plain["tags"] == list(metadata.TAGS)
    assert changed["tags"] == [metadata.LAYERS, metadata.STEPS]
    local = {item["name"]: item["label"] for item in plain["replica_quantities"]}
    assert local["wait_seconds"] == "Time in the reduction"
    assert local["gradient_norm/logits/kernel"] == "Local gradient norm of logits/kernel"
    counted = [item["name"] for item in plain["histogram_quantities"]]
    assert counted == ["weight", "gradient", "update", "slot/momentum", "slot/velocity"]
    assert changed["histogram_quantities"] == []
    assert (changed["parts"], changed["variables"]) == (2, 3)
    names = [item["name"] for item in changed["statistics"]]
    assert "slot/momentum" in names
    assert "slot/velocity" in names


def test_variables_come_in_model_order(server):
    assert server.json("variables", run="plain")["histograms"] == PATHS
    answer = server.json("variables", run="changed")
    assert answer["histograms"] == []
    found = answer["variables"]
    assert [item["path"] for item in found] == ["a/kernel", "b/kernel", "a/bias"]
    assert found[2] == {
        "path": "a/bias",
        "shape": [4],
        "dtype": "float32",
        "trainable": True,
        "slots": {"momentum": {"dtype": "float32", "bytes": 16}},
        "parameters": 4,
    }


def test_heatmap_keeps_every_record(server):
    answer = server.json("heatmap", run="plain", statistic="update_ratio", columns=4096)
    assert answer["records"] == PLAIN_RECORDS
    assert answer["first_step"] == answer["last_step"] == list(range(0, 3000, 10))
    assert np.shape(answer["mean"]) == (11, PLAIN_RECORDS)


def test_heatmap_joins_parts_and_shows_what_is_not_finite(server):
    weights = server.json("heatmap", run="changed", statistic="weight_norm")
    assert weights["variables"] == ["a/kernel", "b/kernel", "a/bias"]
    assert weights["mean"] == [
        [0, 10, 20, 30, 40, 50],
        [None, None, None, None, 1, 1],
        [1, 1, 1, 1, None, None],
    ]
    gradients = server.json("heatmap", run="changed", statistic="gradient_norm")
    assert gradients["maximum"][0] == [1, 1, "Infinity", "NaN", 1, 1]
    assert gradients["nonfinite"][0] == [0, 0, 1, 1, 0, 0]
    two = server.json("heatmap", run="changed", statistic="gradient_norm", columns=2)
    assert two["nonfinite"][0] == [1, 1]
    assert two["maximum"][0] == ["Infinity", 1]
    assert two["mean"][0] == [1, 1]


@pytest.mark.parametrize("route", ["heatmap", "series", "steps", "replicas"])
def test_binary_says_the_same_as_json(server, route):
    asked = ROUTES[route] | {"columns": 7, "start": 100, "end": 1500}
    plain = server.json(route, **asked)
    status, headers, body = server.get(route, **asked, format="binary")
    assert status == 200
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Encoding"] == "gzip"
    header, arrays = decode_binary(body)
    assert header["first_step"] == plain["first_step"]
    assert header["last_step"][-1] == 1500
    assert set(arrays) == {"minimum", "mean", "maximum", "nonfinite"}
    for name, array in arrays.items():
        assert array.shape[-1] == 7
        numbers = np.array(plain[name], object)
        numbers[numbers == np.array(None)] = np.nan
        np.testing.assert_array_equal(numbers.astype(np.float32), array)


def test_only_the_arrays_asked_for_are_sent(server):
    asked = ROUTES["heatmap"] | {"columns": 7}
    whole = server.json("heatmap", **asked)
    some = server.json("heatmap", **asked, array=["nonfinite", "mean"])
    assert [name for name in whole if name not in some] == ["minimum", "maximum"]
    assert all(whole[name] == some[name] for name in some)
    _, _, body = server.get("heatmap", **asked, array="maximum", format="binary")
    assert list(decode_binary(body)[1]) == ["maximum"]


def test_a_short_run_is_never_sampled(server):
    asked = ROUTES["heatmap"] | {"columns": 7}
    assert server.json("heatmap", **asked, sample="allowed") == server.json("heatmap", **asked)


def test_series_repeats_variables_and_statistics(server):
    answer = server.json(
        "series",
        run="changed",
        variable=["a/bias", "a/kernel"],
        statistic=["weight_norm", "slot/momentum"],
        columns=3,
    )
    assert answer["variables"] == ["a/bias", "a/kernel"]
    assert [item["name"] for item in answer["statistics"]] == ["weight_norm", "slot/momentum"]
    assert answer["mean"] == [
        [[1, 1, None], [1, 1, None]],
        [[5, 25, 45], [1, 1, None]],
    ]
    assert answer["maximum"][1][0] == [10, 30, 50]
    assert answer["first_wall_time"] == [EPOCH, EPOCH + 20, EPOCH + 40]


def test_steps_answers_the_loss(server):
    answer = server.json("steps", run="changed", columns=4096)
    place = [item["name"] for item in answer["quantities"]].index("loss")
    assert answer["mean"][place] == [0.5] * 6


def test_health_says_what_is_wrong_and_where(server):
    answer = server.json("health", run="plain")
    assert (answer["records"], answer["looked_at"]) == (PLAIN_RECORDS, PLAIN_RECORDS)
    found = {finding["rule"]: finding for finding in answer["findings"]}
    link = found["not_finite"]["link"]
    assert link["variable"] == "transformer/block_0/attention/output/kernel"
    assert link["start"] < 1700 < 1720 < link["end"]
    assert {"message", "why", "advice", "severity"} <= set(found["not_finite"])
    damaged = server.json("health", run="damaged")
    assert [problem["tag"] for problem in damaged["problems"]] == ["disttrain/layers/1"]
    assert server.json("health", run="hopeless")["records"] == 0
    assert server.json("health", run=HOSTILE_RUN)["run"] == HOSTILE_RUN


@pytest.mark.parametrize("what", ["heatmap", "series", "steps", "replicas", "histograms"])
def test_what_is_seen_can_be_kept_as_a_file(server, what):
    asked = ROUTES[what] | {"columns": 7, "start": 100, "end": 1500}
    shown = server.json(what, **asked)
    status, headers, body = server.get("export", what=what, **asked)
    assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    named = asked.get("statistic") or asked.get("quantity")
    name = "-".join(filter(None, ["disttrain-plain", what, named]))
    assert headers["Content-Disposition"] == f'attachment; filename="{name}.csv"'
    rows = list(csv.DictReader(io.StringIO(body.decode(), newline="")))
    assert len(rows) == np.size(shown["mean"]) / (100 if what == "histograms" else 1)
    assert [int(row["first_step"]) for row in rows[:7]] == shown["first_step"]
    status, headers, body = server.get("export", what=what, **asked, format="json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert headers["Content-Disposition"] == f'attachment; filename="{name}.json"'
    assert json.loads(body) == shown


def test_a_damaged_part_is_reported_beside_the_others(server):
    answer = server.json("heatmap", run="damaged", statistic="weight_norm")
    assert answer["mean"] == [[0, 1, 2, 6, 7, 8]]
    assert [problem["tag"] for problem in answer["problems"]] == ["disttrain/layers/1"]
    runs = {run["name"]: run for run in server.json("runs")["runs"]}
    assert "cannot be read" in runs["damaged"]["problems"][0]["message"]
    assert runs["hopeless"]["statistics"] == []
    assert len(runs["hopeless"]["problems"]) == 1


@pytest.mark.parametrize(
    ("status", "route", "changes"),
    [
        (404, "variables", {"run": "none"}),
        (404, "heatmap", {"run": "none"}),
        (404, "heatmap", {"statistic": "none"}),
        (404, "heatmap", {"run": "hopeless"}),
        (404, "series", {"run": "none"}),
        (404, "series", {"variable": "none"}),
        (404, "series", {"statistic": ["update_ratio", "none"]}),
        (404, "steps", {"run": "none"}),
        (400, "variables", {"run": []}),
        (400, "variables", {"run": ""}),
        (400, "variables", {"run": ["plain", "plain"]}),
        (400, "heatmap", {"statistic": []}),
        (400, "heatmap", {"columns": "many"}),
        (400, "heatmap", {"columns": ""}),
        (400, "heatmap", {"columns": "1.5"}),
        (400, "heatmap", {"columns": "1_0"}),
        (400, "heatmap", {"columns": " 7"}),
        (400, "heatmap", {"columns": "٣"}),
        (400, "heatmap", {"columns": "0"}),
        (400, "heatmap", {"columns": "-1"}),
        (400, "heatmap", {"columns": reader.MAX_COLUMNS + 1}),
        (400, "heatmap", {"columns": "9" * 5000}),
        (400, "heatmap", {"start": "nan"}),
        (400, "heatmap", {"start": 5, "end": 4}),
        (400, "heatmap", {"format": "xml"}),
        (400, "series", {"variable": []}),
        (400, "series", {"statistic": []}),
        (400, "steps", {"columns": "1e3"}),
        (400, "steps", {"end": "now"}),
        (404, "replicas", {"run": "none"}),
        (404, "replicas", {"run": "changed", "quantity": "loss"}),
        (404, "replicas", {"quantity": "none"}),
        (404, "replicas", {"quantity": ["loss", "none"]}),
        (404, "replicas", {"quantity": ""}),
        (400, "replicas", {"run": []}),
        (400, "replicas", {"run": ["plain", "plain"]}),
        (400, "replicas", {"columns": reader.MAX_COLUMNS + 1}),
        (400, "replicas", {"columns": "1e3"}),
        (400, "replicas", {"start": 5, "end": 4}),
        (400, "replicas", {"format": "xml"}),
        (404, "histograms", {"run": "none"}),
        (404, "histograms", {"run": "changed"}),
        (404, "histograms", {"variable": "none"}),
        (404, "histograms", {"variable": ["logits/kernel", ""]}),
        (404, "histograms", {"quantity": "none"}),
        (404, "histograms", {"quantity": "weight_norm"}),
        (400, "histograms", {"run": []}),
        (400, "histograms", {"variable": []}),
        (400, "histograms", {"quantity": []}),
        (400, "histograms", {"quantity": ""}),
        (400, "histograms", {"quantity": ["weight", "update"]}),
        (400, "histograms", {"variable": PATHS, "columns": 1000}),
        (400, "histograms", {"columns": "0"}),
        (400, "histograms", {"end": "now"}),
        (400, "histograms", {"start": 5, "end": 4}),
        (400, "histograms", {"format": "xml"}),
        (404, "health", {"run": "none"}),
        (400, "health", {"run": []}),
        (400, "health", {"run": ["plain", "plain"]}),
        (404, "export", {"run": "none"}),
        (404, "export", {"statistic": "none"}),
        (400, "export", {"what": []}),
        (400, "export", {"what": "runs"}),
        (400, "export", {"what": "x" * 5000}),
        (400, "export", {"what": "series"}),
        (400, "export", {"format": "xml"}),
        (400, "heatmap", {"sample": "always"}),
        (400, "heatmap", {"array": "x" * 5000}),
        (400, "steps", {"array": ["mean", "median"]}),
        (400, "export", {"columns": "0"}),
        (404, "heatmap", {"run": "x" * 5000}),
        (404, "series", {"variable": "x" * 5000}),
        *[(404, "heatmap", {"run": text}) for text in HOSTILE[1:]],
        *[(404, "heatmap", {"statistic": text}) for text in HOSTILE],
        *[(404, "series", {"variable": text}) for text in HOSTILE],
        *[(404, "histograms", {"variable": text}) for text in HOSTILE],
        *[(404, "histograms", {"quantity": text}) for text in HOSTILE],
        *[(404, "replicas", {"quantity": text}) for text in HOSTILE],
        *[(400, "steps", {"columns": text}) for text in HOSTILE],
    ],
)
def test_what_makes_no_sense_gets_an_error_in_json(server, status, route, changes):
    got, headers, body = server.get(route, **(ROUTES[route] | changes))
    assert got == status
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert set(json.loads(body)) == {"error"}
    assert len(body) < 1000


@pytest.mark.parametrize("route", ROUTES)
def test_only_reading_is_allowed(server, route):
    status, headers, body = server.get(route, "POST", **ROUTES[route])
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert "POST" in json.loads(body)["error"]


def test_hostile_names_are_only_names(server):
    found = server.json("variables", run=HOSTILE_RUN)["variables"]
    assert [item["path"] for item in found] == list(HOSTILE)
    slot = metadata.SLOT_PREFIX + HOSTILE[0]
    for path in HOSTILE:
        answer = server.json("series", run=HOSTILE_RUN, variable=path, statistic=slot)
        assert answer["variables"] == [path]
    heat = server.json("heatmap", run=HOSTILE_RUN, statistic=slot)
    assert heat["problems"][0]["tag"] == "disttrain/" + HOSTILE[0]
    assert np.shape(heat["mean"]) == (4, 5)


@pytest.mark.parametrize("name", plugin.STATIC_FILES)
def test_the_pages_files_are_served(server, name):
    status, headers, body = server.get(f"static/{name}")
    assert status == 200
    kind = "javascript" if name.endswith(".js") else "css"
    assert headers["Content-Type"] == f"text/{kind}; charset=utf-8"
    assert body == (plugin.STATIC / name).read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "vendor/uPlot/LICENSE",
        "../plugin.py",
        "..%2Fplugin.py",
        "%2e%2e/plugin.py",
        "index.js/../../plugin.py",
        "/etc/passwd",
        "index.js%00",
    ],
)
def test_nothing_else_is_served(server, name):
    assert server.get(f"static/{name}")[0] == 404


def test_tensorboard_lists_the_plugin_as_active(server):
    with urllib.request.urlopen(f"{server.address}data/plugins_listing") as response:
        listed = json.load(response)["disttrain"]
    assert listed["enabled"]
    assert listed["loading_mechanism"]["module_path"].endswith("disttrain/static/index.js")


def test_the_allow_list_names_the_files_there_are():
    there = {
        path.relative_to(plugin.STATIC).as_posix()
        for path in plugin.STATIC.rglob("*")
        if path.is_file() and path.name != "LICENSE"
    }
    assert set(plugin.STATIC_FILES) == there


def test_the_page_takes_nothing_from_outside():
    for name in plugin.STATIC_FILES:
        text = (plugin.STATIC / name).read_text()
        for imported in re.findall(r"^(?:import|export)\b[^;]*?from\s+'([^']+)'", text, re.M):
            assert imported.startswith(("./", "../")), (name, imported)
            target = os.path.normpath(os.path.join(os.path.dirname(name), imported))
            assert target in plugin.STATIC_FILES, (name, imported)
        assert not re.search(r"\bimport\(|url\(|@import", text), name


def test_answers_to_people_are_not_gzipped_twice(server):
    asked = ROUTES["heatmap"] | {"format": "binary"}
    _, _, body = server.get("heatmap", **asked)
    assert gzip.decompress(body)[:2] != b"\x1f\x8b"

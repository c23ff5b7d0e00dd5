"""Findings as the page gets them: links, bounds, what was looked at, computed once a state."""

import json

import numpy as np
import pytest
from tensorboard import errors

from tensorboard_plugin import diagnosis, health, metadata, partreader, reader
from tests.plugin.health_runs import Training
from tests.plugin.run_writer import layers_part, variable
from tests.plugin.test_reader import CONTEXT, EXPERIMENT, MemoryProvider
from tests.plugin.test_whole import add

pytestmark = pytest.mark.unit


def ask(memory, asked=None):
    return (asked or reader.Reader(memory)).health(CONTEXT, EXPERIMENT, "run")


def faulty():
    training = Training()
    training.layer("update_norm", "block_2/kernel")[200:300] = 0
    training.replica("loss")[150:, 1] *= 8
    return training


def test_findings_come_worst_first_with_all_that_the_page_needs():
    memory = MemoryProvider()
    add(memory, faulty())
    answer = ask(memory)
    assert [f["rule"] for f in answer["findings"]] == ["replica_diverges", "no_update"]
    assert (answer["run"], answer["records"], answer["looked_at"]) == ("run", 400, 400)
    assert (answer["first_step"], answer["last_step"], answer["problems"]) == (1, 400, [])
    of_replica, still = answer["findings"]
    expected = {f.rule: f.to_json() for f in faulty().findings()}
    for found in (of_replica, still):
        added = {k: found.pop(k) for k in ("link", "layer_count")}
        assert json.dumps(found) == json.dumps(expected[found["rule"]])
        found.update(added)
    assert still["layer_count"] == 1
    assert still["link"] == {
        "view": "layer",
        "variable": "block_2/kernel",
        "statistic": "update_norm",
        "start": 192,
        "end": 309,
    }
    assert of_replica["link"]["view"] == "replicas"
    assert of_replica["link"]["variable"] is None


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (500, 500, (450, 550)),
        (10, 10, (1, 60)),
        (100, 900, (20, 980)),
        (1, 1000, (None, None)),
        (30, 990, (None, None)),
    ],
)
def test_a_link_shows_what_was_before_and_after(first, last, expected):
    place = health.Place("overview", "loss")
    found = health.Finding("r", "note", "m", "w", "a", place, first, last, {})
    link = diagnosis.described(found, (1, 1000))["link"]
    assert (link["start"], link["end"]) == expected


def test_a_healthy_run_has_no_findings():
    memory = MemoryProvider()
    add(memory, Training())
    assert ask(memory)["findings"] == []


def test_of_very_many_variables_some_are_listed():
    layers = [health.LayerNumbers(f"v{i}", 1, 2, {}) for i in range(5000)]
    place = health.Place("overview", "loss")
    found = health.Finding("r", "note", "m", "w", "a", place, 1, 2, {}, "v0", tuple(layers))
    answer = diagnosis.described(found, (1, 2))
    assert answer["layer_count"] == 5000
    assert [item["path"] for item in answer["layers"]] == [f"v{i}" for i in range(100)]
    long = [health.LayerNumbers("x" * 10_000, 1, 2, {}) for _ in range(50)]
    found = health.Finding("r", "note", "m", "w", "a", place, 1, 2, {}, "v0", tuple(long))
    assert len(diagnosis.described(found, (1, 2))["layers"]) == 3


def test_a_state_of_a_run_is_judged_once(monkeypatch):
    memory, judged, rules = MemoryProvider(), [], health.findings

    def findings(run):
        judged.append(len(run.layers.steps))
        return rules(run)

    monkeypatch.setattr(health, "findings", findings)
    add(memory, faulty(), rows=slice(300))
    asked = reader.Reader(memory)
    first = ask(memory, asked)
    assert ask(memory, asked) == first
    assert judged == [300]
    add(memory, faulty())
    assert ask(memory, asked)["records"] == 400
    assert judged == [300, 400]


def test_a_long_run_says_how_much_of_it_was_looked_at():
    memory, training = MemoryProvider(), faulty()
    training.layer("nonfinite", "block_1/kernel")[77] = 2
    add(memory, training)
    listing_reader = reader.Reader(memory)
    most = {metadata.LAYERS: training.layers[0].nbytes * 110}
    listing_reader._diagnosis = diagnosis.Diagnosis(partreader.PartReader(memory), most)
    answer = ask(memory, listing_reader)
    assert (answer["records"], answer["looked_at"]) == (400, 101)
    rules = {f["rule"]: f for f in answer["findings"]}
    assert {"not_finite", "replica_diverges", "no_update"} == set(rules)
    assert rules["not_finite"]["first_step"] == 78


def test_what_cannot_be_read_is_said_beside_the_findings():
    memory = MemoryProvider()
    add(memory, faulty())
    memory.add("run", "disttrain/layers/9", b"\xff", [(7, 7.0, np.ones(3))])
    answer = ask(memory)
    assert [f["rule"] for f in answer["findings"]] == ["replica_diverges", "no_update"]
    assert [p["tag"] for p in answer["problems"]] == ["disttrain/layers/9"]


def test_a_run_of_nothing_but_problems_is_answered():
    memory = MemoryProvider()
    memory.add("run", "disttrain/layers/0", b"\xff", [(7, 7.0, np.ones(3))])
    answer = ask(memory)
    assert (answer["findings"], answer["records"], answer["looked_at"]) == ([], 0, 0)
    assert (answer["first_step"], answer["last_step"]) == (None, None)
    assert len(answer["problems"]) == 1


def test_a_run_without_layers_is_judged_by_its_replicas():
    memory, training = MemoryProvider(), faulty()
    part = metadata.Part([s.name for s in metadata.REPLICA_QUANTITIES], (), {}, 4)
    data = [(int(s), 1.0 + s, v) for s, v in zip(training.steps, training.replicas, strict=True)]
    memory.add("run", "disttrain/replicas/0", metadata.encode(metadata.REPLICAS, part), data)
    answer = ask(memory)
    assert [f["rule"] for f in answer["findings"]] == ["replica_diverges"]
    assert (answer["records"], answer["last_step"]) == (400, 400)


def test_optimizers_of_any_description_are_taken():
    memory = MemoryProvider()
    values = Training().layers[:, :3]
    for number, config in enumerate(
        [{"config": 3}, {"config": {"epsilon": "x", "groups": [1]}}, {"class_name": ["Adam"]}]
    ):
        part = layers_part([variable(f"v{i}") for i in range(3)], ["momentum", "velocity"])
        part = metadata.Part(part.columns, part.variables, config)
        rows = slice(100 * number, 100 * number + 100)
        data = [(s, 1.0 + s, values[s]) for s in range(400)[rows]]
        content = metadata.encode(metadata.LAYERS, part)
        memory.add("run", metadata.part_tag(metadata.LAYERS, number), content, data)
        assert isinstance(ask(memory)["findings"], list)


def test_an_unknown_run_is_not_found_and_not_repeated_at_length():
    with pytest.raises(errors.NotFoundError) as error:
        reader.Reader(MemoryProvider()).health(CONTEXT, EXPERIMENT, "x" * 10_000)
    assert len(str(error.value)) < 300

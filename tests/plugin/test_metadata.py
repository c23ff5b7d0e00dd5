"""The event schema: tags, statistics and the metadata of a part."""

import json

import pytest

from tensorboard_plugin import metadata
from tests.plugin.run_writer import layers_part, steps_part, variable


@pytest.mark.parametrize("tag", metadata.TAGS)
@pytest.mark.parametrize("number", [0, 7, 12345])
def test_a_tag_survives_the_round_trip(tag, number):
    assert metadata.parse_tag(metadata.part_tag(tag, number)) == (tag, number)


@pytest.mark.parametrize(
    "tag",
    [
        "loss",
        "disttrain/layers",
        "disttrain/layers/",
        "disttrain/layers/-1",
        "disttrain/layers/1/2",
        "disttrain/layers/0\n",
        "disttrain/other/0",
        "disttrain/layers/" + "9" * 10,
        "x/disttrain/layers/0",
    ],
)
def test_a_foreign_tag_is_no_tag_of_ours(tag):
    assert metadata.parse_tag(tag) is None


@pytest.mark.parametrize(
    ("tag", "part"),
    [
        (metadata.LAYERS, layers_part([variable("a/kernel"), variable("b<>&/ü", ())])),
        (metadata.STEPS, steps_part()),
    ],
)
def test_a_part_survives_the_round_trip(tag, part):
    assert metadata.decode(metadata.encode(tag, part)) == part


def _damaged(**changes):
    content = json.loads(metadata.encode(metadata.LAYERS, layers_part([variable("a")])))
    content.update(changes)
    return json.dumps({k: v for k, v in content.items() if v is not ...}, default=str).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        _damaged(version=...),
        _damaged(version="one"),
        _damaged(version=float("inf")),
        _damaged(statistics=...),
        _damaged(statistics="loss"),
        _damaged(statistics=[1, 2]),
        _damaged(statistics={"a": 1}),
        _damaged(variables=[{"shape": []}]),
        _damaged(variables=["a"]),
        _damaged(variables=[{"path": None}]),
        _damaged(variables=7),
        _damaged(optimizer=[1]),
        _damaged(optimizer="sgd"),
        _damaged(replicas=None),
    ],
)
def test_damaged_metadata_is_a_value_error(content):
    with pytest.raises(ValueError, match="metadata of a disttrain part"):
        metadata.decode(content)


def test_a_newer_schema_says_to_update():
    with pytest.raises(ValueError, match="update disttrain"):
        metadata.decode(_damaged(version=metadata.VERSION + 1))


def test_slots_stand_between_the_statistics_and_the_cosine():
    names = [statistic.name for statistic in metadata.layer_statistics(["momentum", "velocity"])]
    assert names[-3:] == ["slot/momentum", "slot/velocity", "update_cosine"]
    assert len(names) == len(set(names))


def test_a_name_means_another_thing_for_layers_than_for_steps():
    assert metadata.describe("gradient_norm").label == "Gradient norm"
    assert metadata.describe("gradient_norm", metadata.STEPS).label == "Global gradient norm"


def test_an_unknown_column_is_described_by_its_name():
    assert metadata.describe("slot/second_moment").label == "Second moment norm"
    assert metadata.describe("invented").label == "invented"


def test_every_statistic_is_described():
    for statistic in (*metadata.layer_statistics(["momentum"]), *metadata.STEP_QUANTITIES):
        assert statistic.label
        assert statistic.description.endswith(".")
        assert statistic.scale in ("log", "linear")

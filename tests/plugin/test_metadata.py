"""The event schema: tags, statistics and the metadata of a part."""

import json

import pytest

from tensorboard_plugin import metadata
from tests.plugin.run_writer import (
    histograms_part,
    layers_part,
    replicas_part,
    steps_part,
    variable,
)

pytestmark = pytest.mark.unit

VARIABLES = (variable("a/kernel"), variable("b<>&/ü", ()))


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
        (metadata.LAYERS, layers_part(VARIABLES)),
        (metadata.STEPS, steps_part()),
        (metadata.REPLICAS, replicas_part(8, ["a/kernel", "b<>&/ü"])),
        (metadata.HISTOGRAMS, histograms_part(VARIABLES)),
        (metadata.HISTOGRAMS, histograms_part(VARIABLES, bins=("zero", -3, 0, 2, "new"))),
    ],
)
def test_a_part_survives_the_round_trip(tag, part):
    assert metadata.decode(metadata.encode(tag, part)) == part


def test_only_histograms_have_bins():
    assert "bins" in json.loads(metadata.encode(metadata.HISTOGRAMS, histograms_part(VARIABLES)))
    for tag, part in ((metadata.LAYERS, layers_part(VARIABLES)), (metadata.STEPS, steps_part())):
        assert "bins" not in json.loads(metadata.encode(tag, part))


@pytest.mark.parametrize(
    ("tag", "part", "shape"),
    [
        (metadata.LAYERS, layers_part(VARIABLES), (2, 9)),
        (metadata.STEPS, steps_part(), (9,)),
        (metadata.REPLICAS, replicas_part(8), (8, 4)),
        (metadata.REPLICAS, replicas_part(1, ["a", "b"]), (1, 6)),
        (metadata.HISTOGRAMS, histograms_part(VARIABLES), (2, 4, 100)),
        (metadata.HISTOGRAMS, histograms_part(VARIABLES, (), ("zero", -3)), (2, 3, 2)),
    ],
)
def test_a_part_knows_the_shape_of_its_records(tag, part, shape):
    assert part.shape(tag) == shape


def test_bins_are_counts_and_then_every_exponent():
    assert metadata.BINS[:4] == ("zero", "negative", "nan", "infinity")
    exponents = metadata.BINS[4:]
    assert exponents == tuple(range(exponents[0], exponents[-1] + 1))
    assert exponents[0] < 0 < exponents[-1]


def _damaged(tag=metadata.LAYERS, part=None, **changes):
    content = json.loads(metadata.encode(tag, part or layers_part([variable("a")])))
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
        *[
            _damaged(metadata.HISTOGRAMS, histograms_part(VARIABLES), bins=bins)
            for bins in ("zero", 7, None, {"zero": 1}, ["zero", None], [0.5], [True], [[1]])
        ],
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


def test_a_quantity_means_another_thing_for_each_tag():
    labels = [metadata.describe("gradient_norm", tag).label for tag in metadata.TAGS[:3]]
    assert labels == ["Gradient norm", "Global gradient norm", "Local gradient norm"]
    assert metadata.describe("slot/velocity", metadata.LAYERS).label == "Velocity norm"
    assert metadata.describe("slot/velocity", metadata.HISTOGRAMS).label == "Velocity"
    assert metadata.describe("gradient_norm/a/b", metadata.LAYERS).label == "gradient_norm/a/b"


@pytest.mark.parametrize("tag", metadata.TAGS)
def test_an_unknown_column_is_described_by_its_name(tag):
    found = metadata.describe("invented", tag)
    assert (found.name, found.label, found.scale) == ("invented", "invented", "linear")


def test_a_family_describes_columns_it_never_saw():
    assert metadata.describe("slot/second_moment").label == "Second moment norm"
    local = metadata.describe("gradient_norm/dense/kernel", metadata.REPLICAS)
    assert local == metadata.local_gradient_norm("dense/kernel")
    assert local.name == "gradient_norm/dense/kernel"
    assert "dense/kernel" in local.description


SLOTS = ["momentum", "second_moment"]


@pytest.mark.parametrize(
    ("tag", "statistics"),
    [
        (metadata.LAYERS, metadata.layer_statistics(SLOTS)),
        (metadata.STEPS, metadata.STEP_QUANTITIES),
        (metadata.REPLICAS, (*metadata.REPLICA_QUANTITIES, metadata.local_gradient_norm("a/b"))),
        (metadata.HISTOGRAMS, metadata.histogram_quantities(SLOTS)),
    ],
)
def test_every_column_is_described(tag, statistics):
    names = [statistic.name for statistic in statistics]
    assert len(names) == len(set(names))
    for statistic in statistics:
        assert metadata.describe(statistic.name, tag) == statistic
        assert statistic.label
        assert statistic.description.endswith(".")
        assert statistic.scale in ("log", "linear")


@pytest.mark.parametrize("half", [b"\\ud800", b"\\uDFFF", b"\xed\xa0\x80"])
def test_half_a_character_becomes_one_that_a_request_can_name(half):
    content = b'{"version": 1, "statistics": ["a%b"], "variables": [{"path": "%b/k"}]}'
    part = metadata.decode(content % (half, half))
    for name in (part.columns[0], part.variables[0]["path"]):
        assert name.encode().decode() == name
    assert part.columns[0].startswith("a")
    whole = metadata.decode(content % (b"\\ud83d\\ude00", b"\xc3\xbc"))
    assert (whole.columns, whole.variables[0]["path"]) == (("a\U0001f600",), "ü/k")

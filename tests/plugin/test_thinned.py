"""Of a long run some records are looked at: which, how many, and how often each part is read."""

import numpy as np
import pytest

from tensorboard_plugin import metadata, partreader, parts, thinned, whole
from tests.plugin.run_writer import layers_part, variable
from tests.plugin.test_reader import CONTEXT, EXPERIMENT, MemoryProvider

pytestmark = pytest.mark.unit

PART = layers_part([variable("a"), variable("b")])
ROW_BYTES = 4 * 2 * len(PART.columns)


def add(memory, number, steps, values=1.0, wall=0):
    shape = (2, len(PART.columns))
    data = [(s, wall + s, np.full(shape, values, np.float32)) for s in steps]
    tag = metadata.part_tag(metadata.LAYERS, number)
    memory.add("run", tag, metadata.encode(metadata.LAYERS, PART), data)
    return [array.numpy for array in memory.runs["run"][tag]]


def thin(memory, most, reader=None):
    reader = reader or thinned.ThinReader(partreader.PartReader(memory), {metadata.LAYERS: most})
    listing = parts.list_runs(memory, CONTEXT, EXPERIMENT)["run"]
    of_run = reader.of(listing)
    run, problems = whole.read(of_run, CONTEXT, EXPERIMENT, "run", listing)
    assert problems == []
    return run.layers, of_run


def test_a_short_run_is_read_whole():
    memory = MemoryProvider()
    add(memory, 0, range(100))
    layers, reader = thin(memory, 100 * ROW_BYTES)
    assert layers.steps.tolist() == list(range(100))
    assert reader.strides == {metadata.LAYERS: 1}
    assert reader.counts[metadata.LAYERS] == 100


@pytest.mark.parametrize(("most", "stride"), [(99, 2), (50, 2), (49, 4), (25, 4), (1, 128)])
def test_a_long_run_is_thinned_to_what_may_be_looked_at(most, stride):
    memory = MemoryProvider()
    add(memory, 0, range(100))
    layers, reader = thin(memory, most * ROW_BYTES)
    assert reader.strides == {metadata.LAYERS: stride}
    assert len(layers.steps) <= most + 1
    assert (layers.steps[0], layers.steps[-1]) == (0, 99)
    assert reader.counts[metadata.LAYERS] == 100


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", range(1, 101, 9))
def test_a_record_that_is_not_finite_is_always_looked_at(step, value):
    memory = MemoryProvider()
    values = add(memory, 0, range(1, 101))
    values[step - 1][0, 1] = value
    layers, _ = thin(memory, 13 * ROW_BYTES)
    assert step in layers.steps
    found = layers.columns["gradient_norm"][list(layers.steps).index(step), 0]
    np.testing.assert_equal(found, np.float32(value))


def test_a_record_with_counts_of_what_is_not_finite_is_looked_at():
    memory = MemoryProvider()
    values = add(memory, 0, range(1, 101), 0.0)
    values[41][1, PART.columns.index("nonfinite")] = 3
    layers, _ = thin(memory, 13 * ROW_BYTES)
    assert 42 in layers.steps


def test_a_resumed_run_is_superseded_from_its_first_step_on():
    memory = MemoryProvider()
    add(memory, 0, range(1, 101), 1.0)
    add(memory, 1, range(51, 101), 2.0, wall=1000)
    layers, _ = thin(memory, 20 * ROW_BYTES)
    values = layers.columns["weight_norm"][:, 0]
    assert (values[layers.steps <= 50] == 1).all()
    assert (values[layers.steps > 50] == 2).all()
    assert (np.diff(layers.steps) > 0).all()


def test_of_a_run_that_grows_only_the_newest_part_is_read_again():
    memory = MemoryProvider()
    add(memory, 0, range(1, 51))
    add(memory, 1, range(51, 60))
    # Its own cache alone helps.
    parts_reader = partreader.PartReader(memory, cache_bytes=0)
    reader = thinned.ThinReader(parts_reader, {metadata.LAYERS: 40 * ROW_BYTES})
    thin(memory, None, reader)
    memory.reads.clear()
    add(memory, 1, range(51, 62))
    layers, _ = thin(memory, None, reader)
    assert memory.reads == ["disttrain/layers/1"]
    assert layers.steps[-1] == 61


def test_metadata_that_claims_too_much_does_no_harm():
    memory = MemoryProvider()
    huge = metadata.Part(PART.columns, PART.variables, replicas=2**15)
    tag = metadata.part_tag(metadata.REPLICAS, 0)
    memory.add("run", tag, metadata.encode(metadata.REPLICAS, huge), [])
    listing = parts.list_runs(memory, CONTEXT, EXPERIMENT)["run"]
    reader = thinned.ThinReader(partreader.PartReader(memory)).of(listing)
    assert reader.strides[metadata.REPLICAS] >= 1

"""Reading parts: what is cached, what is read again, and how much memory that takes."""

import threading
import time
import tracemalloc

import numpy as np
import pytest

from tensorboard_plugin import joined, joining, metadata, partreader, parts, reader
from tests._support.timeouts import TIMEOUT
from tests.plugin.run_writer import histograms_part, layers_part, variable
from tests.plugin.test_reader import CONTEXT, EXPERIMENT, MemoryProvider

pytestmark = pytest.mark.unit

ONE = layers_part([variable("a")])


def _records(steps, fill):
    return [(step, step, np.full((1, len(ONE.columns)), fill(step), "f")) for step in steps]


def _add(memory, number, part, data):
    tag = metadata.part_tag(metadata.LAYERS, number)
    memory.add("run", tag, metadata.encode(metadata.LAYERS, part), data)


def _listed(memory, tag=metadata.LAYERS):
    return parts.list_runs(memory, CONTEXT, EXPERIMENT)["run"].parts[tag]


def test_a_part_is_read_again_only_when_it_has_grown():
    memory = MemoryProvider()
    _add(memory, 0, ONE, _records([0, 1], lambda step: step))
    _add(memory, 1, ONE, _records([2], lambda step: step))
    asked = reader.Reader(memory)
    for _ in range(2):
        asked.heatmap(CONTEXT, EXPERIMENT, "run", "weight_norm", 10)
    assert memory.reads == ["disttrain/layers/0", "disttrain/layers/1"]
    _add(memory, 1, ONE, _records([2, 3], lambda step: step))
    _, arrays, _ = asked.heatmap(CONTEXT, EXPERIMENT, "run", "weight_norm", 10)
    assert memory.reads[2:] == ["disttrain/layers/1"]
    np.testing.assert_array_equal(arrays["mean"], [[0, 1, 2, 3]])


def test_the_cache_stays_within_its_bytes():
    memory = MemoryProvider()
    for number in range(4):
        _add(memory, number, ONE, _records([number], lambda step: step))
    one_record = 4 * len(ONE.columns)
    reads = partreader.PartReader(memory, cache_bytes=2 * one_record)
    listing = parts.list_runs(memory, CONTEXT, EXPERIMENT)["run"]
    for _ in range(2):
        for part in listing.parts[metadata.LAYERS]:
            reads.read(CONTEXT, EXPERIMENT, "run", part)
    assert len(memory.reads) == 8
    reads.read(CONTEXT, EXPERIMENT, "run", listing.parts[metadata.LAYERS][-1])
    assert len(memory.reads) == 8


def test_a_part_of_another_shape_is_another_part():
    memory = MemoryProvider()
    _add(memory, 0, ONE, _records([0], lambda step: step))
    asked = reader.Reader(memory)
    asked.heatmap(CONTEXT, EXPERIMENT, "run", "weight_norm", 10)
    two = layers_part([variable("a"), variable("b")])
    _add(memory, 0, two, [(0, 0, np.ones((2, len(two.columns)), "f"))])
    _, arrays, _ = asked.heatmap(CONTEXT, EXPERIMENT, "run", "weight_norm", 10)
    np.testing.assert_array_equal(arrays["mean"], [[1], [1]])


def test_values_that_were_dropped_are_read_again_and_only_where_they_are_wanted():
    memory = MemoryProvider()
    for number in range(4):
        _add(memory, number, ONE, _records(range(2 * number, 2 * number + 2), lambda step: step))
    asked = reader.Reader(memory)
    asked._joiner = joining.Joiner(partreader.PartReader(memory, cache_bytes=0))
    for _ in range(2):
        memory.reads.clear()
        _, arrays, _ = asked.heatmap(CONTEXT, EXPERIMENT, "run", "weight_norm", 10, start=2, end=3)
        np.testing.assert_array_equal(arrays["mean"], [[2, 3]])
    # By now the steps of all parts are known, and they say which part has the values.
    assert memory.reads == ["disttrain/layers/1"]


class Changing(MemoryProvider):
    """Changes a tag's records before each reading, by functions of their list."""

    def read_tensors(self, ctx, **asked):
        self.changes.pop(0)(self.runs["run"]["disttrain/layers/0"])
        return super().read_tensors(ctx, **asked)


def test_a_part_that_changes_between_two_reads_keeps_its_records_in_place():
    memory = Changing()
    _add(memory, 0, ONE, _records([5, 10, 20], lambda step: step))
    (listed,) = _listed(memory)
    early = memory.runs["run"]["disttrain/layers/0"].pop(0)
    memory.changes = [len, lambda data: data.insert(0, early), lambda data: data.pop(1)]
    reads = partreader.PartReader(memory, cache_bytes=0)
    opened = reads.open(CONTEXT, EXPERIMENT, "run", listed)
    whole = joined.Joined([listed.part], [opened])
    assert whole.steps.tolist() == [10, 20]
    values, recorded = whole.layers("weight_norm", ["a"])
    np.testing.assert_array_equal(values, [[10], [20]])
    assert recorded.all()
    # A record that is gone is not recorded; what came since waits for the next answer.
    values, recorded = whole.layers("weight_norm", ["a"])
    np.testing.assert_array_equal(values, [[np.nan], [20]])
    assert recorded.tolist() == [[False], [True]]


def test_a_long_run_takes_the_memory_of_few_parts():
    memory = MemoryProvider()
    variables = [variable(f"v{index}") for index in range(50)]
    part = histograms_part(variables)
    content = metadata.encode(metadata.HISTOGRAMS, part)
    record = np.ones(part.shape(metadata.HISTOGRAMS), np.float32)
    records, numbers = 12, 30
    for number in range(numbers):
        steps = range(number * records, (number + 1) * records)
        data = [(step, step, record) for step in steps]
        memory.add("run", metadata.part_tag(metadata.HISTOGRAMS, number), content, data)
    one_part = records * record.nbytes
    asked = reader.Reader(memory)
    asked._joiner = joining.Joiner(partreader.PartReader(memory, cache_bytes=2 * one_part))
    paths = [item["path"] for item in variables]
    tracemalloc.start()
    _, arrays, _ = asked.histograms(CONTEXT, EXPERIMENT, "run", paths, "weight", 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (arrays["mean"] == 1).all()
    answer = arrays["mean"].size * 30  # Bytes that a cell takes while it is summed up.
    assert peak < 6 * one_part + answer < numbers / 2 * one_part


def test_two_requests_at_once_read_a_part_once():
    requests, found = threading.Barrier(4), []

    class Slow(MemoryProvider):
        def read_tensors(self, ctx, **asked):
            time.sleep(0.05)  # in which another request could read it too
            return super().read_tensors(ctx, **asked)

    memory = Slow()
    _add(memory, 0, ONE, _records([0, 1], lambda step: step))
    (listed,) = _listed(memory)
    reads = partreader.PartReader(memory)

    def ask():
        requests.wait(TIMEOUT)
        found.append(reads.read(CONTEXT, EXPERIMENT, "run", listed).steps.tolist())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[0, 1]] * 4
    assert memory.reads == ["disttrain/layers/0"]

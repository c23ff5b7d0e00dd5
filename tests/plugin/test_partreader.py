"""Planes of large parts, samples, and what makes way: what is read for an answer, what is not."""

import gzip
import itertools
import threading
import time

import numpy as np
import pytest
from tensorboard import errors

from tensorboard_plugin import (
    answers,
    axes,
    buckets,
    cache,
    decoder,
    diagnosis,
    joining,
    metadata,
    partreader,
    parts,
    reader,
    turns,
)
from tests._support.timeouts import TIMEOUT
from tests.plugin.run_writer import histograms_part, layers_part, variable
from tests.plugin.test_reader import CONTEXT, EXPERIMENT, MemoryProvider

pytestmark = pytest.mark.unit

PATHS = [f"v{index}" for index in range(8)]
PART = layers_part([variable(path) for path in PATHS])
NUMBERS, RECORDS = 5, 20


class Sampling(MemoryProvider):
    """Samples where it is asked to, as TensorBoard does: the last record is always among them."""

    def read_tensors(self, ctx, *, downsample, run_tag_filter, **asked):
        answer = super().read_tensors(ctx, downsample=2**31, run_tag_filter=run_tag_filter, **asked)
        ((run, tags),) = answer.items()
        ((tag, data),) = tags.items()
        if downsample < len(data):
            self.reads[-1] += f" {downsample}"
            rows = np.random.default_rng(0).choice(len(data) - 1, downsample - 1, replace=False)
            data = [data[row] for row in [*sorted(rows), len(data) - 1]]
        return {run: {tag: data}}


def _add(memory, number, steps, part=PART, seed=0, wall=0):
    rng = np.random.default_rng([seed, number])
    values = rng.normal(size=(len(steps), *part.shape(metadata.LAYERS))).astype("f")
    values[rng.random(values.shape) < 0.05] = np.nan
    values[rng.random(values.shape) < 0.05] = np.inf
    tag = metadata.part_tag(metadata.LAYERS, number)
    data = [(step, wall + step, value) for step, value in zip(steps, values, strict=True)]
    memory.add("run", tag, metadata.encode(metadata.LAYERS, part), data)


def _memory(kind=Sampling):
    memory = kind()
    for number in range(NUMBERS):
        _add(memory, number, range(number * RECORDS, (number + 1) * RECORDS))
    return memory


def _reader(memory, **sizes):
    """A reader for which all parts are large, unless told otherwise."""
    asked = reader.Reader(memory)
    asked._joiner = joining.Joiner(partreader.PartReader(memory, **{"large": 0, **sizes}))
    return asked


def _heatmap(asked, statistic="gradient_norm", columns=7, **window):
    return asked.heatmap(CONTEXT, EXPERIMENT, "run", statistic, columns, **window)


def _series(asked, variables, statistics):
    return asked.series(CONTEXT, EXPERIMENT, "run", variables, statistics, 7)


def _same(answer, other):
    assert answer[0] == other[0]
    assert list(answer[1]) == list(other[1])
    for name, array in answer[1].items():
        np.testing.assert_array_equal(array, other[1][name])
    np.testing.assert_array_equal(answer[2], other[2])


# Planes


@pytest.mark.parametrize(
    "ask",
    [
        _heatmap,
        lambda asked: _heatmap(asked, start=13, end=66),
        lambda asked: _heatmap(asked, statistic="slot/momentum", columns=200),
        lambda asked: _series(asked, ["v5"], list(PART.columns)),
        lambda asked: _series(asked, ["v5", "v1", "v2"], ["update_ratio", "nonfinite"]),
        lambda asked: _series(asked, PATHS, list(PART.columns)),
    ],
)
def test_answers_are_the_same_from_planes_and_from_whole_parts(ask):
    whole = ask(_reader(_memory(), large=2**24))
    planes = _reader(_memory())
    for _ in range(2):
        _same(ask(planes), whole)
    _same(ask(_reader(_memory(), cache_bytes=0, plane_bytes=0)), whole)


def test_a_large_part_is_read_once_for_all_steps_of_a_statistic():
    memory = _memory()
    asked = _reader(memory)
    _heatmap(asked)
    assert sorted(memory.reads) == [f"disttrain/layers/{number}" for number in range(NUMBERS)]
    memory.reads.clear()
    _heatmap(asked, start=13, end=66)
    _heatmap(asked, columns=3)
    assert memory.reads == []
    _heatmap(asked, statistic="update_norm", start=30, end=50)
    assert memory.reads == ["disttrain/layers/1", "disttrain/layers/2"]


def test_a_large_part_is_read_once_for_all_statistics_of_a_variable():
    memory = _memory()
    asked = _reader(memory)
    _series(asked, ["v3"], list(PART.columns))
    memory.reads.clear()
    _series(asked, ["v3"], ["weight_norm", "update_cosine"])
    assert memory.reads == []


def test_histograms_of_a_large_part_are_kept_by_variable():
    memory = MemoryProvider()
    part = histograms_part([variable(path) for path in PATHS])
    content = metadata.encode(metadata.HISTOGRAMS, part)
    shape = part.shape(metadata.HISTOGRAMS)
    data = [(step, step, np.full(shape, step, "f")) for step in range(9)]
    memory.add("run", "disttrain/histograms/0", content, data)
    asked = _reader(memory)
    for quantity in ("weight", "gradient"):
        _, arrays, _ = asked.histograms(CONTEXT, EXPERIMENT, "run", ["v6"], quantity, 3)
        assert (arrays["mean"] == np.array([1, 4, 7])[:, None]).all()
    assert memory.reads == ["disttrain/histograms/0"]


def test_planes_of_a_part_that_has_grown_are_not_used():
    memory = _memory()
    asked = _reader(memory)
    _heatmap(asked)
    memory.reads.clear()
    newest = NUMBERS - 1
    _add(memory, newest, range(newest * RECORDS, newest * RECORDS + 30), seed=1)
    _same(_heatmap(asked), _heatmap(_reader(memory, large=2**24)))
    assert memory.reads[0] == f"disttrain/layers/{newest}"
    assert _heatmap(asked)[0]["records"] == newest * RECORDS + 30


def test_steps_written_again_are_shown_from_planes():
    memory = _memory()
    asked = _reader(memory)
    _heatmap(asked)
    _add(memory, NUMBERS, range(50, 60), seed=2, wall=1000)
    answer = _heatmap(asked, columns=200)
    assert answer[0]["first_step"] == list(range(60))
    _same(answer, _heatmap(_reader(memory, large=2**24), columns=200))


def test_planes_of_two_readings_that_differ_are_not_put_together():
    memory = _memory()
    listing = parts.list_runs(memory, CONTEXT, EXPERIMENT)["run"]
    (listed,) = listing.parts[metadata.LAYERS][:1]
    reads = partreader.PartReader(memory, large=0)

    def select(*columns):
        sources = axes.match(metadata.LAYERS, PART, (PATHS, columns))[0]
        (steps, _, _), values = reads.select(CONTEXT, EXPERIMENT, "run", listed, sources)
        return steps.tolist(), values

    select("weight_norm")
    # The part is written on while the listing stays the same.
    _add(memory, 0, range(5, 30), seed=3)
    select("gradient_norm")
    steps, values = select("weight_norm", "gradient_norm")
    assert steps == list(range(5, 30))
    expected = np.stack([datum.numpy for datum in memory.runs["run"]["disttrain/layers/0"]])
    np.testing.assert_array_equal(values, expected[:, :, :2])


def test_parts_with_other_variables_are_joined_from_planes():
    memory = _memory()
    other = layers_part([variable("new"), variable("v1", slots=["velocity"])], ["velocity"])
    _add(memory, NUMBERS, range(100, 120), part=other)
    for statistic in ("gradient_norm", "slot/velocity", "slot/momentum"):
        found = _heatmap(_reader(memory), statistic=statistic)
        _same(found, _heatmap(_reader(memory, large=2**24), statistic=statistic))
        assert "new" in found[0]["variables"]


def test_planes_stay_within_their_bytes():
    memory = _memory()
    plane = RECORDS * (4 * len(PATHS) + 16)
    asked = _reader(memory, plane_bytes=2 * plane, cache_bytes=0)
    for _ in range(2):
        _same(_heatmap(asked), _heatmap(_reader(_memory(), large=2**24)))
    kept = asked._joiner._parts.planes
    assert 0 < kept._held <= 2 * plane
    assert sum(size for _, _, size in kept._kept.values()) == kept._held


def test_a_value_above_the_limit_pushes_nothing_out():
    kept = cache.Cache(10)
    kept.put("a", 1, "small", 4)
    kept.put("b", 1, "large", 11)
    assert kept.get("a", 1) == "small"
    assert kept.get("b", 1) is None
    kept.put("a", 2, "large now", 11)
    assert kept.get("a", 1) is None
    assert kept._held == 0


def test_many_requests_at_once_get_what_one_gets():
    memory = _memory()
    alone = {name: _heatmap(_reader(_memory()), statistic=name) for name in PART.columns}
    asked = _reader(memory, plane_bytes=6 * RECORDS * (4 * len(PATHS) + 16))
    wrong = []

    def ask(name):
        try:
            for _ in range(5):
                _same(_heatmap(asked, statistic=name), alone[name])
        except AssertionError as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(name,)) for name in PART.columns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert wrong == []


# Samples


def test_a_sample_is_taken_of_what_takes_long_to_read_and_says_so():
    memory = _memory()
    asked = _reader(memory)
    header, arrays, recorded = _heatmap(asked, columns=4, sample=True)
    assert header["sampled"] is True
    assert header["records"] == NUMBERS
    assert header["last_step"][-1] == NUMBERS * RECORDS - 1
    assert arrays["mean"].shape == recorded.shape == (len(PATHS), 4)
    assert memory.reads == [f"disttrain/layers/{number} 1" for number in range(NUMBERS)]
    memory.reads.clear()
    whole = _heatmap(asked, columns=4)
    assert "sampled" not in whole[0]
    assert whole[0]["records"] == NUMBERS * RECORDS
    # What is here already is not sampled.
    memory.reads.clear()
    _same(_heatmap(asked, columns=4, sample=True), whole)
    _same(_heatmap(asked, columns=4, start=3, sample=True), _heatmap(asked, columns=4, start=3))
    assert memory.reads == []


def test_a_sampled_value_is_one_that_was_recorded(monkeypatch):
    monkeypatch.setattr(joining, "SAMPLED", 1)
    memory = _memory()
    header, arrays, _ = _heatmap(_reader(memory), columns=40, sample=True)
    whole = _heatmap(_reader(memory), columns=NUMBERS * RECORDS)
    at = np.searchsorted(whole[0]["first_step"], header["first_step"])
    assert header["first_step"] == header["last_step"]
    np.testing.assert_array_equal(arrays["minimum"], whole[1]["minimum"][:, at])


def test_few_parts_are_read_rather_than_sampled():
    memory = Sampling()
    for number in range(joining.MOST_UNREAD):
        _add(memory, number, range(number * RECORDS, (number + 1) * RECORDS))
    assert "sampled" not in _heatmap(_reader(memory), sample=True)[0]


def test_a_sample_stays_within_its_bytes():
    listed = [parts.ListedPart("disttrain/layers/0", PART, 1, 1.0)] * 4
    assert joining._sample_size(listed[0], listed, 100) == 50
    wide = metadata.Part(PART.columns, PART.variables * 10_000)
    listed = [parts.ListedPart("disttrain/layers/0", wide, 1, 1.0)] * 4
    size = joining._sample_size(listed[0], listed, 100)
    assert 1 <= size * 4 * np.prod(listed[0].shape) * 4 <= joining.SAMPLE_BYTES


# Metadata


def test_metadata_is_decoded_once_for_the_same_bytes(monkeypatch):
    decoded = []
    plain = metadata.decode
    monkeypatch.setattr(metadata, "decode", lambda content: decoded.append(1) or plain(content))
    remember = decoder.Decoder()
    content = metadata.encode(metadata.LAYERS, PART)
    assert remember(content) is remember(bytes(bytearray(content)))
    assert len(decoded) == 1
    other = layers_part([variable("another")])
    assert remember(metadata.encode(metadata.LAYERS, other)) == other
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot be read"):
            remember(b"{")


def test_variables_are_described_once_for_a_part():
    part = layers_part([variable("a"), variable("a")])
    assert axes.describe_variables(part) is axes.describe_variables(part)
    first, second = layers_part([variable("a", (2,))]), layers_part([variable("a", (3,))])
    assert [found.shape for found in axes.merge_variables([first, second])] == [[3]]
    assert [found.shape for found in axes.merge_variables([first, second, first])] == [[2]]


# Answers


def test_what_is_like_noise_is_stored_and_what_is_not_is_compressed():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=2**18).astype("<f4").view(np.uint8)
    zeros = np.zeros_like(noise)
    empty = np.empty(0, np.uint8)
    for pieces in ([b"abc", noise, zeros, empty], [zeros, noise], [empty], []):
        assert gzip.decompress(answers.gzipped(pieces)) == b"".join(map(bytes, pieces))
    assert len(noise) < len(answers.gzipped([noise, zeros])) < len(noise) + len(zeros) // 50
    assert len(answers.gzipped([noise], thoroughly=True)) < 0.95 * len(noise)


def test_an_answer_that_would_be_too_long_is_compressed_after_all(monkeypatch):
    noise = np.random.default_rng(0).normal(size=(4, 2**14)).astype("f")
    answer = {}, {"mean": noise}, np.ones(noise.shape, bool)
    longest = len(answers.to_binary(*answer))
    monkeypatch.setattr(answers, "MOST_BYTES", longest - 1)
    assert len(answers.to_binary(*answer)) < longest


# Turns


@pytest.fixture
def waits(monkeypatch):
    """A function from `Turns` to a list of the seconds that are waited for a turn from then on."""

    def of(order):
        found, wait = [], order._changed.wait

        def noted(seconds):
            found.append(seconds)
            return wait(seconds)

        monkeypatch.setattr(order._changed, "wait", noted)
        return found

    return of


def test_reading_in_the_background_makes_way(waits):
    order = turns.Turns()
    waited, found = waits(order), []

    def look():
        order.give_way(TIMEOUT)
        found.append("background")

    with order.first():
        thread = threading.Thread(target=look)
        thread.start()
        while thread.is_alive() and not waited:
            time.sleep(0.01)
        found.append("answer")
    thread.join(TIMEOUT)
    assert found == ["answer", "background"]


def test_reading_in_the_background_waits_no_longer_than_it_is_told(waits):
    order = turns.Turns()
    waited = waits(order)
    with order.first():
        order.give_way(0.05)
    assert waited[:1] == [0.05]


def test_the_health_rules_give_way_before_each_part_of_a_long_run():
    memory = _memory()
    asked = []
    reads = partreader.PartReader(memory, large=0)
    most = {metadata.LAYERS: NUMBERS * RECORDS * 4 * len(PATHS)}
    listing = parts.list_runs(memory, CONTEXT, EXPERIMENT)["run"]
    found = diagnosis.Diagnosis(reads, most, give_way=asked.append)
    assert found.of(CONTEXT, EXPERIMENT, "run", listing)["looked_at"] < NUMBERS * RECORDS
    assert len(asked) == NUMBERS


def test_an_answer_that_fails_waits_for_nobody(waits):
    asked = _reader(_memory())
    with pytest.raises(errors.NotFoundError):
        _heatmap(asked, statistic="none")
    waited = waits(asked._turns)
    asked._turns.give_way(0.05)
    assert waited == []


@pytest.mark.parametrize("shape", [(1000, 3), (500, 1, 10), (64, 200)])
def test_buckets_are_as_simple_sums_say(shape):
    rng = np.random.default_rng(0)
    values = rng.normal(size=shape).astype("f")
    bounds = buckets.edges(shape[0], 13)
    found = buckets.collect([(np.arange(shape[0]), values, None)], bounds, shape[1:])
    for bucket, (low, high) in enumerate(itertools.pairwise(bounds)):
        rows = values[low:high]
        np.testing.assert_array_equal(found.minimum[bucket], rows.min(axis=0))
        np.testing.assert_array_equal(found.maximum[bucket], rows.max(axis=0))
        mean = rows.astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(found.mean[bucket], mean, rtol=1e-6)
    assert found.recorded.all()
    assert not found.nonfinite.any()

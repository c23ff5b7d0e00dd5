"""What is recorded of each test and run, and what the benchmark `suite` shows of it."""

import json
import types

import pytest

from tests._support import durations
from tests.benchmarks import suite

pytestmark = pytest.mark.unit


class Cache(dict):
    """pytest's cache."""

    def set(self, key, value):
        self[key] = json.loads(json.dumps(value))


def config(cache=None, args=("tests",), **options):
    defaults = {"keyword": "", "markexpr": "", "slice": None, "all": False, "tx": ["popen"] * 2}
    return types.SimpleNamespace(
        args=list(args),
        option=types.SimpleNamespace(**{**defaults, **options}),
        getini=lambda name: ["tests"],
        cache=cache,
    )


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, "default"),
        ({"all": True}, "all"),
        ({"markexpr": "unit"}, "unit"),
        ({"markexpr": "unit and not graph"}, None),
        ({"keyword": "clip"}, None),
        ({"args": ["tests/gradients"]}, None),
        ({"markexpr": "exhaustive", "slice": (1, 3)}, None),
    ],
)
def test_kind_of_a_run_is_known_for_whole_runs_alone(options, kind):
    assert durations.kind_of(config(**options)) == kind


def report(name, seconds, layer="graph"):
    return types.SimpleNamespace(nodeid=name, duration=seconds, keywords={layer: 1})


def record(cache, reports, exitstatus=0, shouldstop=False, **options):
    recorder = durations.Recorder(config(cache, **options))
    for one in reports:
        recorder.pytest_runtest_logreport(one)
    recorder.pytest_sessionfinish(types.SimpleNamespace(shouldstop=shouldstop), exitstatus)


def test_recorder_adds_up_a_tests_phases_and_drops_its_group():
    cache = Cache()
    name = "tests/test_a.py::test_it[user@host]"
    record(cache, [report(f"{name}@jobs", 0.5), report(f"{name}@jobs", 1.0), report(name, 0.25)])
    assert cache[durations.TESTS] == {
        name: {"layer": "graph", "exhaustive": False, "seconds": 1.75}
    }


def test_recorder_keeps_what_earlier_runs_recorded():
    cache = Cache()
    record(cache, [report("a", 1.0), report("b", 1.0)])
    record(cache, [report("b", 3.0)], keyword="b")
    assert {name: test["seconds"] for name, test in cache[durations.TESTS].items()} == {
        "a": 1.0,
        "b": 3.0,
    }
    assert cache[durations.RUNS]["default"]["tests"] == 2
    assert cache[durations.RUNS]["default"]["workers"] == 2


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, {"many", "new"}),
        ({"all": True}, {"new"}),
        ({"markexpr": "graph"}, {"other", "many", "new"}),
        ({"keyword": "new"}, {"gone", "other", "many", "new"}),
        ({"exitstatus": 2}, {"gone", "other", "many", "new"}),
    ],
)
def test_recorder_drops_tests_that_a_whole_run_no_longer_has(options, left):
    many = report("many", 1.0)
    many.keywords["exhaustive"] = 1
    cache = Cache()
    record(cache, [report("gone", 1.0), report("other", 1.0, "unit"), many], all=True)
    record(cache, [report("new", 1.0)], **options)
    assert set(cache[durations.TESTS]) == left


@pytest.mark.parametrize("options", [{"exitstatus": 2}, {"shouldstop": "first failure"}])
def test_recorder_takes_no_interrupted_run_for_a_whole_one(options):
    cache = Cache()
    record(cache, [report("a", 1.0)], **options)
    assert durations.RUNS not in cache


def test_suite_shows_runs_layers_and_the_slowest_tests(tmp_path):
    cache = Cache()
    record(cache, [report(f"t{n}", float(n)) for n in range(60)] + [report("u", 0.5, "unit")])
    (tmp_path / "disttrain").mkdir()
    for key, value in cache.items():
        (tmp_path / key).write_text(json.dumps(value))
    run, *layers = list(suite.suite(None, tmp_path))
    assert (run.case, run.name, run.goal) == ("run of default", "61 tests, 2 workers", 600)
    graph, unit, *slowest = layers
    assert (graph.name, graph.summary.median) == ("graph, 60 tests", sum(range(60)))
    assert (unit.name, unit.summary.median) == ("unit, 1 tests", 0.5)
    assert [one.name for one in slowest] == [f"t{n}" for n in range(59, 9, -1)]


def test_suite_without_recorded_durations_says_what_to_run(tmp_path):
    with pytest.warns(UserWarning, match="run ./launch/test.sh first"):
        assert list(suite.suite(None, tmp_path)) == []

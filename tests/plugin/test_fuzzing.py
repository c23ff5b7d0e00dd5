"""Anything asked of any route, on good runs and on broken ones: an answer, or a plain refusal.

TensorBoard's own application stands around the plugin, on its Rust and on its Python reader.
"""

import gzip
import json
import string
import time
import types

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.application import TensorBoardWSGI
from tensorboard.backend.event_processing import data_ingester
from tensorboard.data import server_ingester
from tensorboard.plugins import base_plugin
from tensorboard.util import grpc_util
from werkzeug.test import Client

from tensorboard_plugin import answers, export, metadata, plugin
from tests._support.timeouts import TIMEOUT
from tests.plugin import conftest, foreign_runs
from tests.plugin.run_writer import transformer, write_training

pytestmark = pytest.mark.processes

#: Runs by name; the last is a run by its name alone.
WRITERS = {
    "plain": lambda directory: write_training(directory, records=40, blocks=1),
    "changed": conftest.write_changed,
    "damaged": conftest.write_damaged,
    conftest.HOSTILE_RUN: conftest.write_hostile,
    "cut": foreign_runs.write_cut,
    "overwritten": foreign_runs.write_overwritten,
    "noise": foreign_runs.write_noise,
    "anything": foreign_runs.write_anything,
    "long": foreign_runs.write_long,
    "others": foreign_runs.write_others,
}
NEVER_LISTED = {"noise"}

ROUTES = ("runs", "variables", "heatmap", "series", "histograms", "steps", "replicas")
ROUTES += ("health", "export", "optimizer")

TRICKS = (
    *conftest.HOSTILE,
    *("", " ", "0", "-1", "1e400", "nan", "NaN", "Infinity", "null", "[]", "%", "%00", "\x00"),
    *("9" * 18, "9" * 5000, "-" + "9" * 17, "1_0", "٣", "ü漢", "\u202e", "=1+1", "a\r\nb: c"),
    *("..", "/etc/passwd", "x" * 10_000, "' OR 1=1 --", "{{7*7}}", "disttrain/layers/0"),
)

SENSIBLE = {
    "run": [*WRITERS, "plain", "plain", "anything"],
    "statistic": ["weight_norm", "update_ratio", "gradient_norm", "slot/momentum"],
    "variable": [path for path, _ in transformer(1)] + ["a/kernel", "=1+1", conftest.HOSTILE[0]],
    "quantity": ["loss", "weight", "gradient", "wait_seconds"],
    "columns": ["1", "7", "512", "4096"],
    "start": ["0", "10", "-5"],
    "end": ["0", "100", "5"],
    "format": ["json", "binary", "csv"],
    "what": ["heatmap", "series", "steps", "replicas", "histograms", "runs"],
}


def _texts():
    return st.one_of(st.sampled_from(TRICKS), st.text(max_size=20), st.integers().map(str))


def _values(name):
    good = st.sampled_from(SENSIBLE[name])
    # Mostly sensible, else nearly nothing would come further than the first check.
    one = st.integers(0, 7).flatmap(lambda n: good if n else _texts())
    most = {"run": 1, "variable": 4, "statistic": 3, "quantity": 2}.get(name, 1)
    usual = st.lists(one, min_size=1, max_size=most)
    return st.integers(0, 9).flatmap(lambda n: usual if n else st.lists(_texts(), max_size=5))


@st.composite
def queries(draw):
    names = draw(st.sets(st.sampled_from(sorted(SENSIBLE)), min_size=1))
    names |= set(draw(st.sampled_from([[], ["run"], ["run", "statistic", "variable"], SENSIBLE])))
    query = [(name, value) for name in sorted(names) for value in draw(_values(name))]
    if draw(st.integers(0, 9)) == 0:
        query.append((draw(_texts()), draw(_texts())))
    return query


def _rust(root):
    ingester = server_ingester.SubprocessServerDataIngester(
        server_ingester.get_server_binary(),
        str(root),
        reload_interval=1,
        channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
        samples_per_plugin={metadata.PLUGIN_NAME: 0},
    )
    ingester.start()
    return ingester


def _python(root):
    flags = types.SimpleNamespace(
        samples_per_plugin={metadata.PLUGIN_NAME: 0},
        purge_orphaned_data=True,
        max_reload_threads=1,
        reload_multifile=False,
        detect_file_replacement=False,
        logdir=str(root),
        logdir_spec="",
        reload_interval=0,
        reload_task="blocking",
    )
    ingester = data_ingester.LocalDataIngester(flags)
    ingester.start()
    return ingester


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A log directory with all runs."""
    found = tmp_path_factory.mktemp("fuzzing")
    for name, write in WRITERS.items():
        write(found / name)
    return found


class Asked:
    """TensorBoard's application with the plugin.

    Attributes:
        runs: What the route `runs` says of each run, by name.
    """

    def __init__(self, provider):
        plugins = [plugin.Plugin(base_plugin.TBContext(data_provider=provider))]
        self._client = Client(TensorBoardWSGI(plugins, data_provider=provider))
        self.runs = {}

    def get(self, route, query=(), accepted="gzip"):
        """The response of one of the plugin's routes."""
        headers = {"Accept-Encoding": accepted}
        path = f"/data/plugin/disttrain/{route}"
        return self._client.get(path, query_string=list(query), headers=headers)

    def json(self, route, query=()):
        """A route's JSON, of any status."""
        return json.loads(unpacked(self.get(route, query)))


@pytest.fixture(scope="module", params=[_rust, _python])
def asked(request, root):
    """TensorBoard's application, once every run has been read."""
    found = Asked(request.param(root).data_provider)
    end = time.monotonic() + TIMEOUT
    while not set(found.runs) >= set(WRITERS) - NEVER_LISTED:
        assert time.monotonic() < end
        found.runs = {run["name"]: run for run in found.json("runs")["runs"]}
        time.sleep(0.05)
    return found


def unpacked(response):
    """The body of a response."""
    zipped = response.headers.get("Content-Encoding") == "gzip"
    return gzip.decompress(response.data) if zipped else response.data


def check(response):
    """What holds for every answer."""
    assert response.status_code in (200, 400, 404), response.data[:500]
    assert len(response.data) <= answers.MOST_BYTES
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert b"root:" not in response.data
    if response.status_code != 200:
        assert response.headers["Content-Type"] == "application/json"
        content = json.loads(unpacked(response))
        assert set(content) == {"error"}
        assert 0 < len(content["error"]) < 1000
        assert "\n" not in content["error"]
        assert "Traceback" not in content["error"]


def fuzzed(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


any_query = given(st.sampled_from(ROUTES), queries(), st.sampled_from(["gzip", ""]))


@fuzzed(80)
@any_query
def test_any_query_is_answered_or_refused(asked, route, query, accepted):
    check(asked.get(route, query, accepted))


@pytest.mark.exhaustive
@fuzzed(500)
@any_query
def test_many_queries_are_answered_or_refused(asked, route, query, accepted):
    check(asked.get(route, query, accepted))


@pytest.mark.parametrize("name", WRITERS)
def test_every_route_answers_every_run(asked, name):
    """With arguments that make sense for the run, as far as there are any."""
    run = asked.runs.get(name)
    if run is None:
        assert name in NEVER_LISTED
        run = {"statistics": [], "histogram_quantities": []}
    found = asked.json("variables", [("run", name)]).get("variables", [])
    query = [("run", name), *(("variable", item["path"]) for item in found[:20])]
    statistics = [("statistic", item["name"]) for item in run["statistics"]][:5]
    counted = [("quantity", item["name"]) for item in run["histogram_quantities"]][:1]
    more = {"heatmap": statistics[:1], "series": statistics, "histograms": counted}
    for route in ROUTES[:-1]:
        for format_ in ("json", "binary"):
            response = asked.get(route, [*query, *more.get(route, ()), ("format", format_)])
            check(response)
            if route in ("runs", "health") and name in asked.runs:
                assert response.status_code == 200
    for what in export.KINDS:
        for format_ in export.FORMATS:
            wanted = [*query, *more.get(what, ()), ("what", what), ("format", format_)]
            check(asked.get("export", wanted))


def test_an_answer_that_names_alone_make_long_is_refused(asked, monkeypatch):
    monkeypatch.setattr(answers, "MOST_BYTES", 1_000_000)
    response = asked.get("variables", [("run", "long")], accepted="")
    assert response.status_code == 400
    assert "more than 1 MB" in json.loads(response.data)["error"]
    assert asked.get("variables", [("run", "plain")], accepted="").status_code == 200


@fuzzed(100)
@given(
    st.one_of(
        st.sampled_from(TRICKS),
        st.text(string.printable, max_size=40),
        st.lists(st.sampled_from(["..", ".", "static", "index.js", "plugin.py", "", "%2e%2e"])).map(
            "/".join
        ),
    )
)
def test_no_path_leads_out_of_the_static_files(asked, path):
    response = asked.get(f"static/{path.replace('?', '')}", accepted="")
    assert response.status_code in (200, 301, 302, 308, 400, 404)
    if response.status_code == 200:
        assert response.data in {
            (plugin.STATIC / name).read_bytes() for name in plugin.STATIC_FILES
        }

"""Which tests run, in which order and group, and what a layer forbids."""

import os
import subprocess
import sys
import types

import pytest

from tests._support import layers
from tests._support.timeouts import TIMEOUT

TESTS = """
import os, subprocess, sys
import pytest

@pytest.mark.unit
def test_unit_is_fine():
    pass

@pytest.mark.unit
def test_unit_starts_a_process():
    subprocess.run(["true"], check=True)

@pytest.mark.unit
def test_unit_forks():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

@pytest.mark.unit
def test_unit_hides_its_process():
    try:
        subprocess.run(["true"], check=True)
    except Exception:
        pass

@pytest.fixture(scope="session")
def started():
    subprocess.run(["true"], check=True)

@pytest.mark.unit
def test_unit_asks_a_fixture_for_a_process(started):
    pass

@pytest.mark.unit
def test_unit_traces():
    import tensorflow as tf
    tf.function(lambda: tf.constant(1.0))()

@pytest.mark.unit
def test_unit_maps_a_dataset():
    import tensorflow as tf
    tf.data.Dataset.range(2).map(lambda x: x + 1)

@pytest.mark.unit
def test_unit_computes_eagerly():
    import tensorflow as tf
    assert tf.constant(1.0) + 1.0 == 2.0

@pytest.mark.graph
def test_graph_traces():
    import tensorflow as tf
    tf.function(lambda: tf.constant(1.0))()

@pytest.mark.graph
def test_graph_starts_a_process():
    subprocess.run(["true"], check=True)

@pytest.mark.processes
def test_processes_starts_a_process():
    subprocess.run(["true"], check=True)

@pytest.mark.unit
@pytest.mark.exhaustive
@pytest.mark.parametrize("n", range(20))
def test_unit_exhaustively(n):
    pass

@pytest.mark.unit
@pytest.mark.parametrize("n", range(20))
def test_unit_in_one_worker(n):
    with open(os.path.join(os.path.dirname(__file__), "workers"), "a") as file:
        file.write(os.environ.get("PYTEST_XDIST_WORKER", "none") + "\\n")

@pytest.mark.unit
@pytest.mark.xdist_group("other")
@pytest.mark.parametrize("n", range(20))
def test_unit_in_another_group(n):
    pass
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs pytest on `TESTS` with the plugin; returns its status and output."""
    folder = tmp_path_factory.mktemp("tests")
    (folder / "test_it.py").write_text(TESTS)
    root = layers._ROOT.parent
    plugins = ["-p", "tests._support.background_jobs", "-p", "tests._support.layers"]
    plugins += ["-p", "xdist.plugin"]
    # Other plugins take longer to import than these tests to run.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *plugins, "-p", "no:cacheprovider", "-q", "-rA"]
    command += ["--rootdir", str(folder), "-c", "/dev/null", "--dist=loadgroup"]

    def runs(*arguments, text=None):
        if text is not None:
            (folder / "test_other.py").write_text(text)
            arguments = [*arguments, str(folder / "test_other.py")]
        else:
            arguments = [*arguments, str(folder / "test_it.py")]
        done = subprocess.run(
            [*command, *arguments],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        return done.returncode, done.stdout + done.stderr

    runs.folder = folder
    return runs


def names(output, outcome):
    """Names of the tests that a summary lists with an outcome."""
    lines = [line.split() for line in output.splitlines() if line.startswith(outcome + " ")]
    return {words[1].rpartition("::")[2].partition("@")[0] for words in lines}


@pytest.mark.processes
@pytest.mark.parametrize(
    "workers",
    [pytest.param([], marks=pytest.mark.exhaustive), ["-n", "2"]],
    ids=["one process", "workers"],
)
def test_promise_of_each_layer_is_checked(run, workers):
    notes = run.folder / "workers"
    notes.unlink(missing_ok=True)
    status, output = run(*workers)
    assert status == 1
    # Without it pytest-xdist would hand out the tests of a group one by one.
    assert len(set(notes.read_text().split())) == 1
    assert names(output, "ERROR") == {
        "test_unit_starts_a_process",
        "test_unit_forks",
        "test_unit_hides_its_process",
        "test_unit_asks_a_fixture_for_a_process",
        "test_unit_traces",
        "test_unit_maps_a_dataset",
        "test_graph_starts_a_process",
    }
    assert "a test of the layer 'unit' starts a process (['true'])" in output
    assert "a test of the layer 'unit' traces a graph (" in output
    assert "a test of the layer 'graph' starts a process" in output
    assert {"test_unit_is_fine", "test_unit_computes_eagerly", "test_graph_traces"} <= names(
        output, "PASSED"
    )
    assert "--all also runs 20 exhaustive tests" in output


@pytest.mark.processes
def test_slices_divide_the_exhaustive_tests_and_the_rest_is_printed(run):
    seen = []
    for part in ("1/2", "2/2"):
        status, output = run("-m", "exhaustive", f"--slice={part}")
        assert status == 0
        passed = names(output, "PASSED")
        assert f"the other slices have {20 - len(passed)} exhaustive tests" in output
        assert f"{20 - len(passed):5} of test_it.py" in output
        seen.append(passed)
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == {f"test_unit_exhaustively[{n}]" for n in range(20)}
    assert all(seen)


@pytest.mark.processes
def test_exhaustive_tests_run_with_all_and_by_their_names(run):
    _, output = run("--all", "-k", "exhaustively")
    assert len(names(output, "PASSED")) == 20
    status, output = run("-k", "exhaustively")
    assert status == 5, "nothing is left to run"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("marks", "has"), [("", "none"), ("@pytest.mark.unit\n@pytest.mark.graph\n", "graph and unit")]
)
def test_every_test_has_exactly_one_layer(run, marks, has):
    status, output = run(text=f"import pytest\n{marks}def test_it(): pass\n")
    assert status == 4
    assert (
        f"needs exactly one of the markers processes, browser, graph, unit; it has {has}." in output
    )


@pytest.mark.unit
@pytest.mark.parametrize("text", ["1", "0/2", "3/2", "a/b", ""])
def test_slice_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match="--slice takes K/N"):
        layers._slice(text)


def item(path="optimizers/test_sam.py", fixtures=(), **markers):
    """What the plugin asks of a test."""
    return types.SimpleNamespace(
        path=layers._ROOT / path,
        nodeid=f"tests/{path}::test_it",
        fixturenames=fixtures,
        get_closest_marker=markers.get,
    )


@pytest.mark.unit
@pytest.mark.parametrize(
    ("made", "group"),
    [
        (item(), "optimizers/test_sam.py"),
        (item("launch/test_local.py"), "launchers"),
        (item("launch/test_local.py", fixtures=["browser", "outcomes"]), "replications"),
        (item("plugin/test_page.py", fixtures=["browser"]), "tensorboard"),
        (item("plugin/test_plugin.py", fixtures=["server"]), "tensorboard"),
        (item(background_job=pytest.mark.background_job.with_args(print).mark), "jobs"),
        (item(xdist_group=pytest.mark.xdist_group("own").mark), "own"),
        (item(xdist_group=pytest.mark.xdist_group(name="own").mark), "own"),
    ],
)
def test_group_is_that_of_what_a_test_shares(made, group):
    assert layers.group_of(made) == group


@pytest.mark.unit
def test_tests_that_share_a_job_are_in_one_slice():
    job = {"background_job": pytest.mark.background_job.with_args(print).mark}
    made = [item(f"distributed/test_{n}.py", **job) for n in range(50)]
    assert len({layers.in_slice(one, 1, 3) for one in made}) == 1
    others = [
        item(background_job=pytest.mark.background_job.with_args(print, n, len).mark)
        for n in range(50)
    ]
    assert len({layers.in_slice(one, 1, 3) for one in others}) == 2
    parts = [sum(layers.in_slice(item(f"test_{n}.py"), k, 3) for n in range(90)) for k in (1, 2, 3)]
    assert sum(parts) == 90
    assert min(parts) > 10

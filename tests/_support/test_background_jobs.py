"""Jobs run once for all tests that look at their results, and errors reach each of these."""

import types

import pytest

from tests._support import background_jobs

pytestmark = pytest.mark.unit


@pytest.fixture
def start():
    """Starts jobs, each `(function, *arguments)`, as those of the tests of a session."""
    cleanups = []

    def started(*jobs):
        marks = [pytest.mark.background_job.with_args(*job).mark for job in jobs]
        items = [types.SimpleNamespace(get_closest_marker=lambda name, m=m: m) for m in marks]
        items.append(types.SimpleNamespace(get_closest_marker=lambda name: None))
        config = types.SimpleNamespace(add_cleanup=cleanups.append)
        return background_jobs._start(types.SimpleNamespace(items=items, config=config))

    yield started
    for cleanup in reversed(cleanups):
        cleanup()


def count(directory, name):
    """Notes each run in the folder of all jobs."""
    assert list(directory.iterdir()) == []
    with open(directory.parent / f"{name}.runs", "a") as file:
        file.write("run\n")
    return directory, name


def fail(directory):
    raise OSError("the job is broken")


def test_a_job_runs_once_for_all_its_tests_and_others_have_their_own_directories(start):
    running = start((count, "one"), (count, "two"), (count, "one"))
    assert list(running) == [(count, "one"), (count, "two")]
    (one, name), (two, _) = (future.result() for future in running.values())
    assert name == "one"
    assert one != two
    assert (one.parent / "one.runs").read_text() == "run\n"


def test_an_error_of_a_job_is_raised_where_its_result_is_wanted(start):
    (future,) = start((fail,)).values()
    with pytest.raises(OSError, match="the job is broken"):
        future.result()

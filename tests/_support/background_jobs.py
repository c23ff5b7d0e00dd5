"""Runs jobs of several processes in the background, once for all tests that look at their results.

A test with the marker `pytest.mark.background_job.with_args(function, *arguments)` gets from the
fixture `background_job` what `function(directory, *arguments)` returned, or its exception. When the
first such test begins, the jobs of all of them start, one after another, and the tests wait. Each
job runs once, in a new directory.
"""

import concurrent.futures
import pathlib
import tempfile

import psutil
import pytest

_RUNNING = pytest.StashKey()


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "background_job(function, *arguments): the job whose result the test looks at"
    )


def job_of(item):
    """`(function, *arguments)` of a test's marker; None for a test without one."""
    marker = item.get_closest_marker("background_job")
    return marker and marker.args


def pytest_collection_modifyitems(items):
    for item in filter(job_of, items):
        # A job has its own limits, and it may start long after its test.
        item.add_marker(pytest.mark.timeout(func_only=True))


def _start(session):
    """Starts the jobs of all selected tests; returns `(function, *arguments)` to a future."""
    folder = tempfile.TemporaryDirectory(prefix="disttrain-jobs-", ignore_cleanup_errors=True)
    threads = concurrent.futures.ThreadPoolExecutor(1, "background-job")
    running = {}
    for number, (function, *arguments) in enumerate(
        dict.fromkeys(filter(None, map(job_of, session.items)))
    ):
        directory = pathlib.Path(folder.name, str(number))
        directory.mkdir()
        running[(function, *arguments)] = threads.submit(function, directory, *arguments)

    def close():
        if not all(future.done() for future in running.values()):
            threads.shutdown(wait=False, cancel_futures=True)
            # The threads wait for these.
            for child in psutil.Process().children(recursive=True):
                child.kill()
        threads.shutdown()

    session.config.add_cleanup(folder.cleanup)
    session.config.add_cleanup(close)
    return running


@pytest.fixture
def background_job(request):
    """What the function of the marker returned."""
    stash = request.config.stash
    if _RUNNING not in stash:
        stash[_RUNNING] = _start(request.session)
    return stash[_RUNNING][job_of(request.node)].result()

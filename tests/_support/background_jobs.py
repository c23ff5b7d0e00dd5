"""Has what waits most of the time, such as jobs of several processes, run beside the other tests.

A test with the marker `pytest.mark.beside.with_args(function, *arguments)` gets from the fixture
`beside` what `function(directory, *arguments)` has returned, or its exception. The functions run
one after another on a thread, each once, in a new directory, and their tests come late.
"""

import concurrent.futures
import pathlib
import tempfile

import psutil
import pytest

_RUNNING = pytest.StashKey()


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "beside(function, *arguments): what runs on a thread before the test wants it"
    )


def _wanted(item):
    marker = item.get_closest_marker("beside")
    return marker and marker.args


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: _wanted(item) is not None)
    for item in filter(_wanted, items):
        # What runs beside has limits of its own, and may not have begun when its test does.
        item.add_marker(pytest.mark.timeout(func_only=True))


def pytest_collection_finish(session):
    wanted = list(dict.fromkeys(filter(None, map(_wanted, session.items))))
    if not wanted or session.config.option.collectonly:
        return
    folder = tempfile.TemporaryDirectory(prefix="disttrain-beside-", ignore_cleanup_errors=True)
    thread = concurrent.futures.ThreadPoolExecutor(1, "beside")
    running = session.config.stash[_RUNNING] = {}
    for number, (function, *arguments) in enumerate(wanted):
        directory = pathlib.Path(folder.name, str(number))
        directory.mkdir()
        running[(function, *arguments)] = thread.submit(function, directory, *arguments)

    def close():
        if not all(future.done() for future in running.values()):
            thread.shutdown(wait=False, cancel_futures=True)
            # What it waits for.
            for child in psutil.Process().children(recursive=True):
                child.kill()
        thread.shutdown()

    session.config.add_cleanup(folder.cleanup)
    session.config.add_cleanup(close)


@pytest.fixture
def beside(request):
    """What the function of the marker has returned."""
    return request.config.stash[_RUNNING][_wanted(request.node)].result()

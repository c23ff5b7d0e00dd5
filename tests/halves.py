"""Lets two processes share the tests, `--half=1` and `--half=2`; without the option all run in one.

Most tests trace, which keeps one core busy. The second half has such tests alone; the first has the
rest, above all what has programs, ports and jobs of its own.
"""

import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parent

#: Of which the second half has what needs no job beside it; it takes about as long as the rest.
SECOND = (
    "examples",
    "experiments",
    "gradients",
    "optimizers",
    "replication",
    "telemetry",
    "test_callbacks.py",
    "test_losses.py",
    "test_trainer.py",
)


def pytest_addoption(parser):
    parser.addoption("--half", type=int, choices=(1, 2), help="run only this half of the tests")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    wanted = config.getoption("half")
    if wanted is None:
        return
    kept, left = [], []
    for item in items:
        (kept if half(item) == wanted else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


def half(item):
    """The half that a test belongs to, 1 or 2."""
    waits = item.get_closest_marker("beside") or "outcomes" in getattr(item, "fixturenames", ())
    path = item.path.relative_to(_ROOT)
    return 2 if path.parts[0] in SECOND and not waits else 1

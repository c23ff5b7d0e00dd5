"""Each test is in one of the two halves, and what waits for a job in the first."""

import types

import pytest

from tests import halves


def item(path, fixtures=(), marker=None):
    return types.SimpleNamespace(
        path=halves._ROOT / path, fixturenames=fixtures, get_closest_marker=lambda name: marker
    )


@pytest.mark.parametrize(
    ("made", "half"),
    [
        (item("optimizers/test_sam.py"), 2),
        (item("optimizers/test_sam.py", ["outcomes"]), 1),
        (item("optimizers/test_sam.py", marker=object()), 1),
        (item("launch/test_local.py"), 1),
        (item("test_losses.py"), 2),
        (item("test_kernels.py"), 1),
    ],
)
def test_what_waits_for_a_job_is_in_the_first(made, half):
    assert halves.half(made) == half


@pytest.mark.parametrize("half", [None, 1, 2])
def test_together_they_are_all_tests_in_their_order(half):
    items = [item(f"{folder}/test_{n}.py") for n in range(3) for folder in ("plugin", "gradients")]
    left = []
    hook = types.SimpleNamespace(pytest_deselected=lambda items: left.extend(items))
    config = types.SimpleNamespace(getoption=lambda name: half, hook=hook)
    kept = list(items)
    halves.pytest_collection_modifyitems(config, kept)
    assert kept == [one for one in items if half in (None, halves.half(one))]
    assert sorted(map(id, kept + left)) == sorted(map(id, items))
    assert len(kept) == (6 if half is None else 3)


@pytest.mark.parametrize("name", halves.SECOND)
def test_what_the_second_is_made_of_is_there(name):
    assert (halves._ROOT / name).exists()

"""Experiments give the same results under every replication, and the chief alone writes them."""

import numpy as np
import pytest

pytestmark = [pytest.mark.processes, pytest.mark.two_ranks]


def test_a_comparison_gives_the_results_of_one_device(outcome, alone):
    for key in ("states", "steps"):
        assert (outcome("comparison", key) == alone("comparison", key)).all()
    np.testing.assert_allclose(
        outcome("comparison", "losses"), alone("comparison", "losses"), rtol=1e-4
    )
    assert sorted(set(outcome("comparison", "states"))) == ["diverged", "finished"]


def test_every_process_returns_the_same_comparison(outcome):
    for key in ("text", "seconds"):
        chief, *others = outcome.every("comparison", key)
        assert all((other == chief).all() for other in others)


def test_the_chief_alone_writes_a_comparison(outcome):
    chief, *others = outcome.every("comparison", "written")
    # A plan and a record for each run.
    assert chief == 5
    assert not any(others)
    writers = outcome("comparison", "writers")
    assert writers.tolist() == [outcome("comparison", "process")]
    assert outcome("comparison", "page")


def test_a_search_finds_the_same_under_every_replication(outcome, alone):
    for states, best in zip(
        outcome.every("search", "states"), outcome.every("search", "best"), strict=True
    ):
        assert states.tolist() == ["finished", "finished", "diverged"]
        assert best == alone("search", "best") == 0
    np.testing.assert_allclose(outcome("search", "values"), alone("search", "values"), rtol=1e-4)

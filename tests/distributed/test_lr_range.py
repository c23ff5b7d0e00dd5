"""The range test leaves every process as it was, and tells all of them the same."""

import numpy as np
import pytest

pytestmark = [pytest.mark.processes, pytest.mark.two_ranks]


def test_weights_and_optimizer_are_put_back_to_the_last_bit(outcome):
    for before, after in zip(
        outcome.every("lr-range", "before"), outcome.every("lr-range", "after"), strict=True
    ):
        assert before.tobytes() == after.tobytes()


def test_all_processes_get_the_same(outcome):
    for key in ("suggestion", "candidates", "losses"):
        chief, *others = outcome.every("lr-range", key)
        for other in others:
            np.testing.assert_array_equal(other, chief)


def test_it_is_what_one_device_gets(outcome, alone):
    assert 0.01 < alone("lr-range", "suggestion") < 1
    assert outcome("lr-range", "suggestion") == pytest.approx(alone("lr-range", "suggestion"))
    losses, expected = outcome("lr-range", "losses"), alone("lr-range", "losses")
    # Behind the best rate, rounding grows with each step.
    stable = int(np.argmin(expected))
    assert stable > 20
    np.testing.assert_allclose(losses[:stable], expected[:stable], rtol=1e-3, atol=1e-5)

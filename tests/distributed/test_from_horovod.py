"""What replaces Horovod's functions does what they do, on every replication."""

import numpy as np
import pytest

pytestmark = pytest.mark.processes


def test_objects_reach_every_process(outcome):
    processes = len(outcome.processes)
    last = processes - 1
    for received, length, gathered, lengths in zip(
        *(outcome.every("objects", key) for key in ("received", "length", "gathered", "lengths")),
        strict=True,
    ):
        assert received == last
        assert length == 8 * last
        np.testing.assert_array_equal(gathered, range(processes))
        np.testing.assert_array_equal(lengths, 7 * np.arange(processes))


def test_an_object_that_cannot_be_pickled_is_an_error_on_every_process(outcome):
    for error in outcome.every("objects", "error"):
        if len(outcome.processes) > 1:
            assert f"the object of process {len(outcome.processes) - 1} cannot be" in str(error)


def test_the_rows_of_the_page_run_on_horovods_ranks(outcome):
    for failed in outcome.every("horovod-page", "failed"):
        assert list(failed) == []


def test_xla_is_refused_with_what_to_pass(outcome, kind):
    for error in outcome.every("horovod-compiled", "error"):
        assert ("pass jit_compile=False to compile" in str(error)) == kind.startswith("horovod")


def test_warmup_has_the_rate_of_horovods_callback_in_every_batch(outcome):
    for ours, theirs in zip(
        outcome.every("horovod-warmup", "ours"),
        outcome.every("horovod-warmup", "theirs"),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert ours[0] < ours[-1]


def test_accumulated_gradients_are_horovods_average_and_half_of_its_sum(outcome):
    for ours, averaged, added in zip(
        *(outcome.every("horovod-accumulation", key) for key in ("ours", "averaged", "added")),
        strict=True,
    ):
        np.testing.assert_allclose(ours, averaged, rtol=1e-6)
        np.testing.assert_allclose(added, 2 * ours, rtol=1e-6)

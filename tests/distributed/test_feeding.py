"""Every kind of data trains, evaluates and predicts on every replication as on one device."""

import numpy as np
import pytest

pytestmark = pytest.mark.processes


def test_a_trainer_in_a_scope_reports_what_one_device_does(outcome, alone, kind):
    for count in outcome.every("in-scope", "replicas"):
        assert count == int(kind.rpartition("-")[2])
    for key in ("weights", "history", "evaluation", "by hand", "outputs"):
        for found in outcome.every("in-scope", key):
            np.testing.assert_allclose(found, alone("in-scope", key), rtol=1e-5, atol=1e-5)
    assert outcome("in-scope", "iterations") == alone("in-scope", "iterations") == 9


def test_callbacks_see_the_numbers_of_batches_over_all_replicas(outcome, alone):
    for key in ("losses of batches", "rows of batches"):
        for found in outcome.every("in-scope", key):
            np.testing.assert_allclose(found, alone("in-scope", key), rtol=1e-5)
    assert outcome("in-scope", "rows of batches").tolist() == [8, 8, 8, 8, 5]


def test_predictions_of_different_lengths_are_ragged_on_every_process(outcome, alone):
    for key in ("ragged", "values", "lengths"):
        for found in outcome.every("different-lengths", key):
            np.testing.assert_allclose(found, alone("different-lengths", key), rtol=1e-6)
    assert alone("different-lengths", "lengths").tolist() == [2] * 5 + [5] * 3


def test_processes_that_read_different_batches_are_found_whatever_they_do(outcome, kind):
    for errors in outcome.every("different-generators", "errors"):
        for error in errors:
            assert ("different batches" in error) != kind.startswith("mirrored")

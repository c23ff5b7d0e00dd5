"""Callbacks when there are several processes."""

import numpy as np
import pytest

pytestmark = pytest.mark.processes


def test_a_learning_rate_that_the_chief_alone_sets_reaches_all(outcome):
    for rate in outcome.every("callbacks", "learning_rate"):
        assert rate == 0.5
    chief, *others = outcome.every("callbacks", "weights")
    for other in others:
        np.testing.assert_array_equal(other, chief)


def test_one_process_that_stops_stops_all(outcome):
    for epochs in outcome.every("callbacks", "epochs"):
        assert epochs == 3


def test_only_the_chief_writes_files(outcome):
    assert list(outcome("callbacks", "files")) == ["process-0.csv", "process-0.keras"]


def test_the_chiefs_checkpoint_holds_the_weights(outcome):
    np.testing.assert_array_equal(outcome("callbacks", "restored"), outcome("callbacks", "weights"))


def test_an_interrupted_run_goes_on_where_it_was_on_every_process(outcome, alone):
    for epochs in outcome.every("resume", "epochs"):
        np.testing.assert_array_equal(epochs, [2, 3])
    assert outcome("resume", "iterations") == 24
    for weights in outcome.every("resume", "weights"):
        np.testing.assert_allclose(weights, alone("resume", "weights"), atol=1e-5)

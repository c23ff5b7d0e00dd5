"""Work beside the training, and how its failures come to be known."""

import threading

import pytest

from disttrain.checkpoints.writer import Writer
from tests._support.timeouts import TIMEOUT

pytestmark = pytest.mark.unit


def test_the_work_goes_on_beside():
    go, writer = threading.Event(), Writer()
    writer.start(lambda: go.wait(TIMEOUT), "the checkpoint")
    assert writer.busy
    assert writer.look() is None
    go.set()
    assert writer.wait() is True
    assert not writer.busy
    assert writer.wait() is None


def test_a_failure_is_a_warning_on_the_thread_that_trains():
    writer = Writer()

    def fail():
        raise OSError(28, "No space left on device")

    writer.start(fail, "the checkpoint of step 7")
    with pytest.warns(
        UserWarning, match="the checkpoint of step 7 could not be saved .*No space left on device"
    ):
        assert writer.wait() is False


def test_a_second_piece_of_work_waits_for_the_first():
    order, writer = [], Writer()
    writer.start(lambda: order.append(1), "one")
    writer.start(lambda: order.append(2), "two")
    writer.wait()
    assert order == [1, 2]

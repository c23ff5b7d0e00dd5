"""Signals, and the number that carries wishes through a step's sum."""

import os
import signal
import threading

import numpy as np
import pytest

from disttrain.checkpoints.signals import STOPPING, Preempted, Stop, Wishes
from tests._support.timeouts import TIMEOUT

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_noted_and_handlers_come_back(number):
    before = signal.getsignal(number)
    stop = Stop()
    with stop.listening():
        assert stop.number is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # Launchers send it to a process, and to its group.
        assert stop.number == number
    assert signal.getsignal(number) == before


def test_another_thread_than_the_main_one_leaves_signals_alone():
    before, failures = signal.getsignal(signal.SIGTERM), []

    def listen():
        try:
            with Stop().listening():
                pass
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join(TIMEOUT)
    assert not failures
    assert signal.getsignal(signal.SIGTERM) == before


def test_it_ends_the_process_as_shells_say_it():
    with pytest.raises(SystemExit) as caught:
        raise Preempted(12, signal.SIGTERM)
    assert caught.value.code == 143
    assert "after step 12" in str(caught.value)


@pytest.mark.parametrize(
    ("wishes", "heard"),
    [
        ([(False, False)] * 3, (False, False)),
        ([(True, False)] + [(False, False)] * 4094, (True, False)),
        ([(True, False)] * 4095, (True, False)),
        ([(False, False), (False, True)], (False, True)),
        ([(True, True)] * 4095, (True, True)),
        ([(False, True)] * 4095, (False, True)),
    ],
    ids=str,
)
def test_every_process_hears_what_one_of_them_wishes(wishes, heard):
    total, one = np.float32(0), Wishes()
    for save, stop in wishes:
        one.tell(save, stop)
        total += one.share().numpy()
    one.hear(total)
    assert one.heard() == heard
    # Once only.
    assert one.heard() == (False, False)

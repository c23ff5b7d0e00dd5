"""Bytes of any length between processes, here threads that meet as processes do."""

import threading

import numpy as np
import pytest

from disttrain.checkpoints import exchange, packing
from disttrain.heartbeat import Nobody
from disttrain.replication import Topology
from tests._support.timeouts import TIMEOUT

pytestmark = pytest.mark.unit


class Meeting:
    """A process among several, for `all_gather` alone."""

    def __init__(self, processes):
        self.barrier, self.brought = threading.Barrier(processes), [None] * processes

    def process(self, number):
        """Stands for a `Replication`."""
        meeting = self

        class One:
            topology = Topology(len(meeting.brought), number)
            pulse = Nobody()
            is_chief = number == 0
            replicas = len(meeting.brought)

            def all_gather(self, array):
                meeting.brought[number] = np.array(array)
                meeting.barrier.wait(TIMEOUT)
                found = np.stack(meeting.brought)
                meeting.barrier.wait(TIMEOUT)
                return found

        return One()


def together(processes, function):
    """What `function(replication)` returns, or raises, in each process."""
    meeting, results = Meeting(processes), [None] * processes

    def call(number):
        try:
            results[number] = function(meeting.process(number))
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=call, args=(n,)) for n in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    return results


def test_bytes_of_different_lengths_arrive_as_they_were():
    sent = [b"", b"abc", bytes(range(256)) * 5 + b"x"]
    found = together(3, lambda one: exchange.gather(one, sent[one.topology.process]))
    assert found == [sent] * 3


def test_the_chief_s_bytes_alone_count():
    found = together(3, lambda one: exchange.from_chief(one, b"%d" % one.topology.process))
    assert found == [b"0"] * 3


def test_what_goes_wrong_on_the_chief_is_raised_everywhere():
    def fail():
        raise FileNotFoundError("no such directory")

    chief, *others = together(3, lambda one: exchange.told_by_chief(one, fail))
    assert isinstance(chief, FileNotFoundError)
    for other in others:
        assert isinstance(other, RuntimeError)
        assert str(other) == "the chief says: no such directory"


def test_the_chief_s_answer_is_everyone_s():
    asked = []

    def answer(one):
        return exchange.told_by_chief(one, lambda: asked.append(1) or {"step": 4, "none": None})

    assert together(3, answer) == [{"step": 4, "none": None}] * 3
    assert asked == [1]


ENTRIES = [
    {"key": "a", "path": "a", "role": "sum", "shape": [2], "dtype": "float32"},
    {"key": "b", "path": "b", "role": "common", "shape": [], "dtype": "int64"},
    {"key": "c", "path": "c", "role": "equal", "shape": [3], "dtype": "float32"},
    {"key": "d", "path": "d", "role": "common", "shape": [0], "dtype": "bool"},
    {"key": "e", "path": "e", "role": "common", "shape": [3], "dtype": "bfloat16"},
]


class Described:
    def describe(self):
        return ENTRIES


@pytest.mark.parametrize("after", [2, 3])
def test_what_replicas_have_for_themselves_goes_to_the_file_and_back(after):
    import tensorflow as tf

    def own(number):
        return {
            "a": np.float32([number, 0.5]),
            "b": np.asarray(2**40 + number),
            "d": np.zeros(0, bool),
            "e": np.asarray([number, 1, 2], tf.bfloat16.as_numpy_dtype),
        }

    gathered = together(
        2, lambda one: packing.gathered(one, Described(), [own(one.topology.process)])
    )
    for found in gathered:
        for number, one in enumerate(found):
            for key, array in own(number).items():
                assert one[key].dtype == array.dtype
                assert one[key].tobytes() == array.tobytes()
                assert one[key].shape == array.shape
    manifest = {"variables": ENTRIES, "replicas": 2}
    tensors = packing.named(gathered[0])
    assert tensors["replica/1/b"] == 2**40 + 1

    def receive(one):
        return packing.received(one, manifest, tensors if one.is_chief else None)

    for found in together(after, receive):
        assert len(found) == after
        np.testing.assert_array_equal(sum(one["a"] for one in found), [1, 1])
        assert found[0]["b"] == 2**40
        np.testing.assert_array_equal(found[0]["e"].astype(np.float32), [0, 1, 2])

"""Threads that take the place of processes, where all a test needs is `all_gather`."""

import concurrent.futures
import threading

import numpy as np

from disttrain.heartbeat import Nobody
from disttrain.replication import Topology
from tests._support.timeouts import TIMEOUT


class Process:
    """What the code under test takes for a `Replication`."""

    def __init__(self, rank, rows, barrier):
        self.topology = Topology(processes=len(rows), process=rank)
        self.is_chief = rank == 0
        self.pulse = Nobody()
        self._rows, self._barrier = rows, barrier

    def all_gather(self, array):
        self._rows[self.topology.process] = np.asarray(array)
        self._barrier.wait()
        gathered = np.stack(self._rows)
        self._barrier.wait()
        return gathered


def together(processes, function):
    """The results of `function(replication)` of so many processes at the same time."""
    rows, barrier = [None] * processes, threading.Barrier(processes, timeout=TIMEOUT)
    with concurrent.futures.ThreadPoolExecutor(processes) as threads:
        made = [Process(rank, rows, barrier) for rank in range(processes)]
        return list(threads.map(function, made))

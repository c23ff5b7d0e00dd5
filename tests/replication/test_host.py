"""Sums through the memory of a host, by real ranks of Horovod."""

import json
import sys

import numpy as np
import pytest

from tests.distributed import jobs
from tests.replication import host_program as program

pytestmark = pytest.mark.processes

pytest.importorskip("horovod")


def ranks(directory):
    """What two of three ranks have found, a list."""
    queue = jobs.Queue()
    try:
        command = [sys.executable, "-m", program.__name__, str(directory)]
        status, output = queue.add("horovod-3", command).result()
    finally:
        queue.close()
    lines = [line.partition("RESULT ")[2] for line in output.splitlines()]
    found = [json.loads(line) for line in lines if line]
    assert status == 0, output[-4000:]
    assert len(found) == 2, output[-4000:]
    return sorted(found, key=lambda one: one["rank"])


@pytest.mark.background_job.with_args(ranks)
class TestHost:
    @pytest.fixture
    def found(self, background_job):
        return background_job

    def test_sums_are_those_of_numpy_to_the_bit(self, found):
        for one in found:
            assert one["shares memory"]
            assert one["wrong"] == []
            assert one["wrong in a pair"] == []

    def test_each_turn_has_its_own_sum(self, found):
        for one in found:
            assert one["turns"] == [3 * turn + 3 for turn in range(program.TURNS)]

    def test_arrays_are_gathered_to_the_bit(self, found):
        for one in found:
            assert one["not gathered"] == []

    def test_sums_in_a_loop(self, found):
        for one in found:
            assert one["loop"] == [6 / 2 * (3 / 2) ** 4] * 3

    def test_all_ranks_sum_in_the_same_order(self, found):
        for one in found:
            assert one["order"] == [6 * i for i in range(program.SUMS)]

    def test_all_do_without_if_one_wants_it_so(self, found):
        for one in found:
            assert one["without one"] is False

    def test_ranks_that_do_not_sum_the_same_are_told(self, found):
        for rank, one in enumerate(found):
            sizes = [3, 4] if rank == 0 else [4, 3]
            assert (
                f"rank {rank} sums 'shapes.float32' ({sizes[0]} numbers), "
                f"while rank {1 - rank} sums 'shapes.float32' ({sizes[1]} numbers)"
            ) in one["other shapes"]
            assert one["afterwards"] == one["other shapes"]

    def test_a_late_rank_is_waited_for_and_named(self, found):
        for one in found:
            np.testing.assert_array_equal(one["late"], [3, 3])
        told = found[0]["told"]
        assert "disttrain: rank 0 waits for rank 2 to sum 'late.float32' (2 numbers)," in told

    def test_a_rank_that_becomes_another_program_is_not_waited_for(self, found):
        for one in found:
            # The other program ends after this has been said.
            assert "Horovod has lost rank 2 of the 3 that sum together" in one["gone"]

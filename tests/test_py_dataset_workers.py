"""A `PyDataset` is read by processes where it asks for them."""

import os

import keras
import numpy as np
import pytest

from disttrain.data import make_feed
from disttrain.replication import Topology


class Numbers(keras.utils.PyDataset):
    """Batches with their number and the process that has made them."""

    def __len__(self):
        return 5

    def __getitem__(self, number):
        if number == 4:
            raise LookupError("no such file")
        return np.asarray([[number, os.getpid()]])


@pytest.mark.processes
def test_processes_read_batches_in_order_and_their_errors_arrive():
    feed = make_feed(Numbers(workers=2, use_multiprocessing=True), Topology())
    iterator = iter(feed.dataset(0))
    rows = [next(iterator)[0][0].numpy() for _ in range(4)]
    assert [int(number) for number, _ in rows] == [0, 1, 2, 3]
    assert os.getpid() not in {int(process) for _, process in rows}
    with pytest.raises(Exception, match="no such file"):
        next(iterator)

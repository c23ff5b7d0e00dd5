"""Processes that are about to train different variables say so."""

import keras
import numpy as np
import pytest

from disttrain import agreement
from disttrain.replication import Topology
from tests._support.threaded_processes import together

pytestmark = pytest.mark.unit


def variables(*described):
    return [
        keras.Variable(np.zeros(shape, dtype), name=name, dtype=dtype)
        for name, shape, dtype in described
    ]


KERNEL, BIAS = ("kernel", (3, 2), "float32"), ("bias", (2,), "float32")


def check(*processes):
    """What each process gets: `None`, or the text of the error."""

    def run(replication):
        own = variables(*processes[replication.topology.process])
        try:
            return agreement.check_variables(replication, own, "the model")
        except RuntimeError as error:
            return str(error)

    return together(len(processes), run)


def test_equal_variables_pass():
    assert check([KERNEL, BIAS], [KERNEL, BIAS], [KERNEL, BIAS]) == [None] * 3


def test_alone_nothing_is_asked():
    class Alone:
        topology = Topology()

    assert agreement.check_variables(Alone(), variables(KERNEL), "the model") is None


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (
            [BIAS, KERNEL],
            "number 1 is bias float32[2] on rank 2 and kernel float32[3, 2] on rank 0",
        ),
        ([KERNEL, ("bias", (3,), "float32")], "number 2 is bias float32[3] on rank 2 and bias"),
        ([KERNEL, ("bias", (2,), "float16")], "number 2 is bias float16[2] on rank 2 and bias"),
        ([KERNEL], "rank 2 has 1 and rank 0 has 2"),
        ([KERNEL, BIAS, BIAS], "rank 2 has 3 and rank 0 has 2"),
    ],
    ids=["order", "shape", "dtype", "fewer", "more"],
)
def test_the_rank_that_differs_and_the_first_difference_are_named(other, text):
    told = check([KERNEL, BIAS], [KERNEL, BIAS], other)
    assert told[0] == told[1] == told[2]
    assert f"the processes have different variables of the model: {text}" in told[0]
    assert "rank 1" not in told[0]


@pytest.mark.parametrize(
    ("batches", "text"),
    [
        ((11, 11, 5), "5 on rank 2 and 11 on rank 0"),
        ((11, None, 11), "unknown on rank 1 and 11 on rank 0"),
        ((3, 3, 3), None),
        ((None, None, None), None),
    ],
)
def test_different_numbers_of_batches_are_told(batches, text):
    def run(replication):
        try:
            return agreement.check_batches(replication, batches[replication.topology.process])
        except RuntimeError as error:
            return str(error)

    for told in together(3, run):
        assert told is None if text is None else f"numbers of batches: {text}; give" in told


def test_numbers_that_keras_gives_to_layers_may_differ():
    class Layer:
        def __init__(self, path):
            self.path, self.dtype, self.shape = path, "float32", (2,)

    assert agreement.describe(Layer("dense_12/kernel")) == agreement.describe(Layer("dense/kernel"))
    slots = [Layer(f"adam/sequential{n}_dense{n}_kernel_momentum") for n in ("", "_1")]
    assert agreement.describe(slots[0]) == agreement.describe(slots[1])
    assert agreement.describe(Layer("block_1/kernel_a")) != agreement.describe(Layer("b/kernel_a"))

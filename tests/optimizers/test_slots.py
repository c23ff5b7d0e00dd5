"""Slots are found for every optimizer that Keras ships, by the names that Keras gives them."""

import keras
import numpy as np
import pytest

from disttrain.optimizers.slots import find_slots

pytestmark = pytest.mark.unit

NAMES = {
    "SGD": ["momentum"],
    "Adam": ["momentum", "velocity"],
    "AdamW": ["momentum", "velocity"],
    "Adamax": ["momentum", "norm"],
    "Nadam": ["momentum", "velocity"],
    "RMSprop": ["velocity"],
    "Adagrad": ["accumulator"],
    "Adadelta": ["accumulated_grad", "accumulated_delta_var"],
    "Ftrl": ["accumulator", "linear"],
    "Lion": ["momentum"],
    "Lamb": ["momentum", "velocity"],
    "Adafactor": ["r", "c", "velocity"],
}


def variables():
    return [
        keras.Variable(np.ones((3, 2), np.float32), name="kernel"),
        keras.Variable(np.ones(2, np.float32), name="bias"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_each_optimizers_slots_are_named_as_in_keras(name):
    options = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(keras.optimizers, name)(**options)
    own = variables()
    optimizer.build(own)
    kernel, bias = find_slots(optimizer, own)
    assert set(NAMES[name]) <= set(kernel), sorted(kernel)
    for slots, variable in ((kernel, own[0]), (bias, own[1])):
        for slot in slots.values():
            assert slot is not variable
            assert any(slot is known for known in optimizer.variables)


def test_an_amsgrad_keeps_its_third_slot():
    optimizer = keras.optimizers.Adam(amsgrad=True)
    own = variables()
    optimizer.build(own)
    assert "velocity_hat" in find_slots(optimizer, own)[0]


def test_the_moving_average_of_the_weights_is_a_slot():
    optimizer = keras.optimizers.SGD(use_ema=True)
    own = variables()
    optimizer.build(own)
    assert list(find_slots(optimizer, own)[1]) == ["average"]


def test_plain_descent_has_none():
    optimizer = keras.optimizers.SGD()
    own = variables()
    optimizer.build(own)
    assert find_slots(optimizer, own) == [{}, {}]


def test_slots_follow_their_variables_and_not_the_order_of_the_question():
    optimizer = keras.optimizers.SGD(momentum=0.9)
    own = variables()
    optimizer.build(own)
    bias, kernel = find_slots(optimizer, own[::-1])
    assert (bias["momentum"].shape, kernel["momentum"].shape) == ((2,), (3, 2))

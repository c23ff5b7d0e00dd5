"""What `local_variables` means, and that an entry that means nothing is refused."""

import keras
import numpy as np
import pytest

import disttrain

pytestmark = pytest.mark.unit


def built(entries):
    layer = keras.layers.Dense(2, name="head")
    layer.build((None, 3))
    other = keras.Variable(np.zeros(3), name="other")
    optimizer = disttrain.DistributedOptimizer(
        keras.optimizers.Adam(), local_variables=entries(layer, other)
    )
    optimizer.build([*layer.trainable_variables, other])
    return optimizer, [*layer.trainable_variables, other]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (lambda layer, other: [layer], [True, True, False]),
        (lambda layer, other: layer, [True, True, False]),
        (lambda layer, other: [layer.bias], [False, True, False]),
        (lambda layer, other: [other.value], [False, False, True]),
        (lambda layer, other: "head/*", [True, True, False]),
        (lambda layer, other: ["*kernel", other], [True, False, True]),
        (lambda layer, other: (), [False, False, False]),
    ],
)
def test_variables_layers_and_patterns_name_variables(entries, expected):
    optimizer, variables = built(entries)
    assert [optimizer.is_local(variable) for variable in variables] == expected


@pytest.mark.parametrize("entry", ["*/adapter/*", keras.layers.Dense(1)], ids=["pattern", "layer"])
def test_an_entry_that_means_no_variable_is_refused(entry):
    with pytest.raises(
        ValueError, match=r"none of the trainable variables: head/kernel, head/bias"
    ):
        built(lambda layer, other: [layer, entry])


def test_something_else_is_refused():
    with pytest.raises(TypeError, match="not 7"):
        built(lambda layer, other: [7])


def test_neither_local_variables_nor_their_slots_are_broadcast():
    optimizer, variables = built(lambda layer, other: [layer])
    sent = optimizer.to_broadcast([*variables, *optimizer.variables])
    names = [variable.path.split("/")[-1] for variable in sent]
    assert names == [
        "other",
        "skipped_in_a_row",
        "iteration",
        "learning_rate",
        "other_momentum",
        "other_velocity",
    ]


def test_the_configuration_names_a_layer_by_a_pattern():
    optimizer, variables = built(lambda layer, other: [layer, other])
    again = disttrain.DistributedOptimizer.from_config(optimizer.get_config())
    again.build(variables)
    assert [again.is_local(variable) for variable in variables] == [True, True, True]

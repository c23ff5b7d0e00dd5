"""Losses, targets, weights and metrics in every structure that `compile` and `fit` take."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.losses import Losses, Rows
from disttrain.output_structure import OutputStructure
from tests._support.covering import representatives
from tests._support.tiny_models import assert_same_numbers, assert_same_weights, sgd

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 4)).astype(np.float32)
#: The names are not in the order of the alphabet, in which Keras flattens a dictionary.
BETA, ALPHA = (RNG.normal(size=(10, size)).astype(np.float32) for size in (2, 3))
WEIGHTS = RNG.uniform(0.2, 3, 10).astype(np.float32)
DICTIONARY = {"beta": BETA, "alpha": ALPHA}


def two_heads(structure):
    def build():
        x = keras.Input((4,))
        beta = keras.layers.Dense(2, name="beta")(x)
        alpha = keras.layers.Dense(3, name="alpha")(x)
        return keras.Model(x, structure(beta, alpha))

    return build


as_list = two_heads(lambda beta, alpha: [beta, alpha])
as_dict = two_heads(lambda beta, alpha: {"beta": beta, "alpha": alpha})


def one_head():
    x = keras.Input((4,))
    return keras.Model(x, keras.layers.Dense(3, name="alpha")(x))


BY_NAME = {"beta": "mse", "alpha": "mae"}

#: Name to a model, its targets, sample weights, and arguments of `compile`.
CASES = {
    "dictionaries_for_a_list": (as_list, DICTIONARY, None, {"loss": BY_NAME}),
    "one_loss_and_a_dictionary_for_a_list": (as_list, DICTIONARY, None, {"loss": "mse"}),
    "losses_in_a_list_and_targets_in_a_dictionary": (
        as_list,
        DICTIONARY,
        None,
        {"loss": ["mse", "mae"]},
    ),
    "losses_in_a_dictionary_and_targets_in_a_list": (
        as_list,
        [BETA, ALPHA],
        None,
        {"loss": BY_NAME},
    ),
    "lists_for_a_dictionary": (as_dict, [ALPHA, BETA], None, {"loss": ["mse", "mae"]}),
    "targets_of_one_loss": (as_dict, {"beta": BETA}, None, {"loss": {"beta": "mse"}}),
    "list_of_targets_of_one_loss": (as_list, [BETA], None, {"loss": ["mse", None]}),
    "weights_for_all_outputs": (as_dict, DICTIONARY, WEIGHTS, {"loss": BY_NAME}),
    "weights_in_the_structure": (
        as_dict,
        DICTIONARY,
        {"beta": WEIGHTS, "alpha": WEIGHTS[::-1].copy()},
        {"loss": BY_NAME},
    ),
    "loss_weights_by_name": (
        as_list,
        DICTIONARY,
        None,
        {"loss": BY_NAME, "loss_weights": {"beta": 2.0, "alpha": 0.0}},
    ),
    "loss_weights_in_a_list_for_a_dictionary": (
        as_dict,
        DICTIONARY,
        None,
        {"loss": BY_NAME, "loss_weights": [2.0, 0.5]},
    ),
    "loss_weight_of_one_output": (one_head, ALPHA, None, {"loss": "mse", "loss_weights": 0.5}),
    "list_of_one": (one_head, [ALPHA], None, {"loss": ["mse"], "loss_weights": [0.5]}),
    "dictionary_of_one_loss": (one_head, ALPHA, None, {"loss": {"alpha": "mse"}}),
    "metrics_by_name": (
        as_list,
        [BETA, ALPHA],
        WEIGHTS,
        {"loss": BY_NAME, "metrics": {"alpha": ["mae"]}, "weighted_metrics": {"beta": "mse"}},
    ),
    "metrics_in_a_list": (
        as_list,
        [BETA, ALPHA],
        WEIGHTS,
        {
            "loss": ["mse", "mae"],
            "metrics": [["mae"], ["mse"]],
            "weighted_metrics": [None, ["mae"]],
        },
    ),
    "weighted_metrics_of_one_output": (
        one_head,
        ALPHA,
        WEIGHTS,
        {"loss": "mse", "metrics": ["mae"], "weighted_metrics": ["mae"]},
    ),
}


def losses_of(build, options):
    model = build()
    names, weights = model.output_names, options.get("loss_weights")
    return model, Losses(options["loss"], model.output, names, weights)


def loss_of(case):
    """The loss of a case by `Losses`."""
    build, y, weights, options = case
    keras.utils.set_random_seed(0)
    model, losses = losses_of(build, options)
    rows = Rows(tf.constant(10.0), tf.constant(10.0))
    single = disttrain.replication.resolve("single")
    return losses(y, model(X), weights, rows, single)[0]


@pytest.mark.graph
@pytest.mark.parametrize("case", CASES)
def test_structures_count_as_in_compute_loss(case):
    build, y, weights, options = CASES[case]
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(sgd(), **options)
    expected = model.compute_loss(None, y, model(X), weights)
    np.testing.assert_allclose(loss_of(CASES[case]), expected, rtol=1e-6)


@pytest.mark.graph
@pytest.mark.filterwarnings("ignore:.*have no gradient", "ignore:Gradients do not exist")
@pytest.mark.parametrize(
    "case",
    representatives(CASES, "metrics_by_name", "metrics_in_a_list", "list_of_targets_of_one_loss"),
)
def test_structures_count_as_in_model_fit(case):
    build, y, weights, options = CASES[case]
    data = {"y": y, "sample_weight": weights, "batch_size": 10}
    made = disttrain.Trainer(build, optimizer=sgd(), replication="single", **options)
    found = made.fit(X, epochs=2, shuffle=False, verbose=0, **data).history
    keras.utils.set_random_seed(0)
    expected = build()
    expected.compile(sgd(), jit_compile=False, **options)
    history = expected.fit(X, epochs=2, shuffle=False, verbose=0, **data).history
    assert_same_weights(made.model, expected)
    assert_same_numbers(found, history)
    theirs = expected.evaluate(X, verbose=0, return_dict=True, **data)
    assert_same_numbers(made.evaluate(X, **data), theirs)


#: What Keras does not take, to what says the same.
MORE = {
    "loss_of_one_output_of_a_list": (
        (as_list, {"beta": BETA}, None, {"loss": {"beta": "mse"}}),
        (as_dict, {"beta": BETA}, None, {"loss": {"beta": "mse"}}),
    ),
    "weights_by_name_for_a_list": (
        (
            as_list,
            [BETA, ALPHA],
            {"alpha": WEIGHTS[::-1].copy(), "beta": WEIGHTS},
            {"loss": BY_NAME},
        ),
        CASES["weights_in_the_structure"],
    ),
    "weights_in_a_list_for_a_dictionary": (
        (as_dict, DICTIONARY, [WEIGHTS[::-1].copy(), WEIGHTS], {"loss": BY_NAME}),
        CASES["weights_in_the_structure"],
    ),
    "targets_and_weights_by_name_of_one_output": (
        (one_head, {"alpha": ALPHA}, {"alpha": WEIGHTS}, {"loss": "mse"}),
        (one_head, ALPHA, WEIGHTS, {"loss": "mse"}),
    ),
}


@pytest.mark.graph
@pytest.mark.parametrize("case", MORE)
def test_more_structures_than_keras_takes(case):
    ours, theirs = (loss_of(one) for one in MORE[case])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def symbolic(*names):
    return [keras.KerasTensor((None, 3), name=name) for name in names]


@pytest.mark.unit
def test_entries_of_deeper_structures_follow_the_paths():
    a, b, c = symbolic("a", "b", "c")
    structure = OutputStructure({"x": [a, b], "y": c}, ["a", "b", "c"])
    assert structure.entries({"y": 3, "x": (1, 2)}, "loss") == [1, 2, 3]
    assert structure.entries([1, 2, 3], "loss") == [1, 2, 3]
    assert structure.pack([1, 2, 3]) == {"x": [1, 2], "y": 3}
    assert structure.names == ["x/0", "x/1", "y"]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"beat": 1, "alpha": 2}, r"the targets y names outputs.*beat.*beta.*alpha"),
        ([1, 2, 3], r"the targets y has 3 entries for the 2 outputs"),
        ([[1, 2], [3]], r"the targets y has 2 entries"),
        (1, r"the targets y must have an entry for each of the outputs.*beta.*alpha"),
    ],
)
def test_a_structure_that_does_not_fit_is_refused(value, message):
    structure = OutputStructure(symbolic("beta", "alpha"), ["beta", "alpha"])
    with pytest.raises(ValueError, match=message):
        structure.entries(value, "the targets y")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("2", TypeError, r"the loss weight of the output 'beta' must be a number, not '2'"),
        ({"gamma": 1.0}, ValueError, r"loss_weights names outputs.*gamma"),
        ([1.0, 2.0, 3.0], ValueError, r"loss_weights has 3 entries"),
    ],
)
def test_wrong_loss_weights_are_named(weights, error, message):
    with pytest.raises(error, match=message):
        Losses("mse", symbolic("beta", "alpha"), ["beta", "alpha"], weights)

"""The loss of a global batch over uneven replicas equals Keras's on one device with all of it."""

import contextlib
import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.losses import Losses

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 4)).astype(np.float32)
TARGETS = RNG.normal(size=(10, 3)).astype(np.float32)
LABELS = RNG.integers(0, 3, 10)
WEIGHTS = np.asarray([1, 3, 0.5, 2, 0, 1, 4, 0.25, 1, 2], np.float32)
WORDS = np.asarray(
    [[1, 0, 0], [1, 2, 3], [2, 1, 0], [3, 0, 0], [0, 0, 0], [1, 1, 1]] + [[2, 3, 0], [1, 0, 0]] * 2
)
WORD_LABELS = RNG.integers(0, 3, (10, 3))
WORD_WEIGHTS = RNG.uniform(0.2, 3, (10, 3)).astype(np.float32)
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy
SQUARES = keras.losses.MeanSquaredError


def dense(units=3, **options):
    def build():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, **options)])

    return build


def tagger():
    return keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(4, 3, mask_zero=True),
            keras.layers.Dense(3),
        ]
    )


def grid():
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(6), keras.layers.Reshape((3, 2))]
    )


def two_heads(structure):
    def build():
        x = keras.Input((4,), name="x")
        first = keras.layers.Dense(3, name="first")(x)
        second = keras.layers.Dense(3, name="second")(x)
        return keras.Model(x, structure(first, second))

    return build


as_dict = two_heads(lambda first, second: {"first": first, "second": second})
as_list = two_heads(lambda first, second: [first, second])
as_tuple = two_heads(lambda first, second: (first, second))


class Adds(keras.layers.Layer):
    """Adds the mean of the squares of its input to the loss."""

    def call(self, x):
        self.add_loss(keras.ops.mean(keras.ops.square(x)))
        return x


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(5, activation="tanh")
        self.out = keras.layers.Dense(3)

    def call(self, x):
        return self.out(self.hidden(x))


class Pinball(keras.losses.Loss):
    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return keras.ops.mean(keras.ops.maximum(0.8 * error, -0.2 * error), axis=-1)


def absolute(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


def one_number(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred))


#: Name to a model, the data, and the loss.
CASES = {
    "mean": (dense(), (X, LABELS), CROSSENTROPY(from_logits=True)),
    "sum": (dense(), (X, LABELS), CROSSENTROPY(from_logits=True, reduction="sum")),
    "sample_weight": (dense(), (X, LABELS, WEIGHTS), CROSSENTROPY(from_logits=True)),
    "sum_with_sample_weight": (dense(), (X, TARGETS, WEIGHTS), SQUARES(reduction="sum")),
    "mean_with_sample_weight": (
        dense(),
        (X, TARGETS, WEIGHTS),
        SQUARES(reduction="mean_with_sample_weight"),
    ),
    "mean_with_sample_weight_without_weights": (
        dense(),
        (X, TARGETS),
        SQUARES(reduction="mean_with_sample_weight"),
    ),
    "weights_of_elements": (grid, (X, RNG.normal(size=(10, 3, 2)), WORD_WEIGHTS), SQUARES()),
    "weights_of_examples_with_elements": (
        grid,
        (X, RNG.normal(size=(10, 3, 2)), WEIGHTS),
        SQUARES(),
    ),
    "column_of_targets_and_weights": (dense(1), (X, TARGETS[:, 0], WEIGHTS[:, None]), SQUARES()),
    "mask": (tagger, (WORDS, WORD_LABELS), CROSSENTROPY(from_logits=True)),
    "mask_and_sample_weight": (
        tagger,
        (WORDS, WORD_LABELS, WEIGHTS),
        CROSSENTROPY(from_logits=True),
    ),
    "mask_and_weights_of_elements": (
        tagger,
        (WORDS, WORD_LABELS, WORD_WEIGHTS),
        CROSSENTROPY(from_logits=True),
    ),
    "mask_and_mean_with_sample_weight": (
        tagger,
        (WORDS, WORD_LABELS, WORD_WEIGHTS),
        CROSSENTROPY(from_logits=True, reduction="mean_with_sample_weight"),
    ),
    "mask_and_sum": (
        tagger,
        (WORDS, WORD_LABELS),
        CROSSENTROPY(from_logits=True, reduction="sum"),
    ),
    "dictionary": (
        as_dict,
        (X, {"first": TARGETS, "second": LABELS}),
        {"first": "mse", "second": CROSSENTROPY(from_logits=True)},
    ),
    "dictionary_with_none": (
        as_dict,
        (X, {"first": TARGETS, "second": LABELS}),
        {"first": "mse", "second": None},
    ),
    "dictionary_with_weights_of_outputs": (
        as_dict,
        (
            X,
            {"first": TARGETS, "second": LABELS},
            {"first": WEIGHTS, "second": WEIGHTS[::-1].copy()},
        ),
        {"first": "mse", "second": CROSSENTROPY(from_logits=True)},
    ),
    "list": (as_list, (X, (TARGETS, LABELS)), ["mae", CROSSENTROPY(from_logits=True)]),
    "list_with_none": (as_list, (X, (TARGETS, LABELS)), [None, CROSSENTROPY(from_logits=True)]),
    "tuple_with_one_loss": (as_tuple, (X, (TARGETS, TARGETS[::-1].copy())), "mse"),
    "regularisation": (
        dense(kernel_regularizer=keras.regularizers.L2(0.3)),
        (X, LABELS),
        CROSSENTROPY(from_logits=True),
    ),
    "loss_of_a_layer": (
        lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Adds()]),
        (X, TARGETS),
        SQUARES(),
    ),
    "function": (dense(), (X, TARGETS, WEIGHTS), absolute),
    "function_of_one_number": (dense(), (X, TARGETS), one_number),
    "own_class": (dense(), (X, TARGETS, WEIGHTS), Pinball()),
    "name": (dense(), (X, TARGETS), "mse"),
    "name_of_a_crossentropy": (
        dense(activation="softmax"),
        (X, LABELS),
        "sparse_categorical_crossentropy",
    ),
    "subclassed_model": (Subclassed, (X, TARGETS, WEIGHTS), SQUARES()),
}

#: Case, replicas and global batch: parts of 4, 4, 2 on one replica; of 1 + 1 + 2 twice and then
#: 0 + 1 + 1 on three; of 1 + 2 thrice and then 0 + 1 on two.
#: `test_loss_reduction` and `test_output_structure` test the like of these faster.
TESTED_ELSEWHERE = (
    "sum",
    "sum_with_sample_weight",
    "mean_with_sample_weight_without_weights",
    "column_of_targets_and_weights",
    "mask_and_weights_of_elements",
    "mask_and_mean_with_sample_weight",
    "mask_and_sum",
    "dictionary_with_none",
    "list",
    "tuple_with_one_loss",
    "own_class",
    "name",
    "name_of_a_crossentropy",
)
RUNS = [(case, 3, 4) for case in CASES if case not in TESTED_ELSEWHERE]
RUNS += [(case, 1, 4) for case in ("mean", "sample_weight", "mask_and_sample_weight", "dictionary")]
RUNS += [("mean_with_sample_weight", 2, 3)]
RUNS += [
    pytest.param(*run, marks=pytest.mark.exhaustive)
    for run in (
        *((case, 3, 4) for case in TESTED_ELSEWHERE),
        *((case, 1, 4) for case in CASES),
        *((case, 2, 3) for case in ("sample_weight", "mask", "dictionary")),
    )
    if run not in RUNS
]

#: Where a weight belongs to an example, and an example has elements.
WEIGHTS_OF_EXAMPLES = ("weights_of_examples_with_elements", "mask_and_sample_weight")


def sgd():
    return keras.optimizers.SGD(0.1)


def batches(data, size):
    return tf.data.Dataset.from_tensor_slices(data).batch(size)


@functools.cache
def by_keras(case, size):
    """`(weights, history, evaluation)` after two epochs of `Model.fit` on one device."""
    build, data, loss = CASES[case]
    if case in WEIGHTS_OF_EXAMPLES:
        # Keras would line the weights of examples up with the elements of an example.
        data = (*data[:2], data[2][:, None])
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(optimizer=sgd(), loss=loss, jit_compile=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gradients do not exist", UserWarning)
        history = model.fit(batches(data, size), epochs=2, verbose=0).history
    evaluation = model.evaluate(batches(data, size), verbose=0, return_dict=True)
    # Keras takes each output's loss as a mean over batches, not over examples; one batch agrees.
    whole = model.evaluate(batches(data, 10), verbose=0, return_dict=True)
    evaluation.update({name: value for name, value in whole.items() if name != "loss"})
    return model.get_weights(), history, evaluation


def fit_twice(case, size, replication):
    """A trainer after two epochs, and its history."""
    build, data, loss = CASES[case]
    trainer = disttrain.Trainer(build, optimizer=sgd(), loss=loss, replication=replication)
    untrained = pytest.warns(UserWarning, match="2 of 4 trainable variables have no gradient")
    with untrained if "none" in case else contextlib.nullcontext():
        history = trainer.fit(batches(data, size), epochs=2, verbose=0).history
    return trainer, history


@pytest.mark.graph
@pytest.mark.parametrize(("case", "replicas", "size"), RUNS)
def test_weights_and_losses_equal_those_of_one_device(case, replicas, size, mirrored):
    replication = "single" if replicas == 1 else mirrored(replicas)
    trainer, history = fit_twice(case, size, replication)
    weights, expected, evaluation = by_keras(case, size)

    for ours, theirs in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE)
    assert set(history) == set(expected)
    np.testing.assert_allclose(history["loss"], expected["loss"], **CLOSE)
    terms = [values for name, values in history.items() if name != "loss"]
    if terms:
        np.testing.assert_allclose(np.sum(terms, axis=0), history["loss"], **CLOSE)
    ours = trainer.evaluate(batches(CASES[case][1], size))
    assert set(ours) == set(evaluation)
    for name in evaluation:
        np.testing.assert_allclose(ours[name], evaluation[name], err_msg=name, **CLOSE)


@pytest.mark.graph
def test_a_replica_that_gets_nothing_of_the_last_batch_takes_part_with_zeros(mirrored):
    trainer, _ = fit_twice("sample_weight", 3, mirrored(3))
    weights, _, _ = by_keras("sample_weight", 3)
    for ours, theirs in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE)


@pytest.mark.graph
def test_a_replica_whose_tokens_are_all_masked_weighs_nothing(mirrored):
    words = np.asarray([[1, 2, 3], [3, 2, 0], [0, 0, 0], [0, 0, 0]])
    data = (words, WORD_LABELS[:4])
    loss = CROSSENTROPY(from_logits=True)
    keras.utils.set_random_seed(0)
    expected = tagger()
    expected.compile(optimizer=sgd(), loss=loss, jit_compile=False)
    expected.fit(batches(data, 4), epochs=2, verbose=0)
    trainer = disttrain.Trainer(tagger, optimizer=sgd(), loss=loss, replication=mirrored(2))
    trainer.fit(batches(data, 4), epochs=2, verbose=0)
    for ours, theirs in zip(trainer.model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE)


@pytest.fixture
def double_precision():
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.mark.graph
@pytest.mark.parametrize("replicas", [1, 3])
def test_a_float64_model_keeps_its_digits(replicas, double_precision, mirrored):
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(10, 5)), rng.normal(size=(10, 3)), rng.uniform(size=10)

    def build():
        layer = keras.layers.Dense(3, kernel_initializer=keras.initializers.Constant(0.1))
        return keras.Sequential([keras.Input((5,)), layer])

    plain = build()
    plain.compile(keras.optimizers.SGD(0.1), "mse")
    plain.fit(x, y, sample_weight=weight, batch_size=4, epochs=2, shuffle=False, verbose=0)
    trainer = disttrain.Trainer(
        build,
        optimizer=keras.optimizers.SGD(0.1),
        loss="mse",
        replication="single" if replicas == 1 else mirrored(replicas),
    )
    trainer.fit(x, y, sample_weight=weight, batch_size=4, epochs=2, shuffle=False, verbose=0)
    for ours, keras_s in zip(trainer.model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, keras_s, rtol=1e-13, atol=1e-15)


def outputs(*names):
    shapes = {name: keras.KerasTensor((None, 3), name=name) for name in names}
    return shapes if len(names) > 1 else shapes[names[0]]


@pytest.mark.graph
def test_loss_weights_multiply_the_terms_but_not_what_is_reported():
    two = outputs("first", "second")
    losses = Losses("mse", two, ["first", "second"], {"first": 2.0, "second": 0.5})
    rows = disttrain.losses.Rows(tf.constant(2.0), tf.constant(2.0))
    y = {"first": tf.zeros([2, 3]), "second": tf.zeros([2, 3])}
    y_pred = {"first": tf.ones([2, 3]), "second": tf.fill([2, 3], 2.0)}
    total, shares = losses(y, y_pred, None, rows)
    assert losses.names == ["first_loss", "second_loss"]
    assert [float(share) for share in shares] == [1.0, 4.0]
    assert float(total) == 2.0 * 1.0 + 0.5 * 4.0


@pytest.mark.graph
def test_shares_of_replicas_add_up_to_the_mean_over_the_global_batch():
    losses = Losses("mse", outputs("only"), ["only"])
    values = tf.constant([[1.0] * 3, [2.0] * 3, [6.0] * 3])
    total = tf.constant(3.0)
    shares = [
        losses(
            tf.zeros_like(part),
            part,
            None,
            disttrain.losses.Rows(tf.constant(len(part) * 1.0), total),
        )[0]
        for part in (values[:2], values[2:])
    ]
    assert float(sum(shares)) == pytest.approx((1 + 4 + 36) / 3)


class Refusing:
    """Other replicas to whom nothing is to be said."""

    replicas = 2

    def reduce_sum(self, tensors, name):
        raise AssertionError(name)

    gather = reduce_sum


@pytest.mark.graph
def test_a_loss_with_a_value_for_each_example_needs_no_other_replica():
    rows = disttrain.losses.Rows(tf.constant(2.0), tf.constant(4.0))
    y = tf.zeros([2, 3])
    weighted = SQUARES(reduction="mean_with_sample_weight")
    for loss, weight in (("mse", None), ("mse", tf.ones([2])), (weighted, None)):
        losses = Losses(loss, outputs("only"), ["only"])
        assert float(losses(y, tf.ones([2, 3]), weight, rows, Refusing())[0]) == 0.5
    for loss, weight in ((weighted, tf.ones([2])), (one_number, None)):
        with pytest.raises(AssertionError):
            Losses(loss, outputs("only"), ["only"])(y, y, weight, rows, Refusing())


class Calls(keras.losses.Loss):
    """Replaces the whole of a loss, its reduction too."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        return keras.ops.mean(y_pred)

    def call(self, y_true, y_pred):
        return y_pred


TWO, ONE = ("first", "second"), ("only",)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("loss", "names", "error", "message"),
    [
        ({"frist": "mse", "second": "mse"}, TWO, ValueError, r"frist.*first.*second"),
        (["mse", "mse", "mse"], TWO, ValueError, r"3 entries.*2 outputs"),
        ({"first": None, "second": None}, TWO, ValueError, r"no output has a loss"),
        (["mse", "mse"], ONE, ValueError, r"one output.*2 entries"),
        (SQUARES(reduction=None), ONE, ValueError, r"reduction=None.*sum_over_batch_size"),
        ("crossentropy", ONE, ValueError, r"ambiguous.*sparse_categorical_crossentropy"),
        (7, ONE, TypeError, r"keras\.losses\.Loss.*7"),
        (Calls(), ONE, TypeError, r"Calls replaces __call__.*call\(y_true, y_pred\)"),
        ("mean_of_everything", ONE, ValueError, r"mean_of_everything"),
    ],
)
def test_a_wrong_loss_is_named(loss, names, error, message):
    with pytest.raises(error, match=message):
        Losses(loss, outputs(*names), list(names))

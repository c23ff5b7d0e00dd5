"""Targets, outputs, weights and masks of any rank count as on one device by Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.losses import Losses, Rows
from tests._support.covering import all_pairs

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
RNG = np.random.default_rng(0)
#: Examples, elements of an example, classes.
N, T, C = 5, 3, 4
SHAPES = {"n": (N,), "n1": (N, 1), "nt": (N, T), "nt1": (N, T, 1), "ntc": (N, T, C)}
#: Where the parts of three replicas begin and end; the second one has no example.
PARTS = ((0, 2), (2, 2), (2, 5))


def absolute(y_true, y_pred):
    """As users write it: it relies on equal ranks."""
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


class Absolute(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return absolute(y_true, y_pred)


class Elements(keras.losses.Loss):
    """A value for each element."""

    def call(self, y_true, y_pred):
        return keras.ops.square(y_true - y_pred)


def ignoring(y_true, y_pred):
    """Leaves examples out, so that fewer values come back."""
    keep = tf.reshape(y_true, [-1]) > 0
    return tf.square(tf.boolean_mask(y_true, keep) - tf.boolean_mask(y_pred, keep))


def one_number(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred))


def sum_by_the_batch(y_true, y_pred):
    return tf.nn.compute_average_loss(tf.square(y_true - y_pred)[:, 0])


def another_loss(y_true, y_pred):
    """Keras divides what this returns by the replicas that it sees."""
    return keras.losses.MeanSquaredError()(y_true, y_pred) + keras.losses.Dice()(y_true, y_pred)


def of_each_column(y_true, y_pred):
    """A vector that has nothing to do with the examples."""
    return keras.ops.max(keras.ops.abs(y_true - y_pred), axis=0)


def contrast(y_true, y_pred):
    """A value for each example, which all others have a part in."""
    similar = keras.ops.matmul(y_pred, keras.ops.transpose(y_pred))
    return keras.ops.logsumexp(similar, axis=-1) - keras.ops.diagonal(similar)


MEANS = ("sum_over_batch_size", "sum", "mean_with_sample_weight")
SQUARES = keras.losses.MeanSquaredError
LABELS = keras.losses.SparseCategoricalCrossentropy


def cases():
    """Name to shapes of targets, output, weights and mask, and the loss."""
    found = {}

    def add(name, y, p, w, mask, loss):
        found[f"{name}, y {y}, output {p}, weights {w}, mask {mask}"] = (y, p, w, mask, loss)

    flat = {"'mse'": "mse", "function": absolute, "Loss": SQUARES()}
    for name, (y, p), w in all_pairs(
        loss=flat, shapes=[("n", "n1"), ("n1", "n"), ("n1", "n1")], weights=[None, "n", "n1"]
    ):
        add(name, y, p, w, None, flat[name])
    for reduction, (y, p), w, mask in all_pairs(
        reduction=MEANS,
        shapes=[("nt1", "nt1"), ("ntc", "ntc")],
        weights=[None, "n1", "nt", "nt1"],
        mask=[None, "nt"],
    ):
        add(reduction, y, p, w, mask, SQUARES(reduction=reduction))
    add("axis of size 1", "nt", "nt1", "n1", None, SQUARES())
    for reduction, w, mask in all_pairs(
        reduction=MEANS, weights=[None, "n1", "nt"], mask=[None, "nt"]
    ):
        loss = LABELS(from_logits=True, reduction=reduction, ignore_class=1)
        add(f"ignore_class {reduction}", "nt", "ntc", w, mask, loss)
    add("equal ranks, Loss.call", "n1", "n1", "n", None, Absolute())
    add("elements", "nt1", "nt1", "nt", None, Elements())
    add("elements", "n1", "n1", "n", "n", Elements())
    whole = (one_number, sum_by_the_batch, another_loss, ignoring, of_each_column, contrast)
    for loss in (*whole, keras.losses.Dice(), keras.losses.Tversky(reduction="sum")):
        name = getattr(loss, "__name__", type(loss).__name__)
        add(name, "n1", "n1", None, None, loss)
    add("one_number", "n1", "n1", "n", None, one_number)
    add("one_number", "nt", "nt", "n1", "nt", one_number)
    add("Dice", "n1", "n1", "n1", None, keras.losses.Dice())
    add("contrast", "nt", "nt", "n", None, contrast)
    add("Circle", "n", "nt", None, None, keras.losses.Circle())
    return found


CASES = cases()


def tensors(case):
    y, p, w, mask, loss = CASES[case]
    rng = np.random.default_rng(1)
    target = rng.integers(0, C, SHAPES[y]).astype("f4")
    output = rng.uniform(0.1, 1, SHAPES[p]).astype("f4")
    weights = None if w is None else rng.uniform(0.2, 3, SHAPES[w]).astype("f4")
    # No value of the first example counts.
    mask = (
        None
        if mask is None
        else (np.arange(N * T).reshape(N, T) % 4 > 0)[:, : T if "t" in mask else 1]
    )
    if mask is not None:
        mask[0] = False
        mask = mask.reshape(SHAPES[CASES[case][3]])
    return target, output, weights, mask, loss


def by_keras(case):
    """The loss, and its gradient for the output."""
    target, output, weights, mask, loss = tensors(case)
    inputs = keras.Input(output.shape[1:])
    model = keras.Model(inputs, keras.layers.Identity(name="only")(inputs))
    model.compile(loss=loss)
    output = tf.constant(output)
    with tf.GradientTape() as tape:
        tape.watch(output)
        y_pred = tf.identity(output)
        if mask is not None:
            y_pred._keras_mask = tf.constant(mask)
        value = model.compute_loss(None, tf.constant(target), y_pred, weights)
        value = tf.reduce_sum(value)  # Keras leaves a gradient of several values to the tape.
    return value.numpy(), tape.gradient(value, output).numpy()


def by_replicas(case, replication):
    """The same from shares of replicas."""
    target, output, weights, mask, loss = tensors(case)
    symbolic = keras.KerasTensor((None, *output.shape[1:]), name="only")
    losses = Losses(loss, symbolic, ["only"])
    places = PARTS if replication.replicas == 3 else ((0, N),)

    def part_of(array, start, stop):
        # A replica without examples borrows one.
        return None if array is None else tf.constant(array[start : max(stop, start + 1)])

    parts = [
        (
            [
                part_of(array, *place)
                for array in (target, output, weights, mask)
                if array is not None
            ],
            tf.constant(float(place[1] - place[0])),
        )
        for place in places
    ]

    def on_replica(part):
        arrays, local = part
        arrays = iter(arrays)
        y, p = next(arrays), next(arrays)
        w = None if weights is None else next(arrays)
        with tf.GradientTape() as tape:
            tape.watch(p)
            y_pred = tf.identity(p)
            if mask is not None:
                y_pred._keras_mask = next(arrays)
            value, _ = losses(y, y_pred, w, Rows(local, tf.constant(float(N))), replication)
        return value, tape.gradient(value, p)

    found = tf.function(lambda: replication.run(on_replica, parts), autograph=False)()
    gradients = [g[: stop - start] for (_, g), (start, stop) in zip(found, places, strict=True)]
    return sum(value.numpy() for value, _ in found), np.concatenate(gradients)


@pytest.mark.graph
@pytest.mark.parametrize("case", CASES)
def test_shares_add_up_to_the_loss_of_one_device(case, mirrored):
    expected, slope = by_keras(case)
    for replication in (disttrain.replication.resolve("single"), mirrored(3)):
        value, gradient = by_replicas(case, replication)
        np.testing.assert_allclose(value, expected, **CLOSE)
        np.testing.assert_allclose(gradient, slope, **CLOSE)


@pytest.mark.graph
def test_weights_with_more_axes_than_the_values_are_refused():
    losses = Losses("mse", keras.KerasTensor((None, T), name="only"), ["only"])
    rows = Rows(tf.constant(5.0), tf.constant(5.0))
    with pytest.raises(ValueError, match=r"mean_squared_error.*\(5,\).*sample_weight.*\(5, 3\)"):
        losses(tf.zeros([N, T]), tf.zeros([N, T]), tf.ones([N, T]), rows)

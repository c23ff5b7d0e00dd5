"""An update at once takes reduced, unscaled and clipped gradients, as Keras would get them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from tests._support.covering import product
from tests.optimizers.fused_steps import (
    RULES,
    SHAPES,
    assert_same_bits,
    assert_within_rounding,
    by_keras,
    by_us,
    gradients,
    make_variables,
    with_settings,
    with_sparse,
)

pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("compiled_operations")]


# Replicas.


@pytest.mark.parametrize("rule", ["momentum", "Adam", "Nadam", "RMSprop centered momentum"])
def test_each_replica_updates_its_own_copy_by_the_mean(mirrored, rule, updated_at_once):
    make, parts = with_settings(rule, "decay with a schedule but for some"), mirrored_parts()
    means = [[(a + b) / 2 for a, b in zip(*both, strict=True)] for both in parts]
    # That the copies are equal is looked at there.
    found = by_us(make, parts=parts, replication=mirrored(2))
    assert_within_rounding(found, by_keras(make, batches=means))


def test_averages_and_constraints_on_replicas(mirrored, updated_at_once):
    def make():
        return RULES["Adam"].make(use_ema=True, ema_momentum=0.5)

    parts = mirrored_parts()
    means = [[(a + b) / 2 for a, b in zip(*both, strict=True)] for both in parts]
    constraint = keras.constraints.NonNeg()
    found = by_us(make, parts=parts, replication=mirrored(2), constraint=constraint)
    assert_within_rounding(found, by_keras(make, batches=means, constraint=constraint))


def test_sparse_gradients_of_different_rows_on_replicas(mirrored, updated_at_once):
    make = with_settings("Adam", "decay")
    parts = [
        [with_sparse([one], [4, 2])[0], with_sparse([other], [302, 4, 9])[0]]
        for one, other in mirrored_parts()
    ]
    means = [
        [
            (tf.convert_to_tensor(a) + tf.convert_to_tensor(b)) / 2
            for a, b in zip(*both, strict=True)
        ]
        for both in parts
    ]
    found = by_us(make, parts=parts, replication=mirrored(2))
    assert_within_rounding(found, by_keras(make, batches=means))


def mirrored_parts():
    """`[step][replica]`, with much different gradients on both replicas."""
    pairs = zip(gradients(seed=1), gradients(seed=2, scale=10.0), strict=True)
    return [list(pair) for pair in pairs]


# Clips and loss scales.


def norm(arrays):
    return np.sqrt(sum(np.square(np.float64(array)).sum() for array in arrays))


def by_global_norm(batch, limit=1.0):
    return [g * np.float32(min(1, limit / norm(batch))) for g in batch]


def by_norm(batch, limit=1.0):
    return [g * np.float32(min(1, limit / norm([g]))) for g in batch]


class ByHistory:
    """AutoClip at a percentile of 50, in NumPy."""

    def __init__(self):
        self._norms = []

    def __call__(self, batch):
        self._norms.append(norm(batch))
        return by_global_norm(batch, np.percentile(self._norms, 50))


def by_value(batch):
    return [np.clip(g, -0.01, 0.01) for g in batch]


class ByUnit:
    """What `AdaptiveClip` returns for variables that stay, as those of a learning rate of 0 do."""

    def __call__(self, batch):
        variables = make_variables()
        clipped, _ = disttrain.AdaptiveClip(0.01)(
            [tf.constant(g) for g in batch], tf.ones([len(batch)]), variables
        )
        return [g.numpy() for g in clipped]


CLIPS = {
    "ClipByGlobalNorm": (lambda: disttrain.ClipByGlobalNorm(1.0), lambda: by_global_norm),
    "ClipByNorm": (lambda: disttrain.ClipByNorm(1.0), lambda: by_norm),
    "AutoClip": (lambda: disttrain.AutoClip(50.0), ByHistory),
    "ClipByValue": (lambda: disttrain.ClipByValue(0.01), lambda: by_value),
}


@pytest.mark.parametrize(
    ("name", "scale", "local"),
    product(name=CLIPS, scale=[None, 1000.0], local=[(), ("bias", "wide")]),
    ids=str,
)
def test_clipped_gradients_give_the_update_that_they_give_keras(
    name, scale, local, updated_at_once
):
    make, reference = RULES["momentum"].make, CLIPS[name][1]()
    options = {"clip": CLIPS[name][0](), "loss_scale": scale, "local_variables": local}
    batches = [[g.numpy() for g in each] for each in gradients()]
    shared = [i for i, name in enumerate(SHAPES) if name not in local]
    clipped = [list(each) for each in batches]
    for each in clipped:
        for i, gradient in zip(shared, reference([each[i] for i in shared]), strict=True):
            each[i] = gradient
    given = [[tf.constant(g * np.float32(scale or 1)) for g in each] for each in batches]
    expected = by_keras(make, batches=clipped)
    assert_within_rounding(by_us(make, batches=given, **options), expected)
    unclipped = by_keras(make, batches=batches)
    assert np.abs(expected["kernel"] - unclipped["kernel"]).max() > 1e-3


def test_gradients_that_adaptive_clip_limits(updated_at_once):
    make, batches = RULES["SGD"].make, gradients()[:1]
    clipped = [ByUnit()([g.numpy() for g in each]) for each in batches]
    found = by_us(make, batches=batches, clip=disttrain.AdaptiveClip(0.01))
    assert_within_rounding(found, by_keras(make, batches=clipped))


@pytest.mark.parametrize(
    "clip",
    [
        disttrain.ClipByGlobalNorm(1e9),
        disttrain.ClipByNorm(1e9),
        disttrain.ClipByValue(1e9),
        disttrain.AdaptiveClip(1e9),
        disttrain.AutoClip(100.0),
    ],
    ids=lambda clip: type(clip).__name__,
)
def test_a_clip_that_does_not_act_changes_no_bit(clip, updated_at_once):
    make = RULES["Adam"].make
    # Each gradient lies below the first, which is the only one that AutoClip might clip to.
    batches = [[g * 0.5**k for g in gradients()[0]] for k in range(3)]
    assert_same_bits(by_us(make, batches=batches, clip=clip), by_keras(make, batches=batches))


def test_a_step_that_is_not_finite_changes_nothing(updated_at_once):
    make, batches = RULES["Nadam"].make, gradients()
    bad = [*batches[0][:-1], tf.fill(SHAPES["table"], np.inf)]
    options = {"clip": disttrain.ClipByGlobalNorm(1.0), "loss_scale": 8.0}
    with_bad = by_us(make, batches=[batches[0], bad, *batches[1:]], **options)
    assert_same_bits(with_bad, by_us(make, batches=batches, **options))

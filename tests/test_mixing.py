"""Mixup and CutMix: against NumPy, and the same wherever and whenever a training reads them."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from disttrain.batches import pass_over
from disttrain.data import cutmix, mixing, mixup
from tests._support.tiny_models import trainer_of
from tests.checkpoints import test_resume, training

pytestmark = pytest.mark.graph

N = 8


def rows(*arrays, size=N):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def unit_vectors(batches=1, **options):
    """Batches of unit vectors, whose mixtures tell what was mixed; labels from 0 to 2."""
    x = np.tile(np.eye(N, dtype=np.float32), (batches, 1))
    y = np.tile(np.arange(N) % 3, batches)
    return mixup(rows(x, y), **{"classes": 3, **options})


def mixture(x):
    """`(share, other)` of a mixed batch of unit vectors, from the vectors alone."""
    own = np.diag(x)
    other = np.argmax(np.where(np.eye(N, dtype=bool), 0, x), axis=1)
    itself = np.isclose(own, 1)
    return own[~itself], np.where(itself, np.arange(N), other)


def batches_of(dataset):
    return [[leaf.numpy() for leaf in tf.nest.flatten(element)] for element in dataset]


# Mixup


def test_inputs_and_labels_are_mixed_alike():
    mixed = 0
    for x, y in batches_of(unit_vectors(20, alpha=0.7)):
        shares, other = mixture(x)
        assert sorted(other) == list(range(N)), "a permutation"
        share = shares[0] if len(shares) else 1.0
        np.testing.assert_allclose(shares, share, rtol=1e-6)
        labels = np.eye(3)[np.arange(N) % 3]
        np.testing.assert_allclose(y, share * labels + (1 - share) * labels[other], atol=1e-6)
        assert y.dtype == x.dtype == np.float32
        mixed += len(shares)
    assert mixed > 100


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 5.0])
def test_shares_follow_the_beta_distribution(alpha):
    found = []
    for x, _ in batches_of(unit_vectors(600, alpha=alpha)):
        shares, _ = mixture(x)
        found += shares[:1].astype(np.float64).tolist()
    # A share of 1 cannot be told from examples that stay by themselves.
    inside = np.asarray(found)
    inside = inside[(inside > 1e-5) & (inside < 1 - 1e-5)]
    beta = scipy.stats.beta(alpha, alpha)
    low, high = beta.cdf([1e-5, 1 - 1e-5])
    assert len(inside) > 0.8 * 600 * (high - low)
    uniform = (beta.cdf(inside) - low) / (high - low)
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3


def test_floating_labels_several_inputs_and_other_dtypes():
    x = {"a": np.eye(N, dtype=np.float16), "b": (np.arange(N, dtype=np.float64)[:, None],)}
    y = np.arange(N, dtype=np.float32) ** 2
    ((mixed, targets),) = mixup(rows(x, y), alpha=1.0, seed=3)
    shares, other = mixture(mixed["a"].numpy().astype(np.float32))
    share = float(shares.mean())
    np.testing.assert_allclose(
        mixed["b"][0][:, 0], share * np.arange(N) + (1 - share) * other, atol=1e-2
    )
    np.testing.assert_allclose(targets, share * y + (1 - share) * y[other], atol=0.1)
    assert mixed["a"].dtype == tf.float16
    assert mixed["b"][0].dtype == tf.float64


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_sample_weights_weigh_the_losses_of_both_examples(mix):
    rng = np.random.default_rng(0)
    x = np.arange(N, dtype=np.float32)[:, None, None, None] * np.ones((1, 6, 6, 1), np.float32)
    y, weights = np.arange(N) % 3, rng.uniform(0, 2, N).astype(np.float32)
    weights[:3] = 0
    ((_, soft, mixed_weights),) = mix(rows(x, y, weights), alpha=1.0, classes=3, seed=1)
    ((mixed, plain),) = mix(rows(x, y), alpha=1.0, classes=3, seed=1)
    logits = rng.standard_normal((N, 3)).astype(np.float32)
    losses = -np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    # What was mixed, told from the means of the images, whose values are their numbers.
    share = _share(mixed.numpy().mean(axis=(1, 2, 3)))
    other = np.rint((mixed.numpy().mean(axis=(1, 2, 3)) - share * np.arange(N)) / (1 - share))
    other = other.astype(int)
    expected = share * weights * losses[np.arange(N), y]
    expected += (1 - share) * weights[other] * losses[np.arange(N), y[other]]
    crossentropy = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)
    found = crossentropy(soft, logits).numpy() * mixed_weights.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(plain.numpy().sum(axis=1), 1, rtol=1e-5)


def _share(means):
    """The share for which all examples are mixtures of two whole numbers below N."""
    grid = np.linspace(0, 1, 36 * 500 + 1)[1:-1]
    rest = (means[None] - grid[:, None] * np.arange(N)) / (1 - grid[:, None])
    off = np.abs(rest - np.rint(rest)) * (1 - grid[:, None])
    off += 10 * ((rest < -0.3) | (rest > N - 0.7))
    permuted = np.sort(np.rint(rest), axis=1) == np.arange(N)
    return grid[np.argmin(off.sum(1) + 10 * ~permuted.all(axis=1))]


# CutMix


def numbered_images(n=N, height=7, width=10, channels=2, dtype=np.int32):
    """Images of which no two pixels are equal."""
    return np.arange(n * height * width * channels, dtype=dtype).reshape(n, height, width, channels)


def test_a_box_of_another_image_is_pasted_and_labels_follow_its_true_area():
    images, labels = numbered_images(), np.arange(N) % 3
    soft = np.eye(3)[labels]
    data = cutmix(rows(images, labels).repeat(60), alpha=1.0, classes=3)
    areas, cut_at_edges = [], 0
    for x, y in batches_of(data):
        owner = x // images[0].size
        np.testing.assert_array_equal(x % images[0].size, images % images[0].size, "in place")
        foreign = owner != np.arange(N)[:, None, None, None]
        other = np.where(foreign.any(axis=(1, 2, 3)), owner.max(axis=(1, 2, 3)), np.arange(N))
        lower = owner.min(axis=(1, 2, 3))
        other = np.where(lower < np.arange(N), lower, other)
        assert sorted(other) == list(range(N)), "a permutation"
        boxes = foreign[foreign.any(axis=(1, 2, 3))]
        if not len(boxes):
            np.testing.assert_allclose(y[other == np.arange(N)], soft[other == np.arange(N)])
            continue
        assert (boxes == boxes[:1]).all(), "one box a batch"
        box = boxes[0, :, :, 0]
        rectangle = np.outer(box.any(axis=1), box.any(axis=0))
        np.testing.assert_array_equal(box, rectangle)
        share = 1 - box.mean()
        np.testing.assert_allclose(y, share * soft + (1 - share) * soft[other], atol=1e-6)
        areas.append(box.mean())
        cut_at_edges += box[0].any() or box[-1].any() or box[:, 0].any() or box[:, -1].any()
    # Uncut, 1 - lambda is uniform; the edges take away from that.
    assert 0.15 < np.mean(areas) < 0.5
    assert max(areas) > 0.6
    assert 0 < cut_at_edges < len(areas)


def test_boxes_have_their_size_and_lie_around_pixels_drawn_evenly():
    height, width, share = 200, 100, 0.84
    areas, middles = [], []
    for seed in range(200):
        inside, area = mixing._box(height, width, tf.constant(share, tf.float64), [seed, 1])
        rows_, columns = np.nonzero(inside.numpy())
        assert int(area) == len(rows_)
        areas.append(int(area))
        middles.append((rows_.mean() / height, columns.mean() / width))
    # Sides of 0.4; an uncut box covers 1 - share.
    assert max(areas) == 80 * 40
    # Cut boxes have their middles further inside, symmetrically: 0.5 +- 3 * 0.27 / sqrt(200).
    np.testing.assert_allclose(np.mean(middles, axis=0), [0.5, 0.5], atol=0.06)
    assert np.mean(np.asarray(areas) < 80 * 40) == pytest.approx(1 - 0.6 * 0.6, abs=0.12)


def test_channels_may_come_first(monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    images = np.moveaxis(numbered_images(), 3, 1)
    for x, _ in batches_of(cutmix(rows(images, np.arange(N)).repeat(5), classes=N)):
        foreign = x // images[0].size != np.arange(N)[:, None, None, None]
        assert (foreign[:, :1] == foreign).all(), "the box is the same in all channels"
        np.testing.assert_array_equal(x % images[0].size, images % images[0].size)


# Wherever and whenever


def noisy(mix=mixup, seed=0):
    images = np.random.default_rng(0).standard_normal((20, 4, 4, 1)).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices((images, np.arange(20) % 3))
    return mix(data.shuffle(20, seed=4).batch(6), alpha=1.0, seed=seed, classes=3)


def same(one, other):
    return len(one) == len(other) and all(
        (a == b).all() for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_a_batch_that_comes_again_is_mixed_anew():
    data = unit_vectors(3, alpha=5.0)
    shares = [[mixture(x)[0].mean() for x, _ in batches_of(data)] for _ in range(2)]
    assert len(set(np.ravel(shares).tolist())) == 6


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_each_pass_and_seed_has_its_own_mixtures_and_each_program_the_same(mix):
    first, again = noisy(mix), noisy(mix)
    passes = [batches_of(first) for _ in range(3)]
    assert all(same(one, batches_of(again)) for one in passes)
    assert not same(passes[0], passes[1])
    assert not same(passes[0], batches_of(noisy(mix, seed=1)))
    assert same([*passes[0], *passes[1], *passes[2]], batches_of(noisy(mix).repeat(3)))


def test_the_mixtures_of_a_batch_are_found_by_its_number_and_pass():
    data = noisy()
    passes = [batches_of(data) for _ in range(3)]
    skipping = noisy()
    pass_over(skipping, 1)
    assert same(batches_of(skipping.skip(2)), passes[1][2:])
    assert same(batches_of(skipping.prefetch(2)), passes[2])


def test_a_training_with_mixtures_is_the_same_on_two_replicas(mirrored):
    def train(replication):
        made = trainer_of(
            lambda: keras.Sequential(
                [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
            ),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            replication=replication,
        )
        made.fit(noisy(cutmix), epochs=2, verbose=0)
        return made.model.get_weights()

    for one, two in zip(train("single"), train(mirrored(2)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_a_resumed_training_sees_the_mixtures_that_it_would_have_seen(tmp_path):
    def fit(made, callbacks=()):
        x = tf.data.Dataset.from_tensor_slices((training.X, training.Y)).shuffle(16, seed=7)
        data = mixup(x.batch(training.BATCH), classes=training.CLASSES)
        return made.fit(data, epochs=3, verbose=0, callbacks=list(callbacks))

    def make(directory):
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        return training.trainer(directory, loss=loss)

    test_resume.assert_resumes(tmp_path, fit, 19, make)


# Bad input

IMAGES = np.zeros((4, 2, 2, 1), np.float32)
LABELS = np.zeros(4, np.int64)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: mixup(rows(IMAGES, LABELS), alpha=0.0, classes=2), ValueError, "above 0, not 0.0"),
        (lambda: mixup(rows(IMAGES, LABELS), seed=1.5, classes=2), ValueError, "number, not 1.5"),
        (lambda: mixup(rows(IMAGES, LABELS)), ValueError, r"say how many .*: classes=10"),
        (lambda: mixup(rows(IMAGES, LABELS), classes=1), ValueError, "from 2, or None, not 1"),
        (lambda: mixup(rows(IMAGES)), ValueError, "to yield"),
        (lambda: mixup(rows(LABELS, LABELS), classes=2), TypeError, "floating, not int64"),
        (lambda: mixup(rows(IMAGES, LABELS > 0), classes=2), ValueError, "floating, not bool"),
        (lambda: cutmix(rows(LABELS, LABELS), classes=2), ValueError, "takes images"),
        (
            lambda: mixup(tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)), classes=2),
            ValueError,
            "within a batch",
        ),
        (
            lambda: next(iter(mixup(rows(IMAGES, LABELS + 2), classes=2))),
            tf.errors.InvalidArgumentError,
            "below classes=2",
        ),
    ],
)
def test_bad_input_is_refused_in_a_sentence(make, error, words):
    with pytest.raises(error, match=words):
        make()

"""Mixes the examples of a batch: mixup and CutMix, as maps of a batched `tf.data.Dataset`.

All random numbers come from seeds that run beside the batches in the pipeline. They are new in
each pass, and are skipped and passed over with the batches: so they are the same on all processes,
and those of a training that goes on from a checkpoint are those of one that was not interrupted.
"""

import math
import numbers

import keras
import tensorflow as tf


def mixup(dataset, alpha=0.2, seed=0, classes=None):
    """Mixes each example of a batch with another one, and their labels alike.

    With `lambda` drawn from Beta(alpha, alpha) for each batch and a permutation `j` of it,

    ```
    x[i] <- lambda x[i] + (1 - lambda) x[j[i]]
    y[i] <- lambda y[i] + (1 - lambda) y[j[i]]
    ```

    (Zhang et al. 2018, "mixup: Beyond empirical risk minimization", section 2, with one lambda a
    batch as in their implementation.) Losses that are linear in the labels, such as
    `CategoricalCrossentropy`, then are the mean of both examples' losses with these weights; where
    there are sample weights these count as well.

    Args:
        dataset: A `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)`, batched with the global
            batch size: floating inputs `[batch, ...]`; labels, integers or floating.
        alpha: Above 0; small values mostly leave one of the two.
        seed: A whole number. The same seed gives the same mixtures.
        classes: Number of classes, where the labels are integers: they become one-hot.

    Returns:
        A `tf.data.Dataset` of the same structure, with float32 labels `[batch, classes]` where they
        were integers.

    Raises:
        TypeError: The inputs are no floating tensors.
        ValueError: An argument is outside of its range, or the dataset is not batched or has no
            labels.
    """

    def mix(batch, seeds):
        x, y, weights = batch
        size = tf.shape(keras.tree.flatten(x)[0])[0]
        other = _permutation(size, seeds[0])
        share = _beta(alpha, seeds[1])
        mixed = keras.tree.map_structure(
            lambda leaf: _between(leaf, tf.gather(leaf, other), tf.cast(share, leaf.dtype)), x
        )
        return mixed, *_labels(y, weights, other, share)

    _check(alpha, classes)
    for leaf in keras.tree.flatten(_parts(dataset.element_spec)[0]):
        if not leaf.dtype.is_floating:
            raise TypeError(
                f"mixup takes means of inputs, which have to be floating, not {leaf.dtype.name}; "
                "cast them before: dataset.map(lambda x, y: (tf.cast(x, tf.float32) / 255, y))"
            )
    return _map(dataset, mix, seed, classes)


def cutmix(dataset, alpha=1.0, seed=0, classes=None):
    """Pastes a box of another image of the batch into each image, and mixes labels by its area.

    With `lambda` drawn from Beta(alpha, alpha) for each batch, a box whose sides are
    `sqrt(1 - lambda)` of the image's lies around a pixel drawn at random and is cut at the edges.
    Labels are weighted by the part of the image that the box truly covers. (Yun et al. 2019,
    "CutMix: Regularization strategy to train strong classifiers", section 3.)

    Args:
        dataset: As for `mixup`; inputs are images `[batch, height, width, channels]`, or with the
            channels first where `keras.config.image_data_format()` says so, of any dtype.
        alpha: Above 0.
        seed: As for `mixup`.
        classes: As for `mixup`.

    Returns:
        As for `mixup`.

    Raises:
        ValueError: As for `mixup`, or the inputs are no images.
    """
    first = 2 if keras.config.image_data_format() == "channels_first" else 1

    def mix(batch, seeds):
        x, y, weights = batch
        shape = tf.shape(x)
        other = _permutation(shape[0], seeds[0])
        inside, area = _box(shape[first], shape[first + 1], _beta(alpha, seeds[1]), seeds[2])
        inside = inside[..., None] if first == 1 else inside
        mixed = tf.where(inside, tf.gather(x, other), x)
        share = 1 - tf.cast(area, tf.float64) / tf.cast(shape[first] * shape[first + 1], tf.float64)
        return mixed, *_labels(y, weights, other, share)

    _check(alpha, classes)
    images = _parts(dataset.element_spec)[0]
    if not isinstance(images, tf.TensorSpec) or images.shape.rank != 4:
        raise ValueError(
            f"cutmix takes images [batch, height, width, channels] as inputs, not {images}; batch "
            "the dataset before, and use mixup for other inputs"
        )
    return _map(dataset, mix, seed, classes)


def _map(dataset, mix, seed, classes):
    """Maps batches, together with seeds of their own."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise ValueError(f"seed must be a whole number, not {seed!r}")
    # Like a shuffle's, its numbers are others in each pass, and the same in each program.
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(6)

    def prepared(batch, numbers):
        x, y, weights = _parts(batch)
        soft = keras.tree.map_structure(lambda leaf: _soft(leaf, classes), y)
        mixed = mix((x, soft, weights), tf.reshape(numbers, [3, 2]))
        return mixed if weights is not None else mixed[:2]

    _parts(dataset.element_spec)
    for leaf in keras.tree.flatten(dataset.element_spec[1]):
        _soft_dtype(leaf, classes)
    return tf.data.Dataset.zip(dataset, seeds).map(prepared, num_parallel_calls=tf.data.AUTOTUNE)


def _check(alpha, classes):
    if not isinstance(alpha, numbers.Real) or not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be a finite number above 0, not {alpha!r}")
    whole = isinstance(classes, numbers.Integral) and not isinstance(classes, bool)
    if classes is not None and not (whole and classes > 1):
        raise ValueError(f"classes must be a whole number from 2, or None, not {classes!r}")


def _parts(element):
    """`(x, y, sample_weight)`, the latter `None` where there is none."""
    if not isinstance(element, (tuple, list)) or not 2 <= len(element) <= 3:
        raise ValueError(
            f"examples are mixed with their labels: the dataset has to yield (x, y) or "
            f"(x, y, sample_weight), not {element}"
        )
    for leaf in keras.tree.flatten(element):
        if getattr(leaf, "shape", None) is not None and leaf.shape.rank == 0:
            raise ValueError(
                "examples are mixed within a batch: call dataset.batch(global batch size) before"
            )
    return (*element, None)[:3]


def _soft_dtype(leaf, classes):
    if leaf.dtype.is_integer and classes is None:
        raise ValueError(
            f"the labels are integers ({leaf.dtype.name}), which have no mixtures; say how many "
            "classes there are, for them to become one-hot: classes=10"
        )
    if not leaf.dtype.is_integer and not leaf.dtype.is_floating:
        raise ValueError(f"labels have to be integers or floating, not {leaf.dtype.name}")


def _soft(labels, classes):
    """Labels as floating numbers; one-hot where they are integers."""
    if not labels.dtype.is_integer:
        return labels
    if labels.shape.rank == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    inside = tf.reduce_all((labels >= 0) & (labels < tf.cast(classes, labels.dtype)))
    message = f"labels have to be from 0 and below classes={classes}; there are"
    check = tf.debugging.Assert(inside, [message, labels], summarize=20)
    with tf.control_dependencies([check]):
        return tf.one_hot(labels, classes)


def _labels(y, weights, other, share):
    """Mixed labels, and sample weights, `None` where there are none.

    With weights `v` and `w` of the two examples and a share `s`, `s v loss(y) + (1 - s) w loss(z)`
    is the loss of `(s v y + (1 - s) w z) / u` with the weight `u = s v + (1 - s) w`.
    """
    if weights is None:
        return keras.tree.map_structure(
            lambda leaf: _between(leaf, tf.gather(leaf, other), tf.cast(share, leaf.dtype)), y
        ), None
    own = tf.cast(share, weights.dtype) * weights
    total = own + tf.cast(1 - share, weights.dtype) * tf.gather(weights, other)
    # Where neither counts, any mixture will do.
    shares = tf.where(total > 0, own / tf.where(total > 0, total, 1), 1)

    def between(leaf):
        of_leaf = tf.cast(tf.reshape(shares, [-1] + [1] * (leaf.shape.rank - 1)), leaf.dtype)
        return _between(leaf, tf.gather(leaf, other), of_leaf)

    return keras.tree.map_structure(between, y), total


def _between(a, b, share):
    return share * a + (1 - share) * b


def _permutation(size, seed):
    return tf.argsort(tf.random.stateless_uniform([size], seed))


def _beta(alpha, seed):
    """A float64 scalar, drawn as a quotient of gammas."""
    a, b = tf.unstack(
        tf.random.stateless_gamma([2], seed, tf.cast(alpha, tf.float64), dtype=tf.float64)
    )
    # Both may be too small for a number where alpha is.
    return tf.where(a + b > 0, a / tf.where(a + b > 0, a + b, 1), 1)


def _box(height, width, share, seed):
    """A box that covers about `1 - share` of an image.

    Returns:
        `(inside, area)`: booleans `[height, width]`, and the pixels that it covers.
    """
    ratio = tf.sqrt(1 - share)
    middle = tf.random.stateless_uniform([2], seed, dtype=tf.float64)

    def span(length, at):
        size = tf.cast(tf.cast(length, tf.float64) * ratio, tf.int32)
        centre = tf.minimum(tf.cast(tf.cast(length, tf.float64) * at, tf.int32), length - 1)
        begin = centre - size // 2
        places = tf.range(length)
        return (places >= begin) & (places < begin + size)

    rows, columns = span(height, middle[0]), span(width, middle[1])
    inside = rows[:, None] & columns[None, :]
    return inside, tf.reduce_sum(tf.cast(inside, tf.int32))

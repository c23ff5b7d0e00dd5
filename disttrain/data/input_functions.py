"""Feeds of a function of a `tf.distribute.InputContext`: each process reads its own part."""

import dataclasses
import math
import warnings

import numpy as np
import tensorflow as tf

from disttrain.data import parts
from disttrain.data.feed import Feed, length_of


def from_function(function, topology, steps, training, all_gather, class_weights=None):
    """The `Feed` of a function; for the arguments see `disttrain.data.make_feed`."""
    alone = dataclasses.replace(topology, processes=1, process=0)
    # A pipeline per process: the "replica" of this context is the process, so that
    # get_per_replica_batch_size gives the size of the process's part.
    context = tf.distribute.InputContext(
        num_input_pipelines=topology.processes,
        input_pipeline_id=topology.process,
        num_replicas_in_sync=topology.processes,
    )
    dataset = function(context)
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            "the function of the InputContext must return a tf.data.Dataset, not "
            f"{type(dataset).__name__}"
        )
    if class_weights is not None:
        dataset = dataset.map(class_weights.weigh, num_parallel_calls=tf.data.AUTOTUNE)
    batch = parts.check_batched(dataset.element_spec, alone, training, dense=True)
    own = parts.static_batch(dataset.element_spec)
    length = length_of(dataset)
    code = {None: -1, math.inf: -2}.get(length, length)
    codes = all_gather(np.asarray(code, np.int64)) if all_gather else np.asarray([code])
    if steps is None and (codes < 0).any():
        raise ValueError(
            "the dataset of the function does not tell its length, so processes cannot agree "
            "when an epoch ends; give steps_per_epoch, or apply "
            "tf.data.experimental.assert_cardinality(n)"
        )

    def divided(dataset):
        return dataset.map(
            lambda *element: {
                **parts.split(parts.as_tuple(element), alone, None),
                "total": tf.constant(-1.0),
            },
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def filled(split, taken=0):
        # A process whose part ends early takes part with examples that do not count.
        nothing = tf.data.Dataset.from_tensors(parts.nothing(split.element_spec)).repeat()
        return split.concatenate(nothing).take(in_pass - taken)

    if not codes.any():
        raise ValueError("the datasets of the function are empty on every process")
    finite = bool((codes >= 0).all())
    in_pass = int(codes.max()) if finite else (math.inf if (codes == -2).all() else None)
    repeated = in_pass is None and topology.processes > 1
    if repeated:
        warnings.warn(
            "The dataset of the function does not report its length on every process, so processes "
            "cannot agree when its data end: each repeats its own part. Apply "
            "tf.data.experimental.assert_cardinality(n) to end them together.",
            stacklevel=2,
        )
        dataset = dataset.repeat()

    split = divided(dataset)
    if training and batch is None:
        split = split.enumerate().map(lambda i, element: parts.check_first(i, element, alone))
    split = (filled(split) if finite else split).prefetch(2)

    def from_batch(epoch, taken=0):
        if not taken:
            return split
        rest = divided(dataset.skip(taken))
        return (filled(rest, taken) if finite else rest).prefetch(2)

    return Feed(
        dataset=from_batch,
        divide=parts.already,
        spec=parts.spec(split.element_spec, None),
        steps=steps if steps is not None else in_pass,
        endless=steps is not None,
        shared=False,
        length=math.inf if repeated else in_pass,
        batch=None if own is None else own * topology.processes,
    )

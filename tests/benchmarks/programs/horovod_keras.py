"""Horovod's own Keras wrapper, as its documentation has it, by turns.

For TensorFlow 2.15.1 and Keras 2.15; `old_horovod.sh` makes the environment.
"""

import json
import os
import sys

from tests.benchmarks.programs import networks, turns

RANK = int(os.environ.get("HOROVOD_RANK", 0))
SIZE = int(os.environ.get("HOROVOD_SIZE", 1))
turns.pin(RANK)

import horovod.tensorflow.keras as hvd  # noqa: E402, it comes after the core is chosen
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from tests.benchmarks.slices import Slices  # noqa: E402


def run(network, steps_per_execution=1):
    """A training: a function that makes n steps, and one that returns a checksum of its weights."""
    made = []

    def train(callback):
        model = networks.build(keras, network)
        made.append(model)
        optimizer = hvd.DistributedOptimizer(keras.optimizers.Adam(1e-3))
        model.compile(
            optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            steps_per_execution=steps_per_execution,
        )
        arrays = networks.data(network, first=RANK)
        dataset = tf.data.Dataset.from_tensor_slices(arrays).repeat()
        callbacks = [hvd.callbacks.BroadcastGlobalVariablesCallback(0), callback]
        model.fit(dataset, steps_per_epoch=10**9, verbose=0, callbacks=callbacks)

    def checksum():
        return networks.checksum(v.numpy() for v in made[0].trainable_variables)

    return Slices(train), checksum


hvd.init()
chosen, content = sys.argv[1:]
turns.take(RANK, {name: run(chosen, **own) for name, own in json.loads(content).items()})

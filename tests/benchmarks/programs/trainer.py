"""`disttrain.Trainer` in Horovod's ranks, by turns: `python -m ...trainer NETWORK OPTIONS`."""

import json
import os
import sys

from tests.benchmarks.programs import networks, turns

# Without Horovod each process trains alone.
RANK = int(os.environ.get("HOROVOD_RANK") or os.environ.get("RANK") or 0)
SIZE = int(os.environ.get("HOROVOD_SIZE", 1))

turns.pin(RANK)

import keras  # noqa: E402, it comes after the core is chosen
import tensorflow as tf  # noqa: E402

import disttrain  # noqa: E402
from tests.benchmarks.slices import Slices  # noqa: E402


def run(network, options):
    """A training: a function that makes n steps, and one that returns a checksum of its weights.

    Args:
        network: A name of `networks.SHAPES`.
        options: Arguments of `Trainer`, and `groups` of its `DistributedOptimizer`.
    """
    made = []
    options = dict(options)
    groups = options.pop("groups", None)

    def train(callback):
        optimizer = keras.optimizers.Adam(1e-3)
        if groups is not None:
            optimizer = disttrain.DistributedOptimizer(optimizer, groups=groups)
        trainer = disttrain.Trainer(
            lambda: networks.build(keras, network),
            optimizer=optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            replication="horovod" if SIZE > 1 else "single",
            **{"telemetry": None, **options},
        )
        made.append(trainer)
        dataset = tf.data.Dataset.from_tensor_slices(networks.data(network, SIZE)).repeat()
        trainer.fit(dataset, steps_per_epoch=10**9, verbose=0, shuffle=False, callbacks=[callback])

    def checksum():
        return networks.checksum(v.numpy() for v in made[0].model.trainable_variables)

    return Slices(train), checksum


chosen, content = sys.argv[1:]
turns.take(RANK, {name: run(chosen, own) for name, own in json.loads(content).items()})

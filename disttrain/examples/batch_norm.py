"""Batch normalisation with and without synchronisation over the replicas.

python -m disttrain.examples.batch_norm --replication mirrored --replicas 4

Keras's layer normalises each replica's part of a batch by itself: with many replicas these parts
are small, and their statistics rough. `disttrain.layers.SyncBatchNormalization` takes those of the
global batch, under tf.distribute and Horovod, so that training is what one device makes of it.
"""

import keras
import numpy as np

from disttrain.examples import lessons
from disttrain.layers import SyncBatchNormalization

BATCH = 16


def network(normalization):
    def build():
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(32, use_bias=False, name="hidden"),
                normalization(name="normalization"),
                keras.layers.ReLU(),
                keras.layers.Dense(10, name="logits"),
            ]
        )

    return build


def main(arguments=None):
    lesson = lessons.Lesson(__doc__, arguments, epochs=2)
    replicas = lesson.replication.replicas
    lesson.say(f"{replicas} replicas, {BATCH / replicas:g} images of each batch for each:")
    found, weights = {}, {}
    layers = {
        "each by itself": keras.layers.BatchNormalization,
        "synchronised": SyncBatchNormalization,
    }
    for name, layer in layers.items():
        trainer = lesson.trainer(network(layer), keras.optimizers.SGD(0.05, momentum=0.9))
        trainer.fit(*lesson.train, batch_size=BATCH, epochs=lesson.epochs, verbose=0)
        result = trainer.evaluate(*lesson.validation, batch_size=256)
        weights[name] = np.concatenate([v.numpy().ravel() for v in trainer.model.variables[:4]])
        found[name] = result["loss"]
        lesson.say(
            f"  {name:15s} validation loss {result['loss']:.4f}, accuracy {result['accuracy']:.2%}"
        )
    found["distance"] = float(np.abs(weights["each by itself"] - weights["synchronised"]).max())
    lesson.say(f"  The trained weights of the two are up to {found['distance']:.2g} apart")
    return found


if __name__ == "__main__":
    main()

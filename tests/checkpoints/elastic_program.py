"""What each rank of an elastic job runs: a slow training that tells each of its steps.

`python -m tests.checkpoints.elastic_program DIRECTORY EPOCHS SECONDS`
"""

import json
import os
import pathlib
import sys
import time

import keras
import numpy as np

import disttrain
from disttrain.replication import elastic
from tests.checkpoints.training import X, Y, build_plain, trainer

#: For each rank.
RATE = 0.02


def optimizer(rate):
    return keras.optimizers.SGD(rate, momentum=0.9)


class Tell(keras.callbacks.Callback):
    """Appends a line for each batch to this process's file, and waits a while.

    Args:
        directory: Where the files are.
        seconds: How long.
    """

    def __init__(self, directory, made, seconds):
        super().__init__()
        # Processes of two hosts may have one number.
        name = (os.environ["HOROVOD_HOSTNAME"], os.getpid(), elastic.times_begun_anew())
        self._path = pathlib.Path(directory) / f"steps.{'.'.join(map(str, name))}"
        self._made = made
        self._seconds = seconds

    def on_train_batch_end(self, batch, logs=None):
        topology = self._made.replication.topology
        line = {
            "rank": topology.process,
            "size": topology.processes,
            "host": os.environ["HOROVOD_HOSTNAME"],
            "pid": os.getpid(),
            "anew": elastic.times_begun_anew(),
            "step": self._made._log.steps_done,
            "time": time.time(),
        }
        with open(self._path, "a") as file:
            file.write(json.dumps(line) + "\n")
        time.sleep(self._seconds)


def main():
    directory, epochs, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    replication = disttrain.replication.resolve()
    made = trainer(
        str(directory / "checkpoints"),
        build_plain,
        optimizer=optimizer(disttrain.schedules.scaled_learning_rate(RATE, replication.replicas)),
        replication=replication,
        metrics=None,
    )
    tell = Tell(directory, made, seconds)
    made.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=[tell])
    if made.replication.is_chief:
        np.savez(directory / "weights.npz", *made.model.get_weights())
        (directory / "versions").write_text(disttrain.__version__)


if __name__ == "__main__":
    main()

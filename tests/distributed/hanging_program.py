"""A training one of whose ranks stops, or builds another model.

`python -m tests.distributed.hanging_program DIRECTORY RANK stop|model`
"""

import os
import pathlib
import signal
import sys

import keras

import disttrain
from tests.checkpoints.training import X, Y, build_plain, trainer


class Stop(keras.callbacks.Callback):
    """Stops this process as a debugger or a frozen machine does, after its seventh step."""

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == 7:
            os.kill(os.getpid(), signal.SIGSTOP)


def main():
    directory, rank, what = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    replication = disttrain.replication.resolve("horovod")
    chosen = replication.topology.process == rank

    def build_other():
        layers = [keras.layers.Dense(9, "tanh"), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input((X.shape[1],)), *layers])

    build = build_other if chosen and what == "model" else build_plain
    made = trainer(
        str(directory / "checkpoints"),
        build,
        replication=replication,
        metrics=None,
        hang_seconds=6,
    )
    callbacks = [Stop()] if chosen and what == "stop" else [keras.callbacks.Callback()]
    made.fit(X, Y, batch_size=4, epochs=3, verbose=0, callbacks=callbacks)


if __name__ == "__main__":
    main()

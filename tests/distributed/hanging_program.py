"""A training one of whose ranks stops, is killed once, is slow, or has another model or data.

`python -m tests.distributed.hanging_program DIRECTORY RANK stop|setup|kill|slow|model|batches`
"""

import os
import pathlib
import signal
import sys
import time

import keras
import numpy as np

import disttrain
from tests.checkpoints.training import X, Y, build_plain, trainer


class Signal(keras.callbacks.Callback):
    """Sends this process a signal after the seventh step of an epoch, unless it did so before.

    Args:
        number: The signal: SIGSTOP, as a debugger or a frozen machine does, or SIGKILL.
        done: A file that shows that it did.
    """

    def __init__(self, number, done):
        super().__init__()
        self._number = number
        self._done = done

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == 7 and not self._done.exists():
            self._done.write_text("")
            os.kill(os.getpid(), self._number)


class Note(keras.callbacks.Callback):
    """Makes a file that shows that a step was made."""

    def __init__(self, path):
        super().__init__()
        self._path = path

    def on_train_batch_end(self, batch, logs=None):
        self._path.touch()


class Sleep(keras.callbacks.Callback):
    """Takes its time at each step, all steps together longer than ranks wait for one."""

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.3)


def main():
    directory, rank, what = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    replication = disttrain.replication.resolve("auto")
    chosen = replication.topology.process == rank

    def build_other():
        layers = [keras.layers.Dense(9, "tanh"), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input((X.shape[1],)), *layers])

    def build_stopping():
        os.kill(os.getpid(), signal.SIGSTOP)
        return build_plain()

    build = build_plain
    if chosen:
        build = {"model": build_other, "setup": build_stopping}.get(what, build_plain)
    made = trainer(
        str(directory / "checkpoints"),
        build,
        replication=replication,
        metrics=None,
        hang_seconds=6,
    )
    callbacks = [keras.callbacks.Callback()]
    numbers = {"stop": signal.SIGSTOP, "kill": signal.SIGKILL}
    if chosen and what in numbers:
        callbacks = [Signal(numbers[what], directory / "signalled")]
    if chosen and what == "slow":
        callbacks = [Sleep()]
    callbacks.append(Note(directory / "stepped"))
    count = 20 if chosen and what == "batches" else len(X)
    made.fit(X[:count], Y[:count], batch_size=4, epochs=3, verbose=0, callbacks=callbacks)
    if replication.is_chief:
        np.savez(directory / "weights.npz", *made.model.get_weights())


if __name__ == "__main__":
    main()

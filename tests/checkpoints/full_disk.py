"""A training on a file system that fills up, and has room again later.

`python -m tests.checkpoints.full_disk DIRECTORY`, where the directory is a small file system.
"""

import json
import os
import pathlib
import sys
import warnings

import keras

import disttrain
from tests.checkpoints import training


class Fill(keras.callbacks.Callback):
    """Takes all room before the sixth step, and gives it back before the fifteenth."""

    def __init__(self, made, directory):
        super().__init__()
        self.made, self.path = made, pathlib.Path(directory, "ballast")
        self.room = []

    def on_train_batch_begin(self, batch, logs=None):
        step = self.made._log.steps_done
        if step == 6:
            try:
                with open(self.path, "wb") as file:
                    while True:
                        file.write(bytes(4096))
                        file.flush()
            except OSError:
                self.room.append(os.statvfs(self.path).f_bavail)
        if step == 15:
            self.path.unlink()


def fit(made, *callbacks):
    x, y = training.X, training.Y
    return made.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=list(callbacks))


def main(directory):
    whole = training.trainer()
    fit(whole)
    made = training.trainer(
        os.path.join(directory, "ckpt"),
        kept={"every_steps": 3, "keep": 2},
        logdir=os.path.join(directory, "run"),
        # More than the rest of a page.
        telemetry=disttrain.Telemetry(every=1, histograms_every=1),
    )
    fill = Fill(made, directory)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fit(made, training.Settled(made), fill)
    training.assert_same_bits(training.everything(made), training.everything(whole))
    resumed = training.trainer(os.path.join(directory, "ckpt"), kept={"every_steps": 3})
    fit(resumed)
    training.assert_same_bits(training.everything(resumed), training.everything(whole))
    checkpoints = sorted(os.listdir(os.path.join(directory, "ckpt")))
    said = [str(one.message) for one in warned]
    print(json.dumps({"room": fill.room, "warnings": said, "checkpoints": checkpoints}))


if __name__ == "__main__":
    main(sys.argv[1])

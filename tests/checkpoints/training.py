"""Small trainings that are interrupted, and everything that a checkpoint should bring back."""

import keras
import numpy as np
import tensorflow as tf

import disttrain
from disttrain.checkpoints.state import State

ROWS, FEATURES, CLASSES, BATCH = 44, 5, 3, 4
_RNG = np.random.default_rng(5)
X = _RNG.standard_normal((ROWS, FEATURES)).astype(np.float32)
Y = _RNG.integers(0, CLASSES, ROWS).astype(np.int32)
#: Batches of an epoch.
STEPS = ROWS // BATCH


def build():
    """A model with dropout and statistics."""
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(7, "tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4, seed=3),
            keras.layers.Dense(CLASSES),
        ]
    )


def build_plain():
    """A model without random numbers or statistics, which trains alike on any replicas."""
    return keras.Sequential(
        [keras.Input((FEATURES,)), keras.layers.Dense(7, "tanh"), keras.layers.Dense(CLASSES)]
    )


def shuffled(repeat=False):
    """A dataset whose order is another one in each pass."""
    made = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(16, seed=7).batch(BATCH)
    return made.repeat() if repeat else made


def schedule():
    return keras.optimizers.schedules.ExponentialDecay(0.02, 5, 0.8)


def trainer(directory=None, model=build, **options):
    """A trainer with Adam, a schedule, a loss scale, a clip and metrics."""
    options = {
        "optimizer": lambda: keras.optimizers.Adam(schedule()),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
        "replication": "single",
        "loss_scale": "dynamic",
        "clip": disttrain.ClipByGlobalNorm(0.5),
        **options,
    }
    if callable(options["optimizer"]):
        options["optimizer"] = options["optimizer"]()
    kept = {"every_steps": 4, **options.pop("kept", {})}
    if directory is not None:
        options["checkpoint"] = disttrain.Checkpoint(directory, **kept)
    return disttrain.Trainer(model, **options)


class Interrupted(Exception):
    """What stops a training in the middle."""


class StopAfter(keras.callbacks.Callback):
    """Raises after so many batches of this process."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_begin(self, batch, logs=None):
        self._first = batch

    def on_train_batch_end(self, batch, logs=None):
        # An execution may take several.
        self.left -= batch - self._first + 1
        if self.left <= 0:
            raise Interrupted


class Settled(keras.callbacks.Callback):
    """Waits for the writer after each batch, so that no checkpoint is late on a slow disk."""

    def __init__(self, made):
        super().__init__()
        self.run = made._run

    def on_train_batch_begin(self, batch, logs=None):
        self.run._writer.wait()


def everything(made):
    """All state of a trainer, key to array; a replica's own under its number."""
    state = State(made._task, made._train_step)
    equal, own = state.copy()
    found = {key: array.copy() for key, array in equal.items()}
    for replica, one in enumerate(own):
        found |= {f"{replica}/{key}": array.copy() for key, array in one.items()}
    return found


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype, key
        np.testing.assert_array_equal(one[key].tobytes(), other[key].tobytes(), err_msg=key)


def interrupt(fit, make, directory, batches):
    """Trains until the given number of batches, and throws the trainer away."""
    made = make(directory)
    try:
        fit(made, [StopAfter(batches), Settled(made)])
    except Interrupted:
        return
    raise AssertionError(f"the training was over before batch {batches}")

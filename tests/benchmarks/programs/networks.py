"""The networks that peers train, with their data: two of those in `tests/benchmarks/models.py`.

Written for any Keras, which is handed in; NumPy alone besides. `ddp.py` has the same for PyTorch.
"""

import os

import numpy as np

#: Environment variable with the examples of one process in a step, 64 without it.
SIZE = "BENCHMARK_BATCH"

#: Examples of one process in a step, different batches, and classes.
BATCH, BATCHES, CLASSES = int(os.environ.get(SIZE, 64)), 16, 10

#: Shape of an example.
SHAPES = {"mlp": (256,), "convnet": (8, 8, 1), "tiny": (8,)}

#: Numbers that are trained.
PARAMETERS = {"mlp": 20 * (256 + 1) * 256 + (256 + 1) * 10, "convnet": 94_314, "tiny": 234}

#: Hidden dense layers.
LAYERS = {"mlp": 20, "tiny": 2}


def data(name, processes=1, first=0):
    """Arrays of shape `[batches, batch, ...]` with a batch for each of so many processes.

    Args:
        name: A name of `SHAPES`.
        processes: How many of them share a batch.
        first: Number of the first of them.
    """
    of_each = []
    for process in range(first, first + processes):
        rng = np.random.default_rng(process)
        x = rng.normal(size=(BATCHES, BATCH, *SHAPES[name])).astype(np.float32)
        of_each.append((x, rng.integers(0, CLASSES, (BATCHES, BATCH), dtype=np.int32)))
    return tuple(np.concatenate(arrays, axis=1) for arrays in zip(*of_each, strict=True))


def build(keras, name):
    """The network as a `keras.Model` of logits."""
    layers = keras.layers
    if name == "convnet":
        hidden = [
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
        ]
    else:
        (width,) = SHAPES[name]
        hidden = [layers.Dense(width, activation="relu") for _ in range(LAYERS[name])]
    model = keras.Sequential([keras.Input(SHAPES[name]), *hidden, layers.Dense(CLASSES)])
    assert model.count_params() == PARAMETERS[name], model.count_params()
    return model


def checksum(arrays):
    """What is equal on all processes where they train together, a float."""
    return float(sum(np.abs(np.asarray(array, np.float64)).sum() for array in arrays))

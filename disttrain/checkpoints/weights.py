"""Weights out of a checkpoint, and whole models into files, without a training around them."""

import os

from disttrain.checkpoints import bundle
from disttrain.checkpoints.options import Checkpoint
from disttrain.checkpoints.store import Store
from disttrain.optimizers.unwrapping import without_wrapper


def load_weights(model, directory, which="newest", best=None, best_mode="auto"):
    """Gives a model the weights of a checkpoint.

    Args:
        model: A built `keras.Model` with the same variables, in the same order.
        directory: The checkpoint directory.
        which: `"newest"`, `"best"`, or the name of a checkpoint in it, such as `"step-00000500"`.
        best: For `"best"`: as for `disttrain.Checkpoint`.
        best_mode: As for `disttrain.Checkpoint`.

    Returns:
        The step of the checkpoint.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        Damaged: It is not as it was written.
        ValueError: The model has other variables, or `best` is missing.
    """
    if which == "best" and best is None:
        raise ValueError("say which metric was watched, such as best='val_loss'")
    store = Store(Checkpoint(directory, best=best, best_mode=best_mode))
    names = store.names()
    name = {"newest": names[-1] if names else None, "best": store.best()}.get(which, which)
    if name not in names:
        raise FileNotFoundError(
            f"there is no checkpoint {which!r} in {store.directory!r}; it holds "
            f"{', '.join(names) or 'none'}"
        )
    folder = os.path.join(store.directory, name)
    manifest = bundle.verify(folder)
    entries = [e for e in manifest["variables"] if e["key"].startswith("model/")]
    shapes = [tuple(entry["shape"]) for entry in entries]
    if shapes != [tuple(variable.shape) for variable in model.variables]:
        raise ValueError(
            f"the model has other variables than {folder!r}: shapes "
            f"{[tuple(v.shape) for v in model.variables]} where {shapes} were saved"
        )
    tensors = bundle.read(folder)
    for entry, variable in zip(entries, model.variables, strict=True):
        own = f"replica/0/{entry['key']}"
        variable.assign(tensors[own if own in tensors else entry["key"]])
    return manifest["step"]


def export(model, path):
    """Saves a whole model as a `.keras` file, which is there complete or not at all.

    The file needs no disttrain to be loaded: it holds the inner optimizer of a
    `DistributedOptimizer` with its state, and Keras's own of the wrapper's clips and loss scales.
    Where the inner optimizer, or its learning rate, is not Keras's own either, the model is saved
    without optimizer, to be compiled after loading.

    Args:
        model: A `keras.Model`.
        path: The file; its name ends in `.keras`.

    Raises:
        ValueError: The name does not.
        OSError: It cannot be written.
    """
    path = os.path.abspath(os.fspath(path))
    if not path.endswith(".keras"):
        raise ValueError(f"the name of the file must end in .keras, not {path!r}")
    directory, name = os.path.split(path)
    os.makedirs(directory, exist_ok=True)
    beside = os.path.join(directory, f".writing-{os.getpid()}-{name}")
    try:
        with without_wrapper(model):
            model.save(beside)
        bundle.flush_path(beside)
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.remove(beside)
    bundle.flush_path(directory)

"""One run: a training with one optimizer and one seed, its files, and what is kept of it.

`compare` and `search` call it on every process. The chief alone writes; all get its record.
"""

import copy
import dataclasses
import hashlib
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable

import keras
import numpy as np

from disttrain.checkpoints import Checkpoint, exchange
from disttrain.experiments.shared import hparams, sources
from disttrain.trainer import Trainer

VERSION = 1

#: How a run may end.
FINISHED, DIVERGED, PRUNED = "finished", "diverged", "pruned"

_RECORD = "run.json"
_CHECKPOINT = "checkpoint"

#: What a training says that stops because nothing is finite any more (`loop.py`, `skips.py`).
_NOT_FINITE = ("the loss was NaN or infinite in every one", "steps in a row were skipped")

#: How the warning of a finding begins and ends.
_FINDING = r"(?s).*disttrain\.Telemetry\(warnings=False\) is silent"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all runs of an experiment share.

    Attributes:
        build_model: A function without arguments that returns a `keras.Model`.
        data: A function from a seed to `(train, validation)`.
        loss: As for `disttrain.Trainer`.
        metrics: The same.
        epochs: Epochs of a run.
        batch_size: Global batch size for arrays, or `None`.
        replication: A `Replication`.
        trainer: Further arguments of `disttrain.Trainer`.
        fit: Further arguments of its `fit`.
        callbacks: A function that returns new Keras callbacks for a run, or `None`.
        checkpoint_seconds: Seconds between two checkpoints of a run.
    """

    build_model: Callable
    data: Callable
    loss: object
    metrics: object
    epochs: int
    batch_size: int | None
    replication: object
    trainer: dict = dataclasses.field(default_factory=dict)
    fit: dict = dataclasses.field(default_factory=dict)
    callbacks: Callable | None = None
    checkpoint_seconds: float = 30.0


def finished(folder):
    """The record of a run that is over, or `None`; on the chief.

    Args:
        folder: The run's directory, or `None`.

    Raises:
        ValueError: The file is of a later version, or no record.
    """
    if folder is None or not os.path.exists(os.path.join(folder, _RECORD)):
        return None
    path = os.path.join(folder, _RECORD)
    try:
        with open(path) as file:
            record = json.load(file)
        version = record["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path!r} is no record of a run ({error}); remove it") from None
    if version != VERSION:
        raise ValueError(f"{path!r} is of version {version}, this is {VERSION}; remove it")
    return record


def train(setting, name, make_optimizer, seed, folder=None, hyperparameters=None, watch=()):
    """Trains, or goes on with a run that was interrupted. Called by every process.

    Args:
        setting: A `Setting`.
        name: Name of the optimizer, or of the trial.
        make_optimizer: A function that returns a new Keras optimizer.
        seed: The run's seed: of the initial weights, the order of arrays, and all else that is
            drawn.
        folder: The run's directory, or `None` to write nothing.
        hyperparameters: What TensorBoard's HParams page shows of the run, name to value.
        watch: Functions of the trainer that return callbacks, such as those that prune.

    Returns:
        The record, JSON values, the same on every process: `optimizer`, `seed`, `state`, `reason`,
        `initial_weights` (a digest), `findings` of the health rules, and lists with an entry for
        each epoch: `steps` and `seconds` (both from the beginning; seconds of training without
        validation), and `history`, the name of each scalar in the logs to its values, `None` where
        one was not finite.
    """
    replication = setting.replication
    chief = folder is not None and replication.is_chief
    resumes = exchange.told_by_chief(replication, lambda: _prepared(folder))
    if chief and not resumes:
        hparams.write_start(folder, name, hyperparameters or {"optimizer": name})
    # What each optimizer draws while it is made must change neither data nor weights.
    keras.utils.set_random_seed(seed)
    data, validation = setting.data(seed)
    keras.utils.set_random_seed(seed)
    optimizer = make_optimizer()

    def build():
        keras.utils.set_random_seed(seed)
        return setting.build_model()

    options = dict(setting.trainer)
    for stateful in ("clip", "loss_scale"):
        if stateful in options:
            options[stateful] = copy.deepcopy(options[stateful])
    if folder is not None:
        options["logdir"] = folder
        options["checkpoint"] = Checkpoint(
            os.path.join(folder, _CHECKPOINT), every_seconds=setting.checkpoint_seconds, keep=1
        )
    with warnings.catch_warnings():
        # The run's own file, with what the HParams page shows.
        warnings.filterwarnings("ignore", message="the log directory .* already holds a run")
        trainer = Trainer(
            build,
            optimizer=optimizer,
            loss=setting.loss,
            metrics=_fresh(setting.metrics),
            replication=replication,
            seed=seed,
            **options,
        )
    diary = Diary(trainer)
    own = setting.callbacks() if setting.callbacks is not None else []
    own = keras.tree.flatten(own if own is not None else [])
    watching = [made(trainer) for made in watch]
    state, reason = FINISHED, None
    try:
        with warnings.catch_warnings():
            # The record has them, with the run that they are about.
            warnings.filterwarnings("ignore", message=_FINDING)
            trainer.fit(
                **sources.fit_arguments(data),
                validation_data=validation,
                batch_size=setting.batch_size,
                epochs=setting.epochs,
                verbose=0,
                callbacks=[diary, *own, *watching],
                **setting.fit,
            )
    except RuntimeError as error:
        if not any(words in str(error) for words in _NOT_FINITE):
            raise
        state, reason = DIVERGED, str(error)
    for watcher in watching if state == FINISHED else ():
        state, reason = watcher.verdict() or (state, reason)
    record = {
        "version": VERSION,
        "optimizer": name,
        "seed": seed,
        "state": state,
        "reason": reason,
        "replicas": replication.replicas,
        "findings": [f"{found.severity}: {found.message}" for found in trainer.findings],
        **diary.get_state(),
    }
    # Times and reasons differ between processes; the chief's are the run's.
    record = exchange.told_by_chief(replication, lambda: _kept(record, folder))
    if chief:
        hparams.write_end(folder, record["state"] == FINISHED)
    return record


class Diary(keras.callbacks.Callback):
    """Keeps what a run was, through interruptions too.

    Args:
        trainer: A `Trainer`.
    """

    def __init__(self, trainer):
        super().__init__()
        self._trainer = trainer
        self._initial = None
        self._steps, self._seconds, self._history = [], [], {}
        self._before = 0.0
        self._began = None

    def on_train_begin(self, logs=None):
        digest = hashlib.blake2b(digest_size=8)
        for variable in self._trainer.model.variables:
            digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
        self._initial = digest.hexdigest()

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()

    def on_test_begin(self, logs=None):
        self._pause()

    def on_epoch_end(self, epoch, logs=None):
        self._pause()
        self._steps.append(int(self._trainer.optimizer.iterations.numpy()))
        self._seconds.append(self._before)
        for name, value in (logs or {}).items():
            if np.ndim(value) == 0:
                value = float(value)
                self._history.setdefault(name, []).append(value if math.isfinite(value) else None)

    def get_state(self):
        """JSON values."""
        return {
            "initial_weights": self._initial,
            "steps": list(self._steps),
            "seconds": list(self._seconds),
            "history": {name: list(values) for name, values in self._history.items()},
            "training_seconds": self._before + self._running(),
        }

    def set_state(self, state):
        """Goes on from what `get_state` has returned."""
        self._initial = state["initial_weights"]
        self._steps, self._seconds = list(state["steps"]), list(state["seconds"])
        self._history = {name: list(values) for name, values in state["history"].items()}
        self._before = state["training_seconds"]

    def _running(self):
        return 0.0 if self._began is None else time.perf_counter() - self._began

    def _pause(self):
        self._before, self._began = self._before + self._running(), None


def write_json(path, content):
    """Writes a file so that it is there whole or not at all."""
    beside = f"{path}.{os.getpid()}.writing"
    with open(beside, "w") as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _prepared(folder):
    """Makes a run's directory; whether there is a checkpoint in it to go on from."""
    if folder is None:
        return False
    checkpoints = os.path.join(folder, _CHECKPOINT)
    if os.path.isdir(checkpoints) and any(n.startswith("step-") for n in os.listdir(checkpoints)):
        return True
    # What a run has left that had not come to its first checkpoint.
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return False


def _kept(record, folder):
    if folder is not None:
        write_json(os.path.join(folder, _RECORD), record)
        shutil.rmtree(os.path.join(folder, _CHECKPOINT), ignore_errors=True)
    return record


def _fresh(metrics):
    """Metrics that no run has used."""
    if metrics is None or (callable(metrics) and not isinstance(metrics, keras.metrics.Metric)):
        return metrics

    def renewed(metric):
        if isinstance(metric, keras.metrics.Metric):
            return type(metric).from_config(metric.get_config())
        return metric

    return keras.tree.map_structure(renewed, metrics)

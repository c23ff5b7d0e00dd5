"""What checkpoints do on several replicas; `test_checkpoints.py` compares the results."""

import json
import os
import pathlib
import signal

import keras
import numpy as np

import disttrain
from disttrain.checkpoints.lock import Lock
from disttrain.checkpoints.signals import Preempted
from disttrain.checkpoints.state import State
from tests.distributed import checks

#: 41 examples in batches of 8 make 6 steps an epoch.
EPOCHS, STEPS = 3, 18


def build():
    return keras.Sequential(
        [
            keras.Input((checks.FEATURES,)),
            keras.layers.Dense(12, "tanh", kernel_initializer=keras.initializers.GlorotUniform(1)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3, seed=4),
            keras.layers.Dense(checks.CLASSES, name="own_head"),
        ]
    )


def trainer(replication, directory=None, model=build, local=(), **options):
    inner = keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.02, 5, 0.8))
    optimizer = disttrain.DistributedOptimizer(
        inner,
        clip=disttrain.ClipByGlobalNorm(0.5),
        loss_scale="dynamic",
        local_variables=local,
        replication=replication,
    )
    kept = {"every_steps": 4, "keep": 9, **options.pop("kept", {})}
    if directory is not None:
        options["checkpoint"] = disttrain.Checkpoint(directory, **kept)
    return disttrain.Trainer(
        model,
        optimizer=optimizer,
        loss=checks.loss(),
        metrics=["accuracy"],
        replication=replication,
        **options,
    )


def shuffled():
    return checks.dataset(41).unbatch().shuffle(20, seed=2).batch(checks.BATCH)


class At(keras.callbacks.Callback):
    """Calls a function after one batch of this process."""

    def __init__(self, batch, function):
        super().__init__()
        self.left, self.function = batch, function

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.function()


class Settled(keras.callbacks.Callback):
    """Waits for the writer after each batch, so that no checkpoint is late on a slow disk."""

    def __init__(self, made):
        super().__init__()
        self.run = made._run

    def on_train_batch_begin(self, batch, logs=None):
        self.run._writer.wait()


class Interrupted(Exception):
    """What stops a training on all processes."""


def interrupt():
    raise Interrupted


def fit(made, *callbacks):
    return made.fit(shuffled(), epochs=EPOCHS, verbose=0, callbacks=list(callbacks))


def everything(made):
    """All state of this process, in order, as one float64 array, which holds each value exactly."""
    equal, own = State(made._task, made._train_step).copy()
    arrays = [*equal.values(), *(array for one in own for array in one.values())]
    return np.concatenate([np.asarray(array).ravel().astype(np.float64) for array in arrays])


def interrupted(replication, directory, **options):
    """A training of which checkpoints are left; every process comes back from it."""
    made = trainer(replication, directory, **options)
    try:
        fit(made, At(15, interrupt), Settled(made))
    except Interrupted:
        replication.any(False)
        return
    raise AssertionError("the training was not interrupted")


def best():
    """Brings the weights of the first epoch back at the end, whose loss is the largest."""
    return keras.callbacks.EarlyStopping("loss", mode="max", patience=9, restore_best_weights=True)


def names(replication, directory):
    """The checkpoints, as every process sees them on one file system."""
    replication.any(False)
    found = sorted(name for name in os.listdir(directory) if name.startswith("step-"))
    replication.any(False)
    return found


def resume(replication, folder):
    """All state of a resumed training, and of one that was never interrupted.

    Each replica keeps a layer for itself.
    """
    directory, own = os.path.join(folder, "ckpt"), {"local": ["*own_head*"]}
    whole = trainer(replication, os.path.join(folder, "whole"), **own)
    history = fit(whole)
    interrupted(replication, directory, **own)
    found = names(replication, directory)
    resumed = trainer(replication, directory, **own)
    continued = fit(resumed)
    head = resumed.model.layers[-1].kernel
    return {
        "names": found,
        "whole": everything(whole),
        "resumed": everything(resumed),
        "whole_loss": history.history["loss"],
        "resumed_loss": continued.history["loss"],
        "steps": resumed._log.steps_done,
        "iterations": resumed.optimizer.iterations.numpy(),
        "head": disttrain.replication.replica_value(head).numpy(),
    }


def several_steps(replication, folder):
    """Several steps an execution, and accumulation, with a wish to stop in between."""
    directory = os.path.join(folder, "ckpt")
    options = {"steps_per_execution": 2, "model": checks.build}
    whole = trainer(replication, os.path.join(folder, "whole"), **options)
    fit(whole)
    last = replication.topology.processes - 1
    made = trainer(replication, directory, **options)

    def send():
        if replication.topology.process == last:
            os.kill(os.getpid(), signal.SIGTERM)

    code = _preempted(made, At(4, send))
    resumed = trainer(replication, directory, **options)
    fit(resumed)
    return {"code": code, "whole": everything(whole), "resumed": everything(resumed)}


def preempt(replication, folder):
    """One process is told to stop; all save at one step, stop, and go on later."""
    directory = os.path.join(folder, "ckpt")
    whole = trainer(replication, os.path.join(folder, "whole"))
    fit(whole, best())
    last = replication.topology.processes - 1
    made = trainer(replication, directory, kept={"every_steps": 1000})

    def send():
        if replication.topology.process == last:
            os.kill(os.getpid(), signal.SIGUSR1)

    code = _preempted(made, At(8, send), best())
    step = made._log.steps_done
    found = json.loads(pathlib.Path(directory, "status.json").read_text())
    replication.any(False)
    resumed = trainer(replication, directory)
    fit(resumed, best())
    return {
        "code": code,
        "step": step,
        "status": found["status"],
        "status_step": found["step"],
        "whole": everything(whole),
        "resumed": everything(resumed),
    }


def _preempted(made, *callbacks):
    try:
        fit(made, *callbacks)
    except Preempted as stopped:
        return stopped.code
    return 0


def by_the_clock(replication, folder):
    """Checkpoints every so many seconds, which the chief's clock decides for all."""
    directory = os.path.join(folder, "ckpt")
    kept = {"every_steps": None, "every_seconds": 0.001}
    made = trainer(replication, directory, kept=kept)
    fit(made)
    return {"names": names(replication, directory)}


def refusals(replication, folder):
    """What every process is told when the chief finds something wrong."""
    directory = os.path.join(folder, "ckpt")
    interrupted(replication, directory)

    def said(*arguments, **options):
        try:
            fit(trainer(*arguments, **options))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"

    other = said(replication, directory, model=checks.build)
    lock = Lock(directory)
    if replication.is_chief:
        lock.acquire()
    replication.any(False)
    in_use = said(replication, directory)
    lock.release()
    for name in names(replication, directory):
        if replication.is_chief:
            os.truncate(os.path.join(directory, name, "state.index"), 3)
    replication.any(False)
    damaged = said(replication, directory)
    return {"changed": other, "in_use": in_use, "damaged": damaged}


CHECKS = {
    "checkpoint-resume": resume,
    "checkpoint-several-steps": several_steps,
    "checkpoint-preempt": preempt,
    "checkpoint-by-the-clock": by_the_clock,
    "checkpoint-refusals": refusals,
}

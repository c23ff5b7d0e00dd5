"""The directory of an experiment: who may use it, and one configuration for all of its runs."""

import contextlib
import json
import os
import time

import keras

from disttrain.checkpoints import exchange
from disttrain.checkpoints.lock import InUse, Lock
from disttrain.experiments.shared import facts, runs

_PLAN = "plan.json"

#: Names to which a later call may add: what is there keeps its meaning.
_GROWING = ("optimizers",)


def plan_of(setting, data, validation_data):
    """What the runs of an experiment have in common, as JSON values.

    Args:
        setting: The `runs.Setting`.
        data: What the user gave.
        validation_data: The same.
    """
    keras.utils.set_random_seed(0)
    with setting.replication.scope():
        model = setting.build_model()
    if not isinstance(model, keras.Model):
        raise TypeError(f"build_model must return a keras.Model, not {type(model).__name__}")
    shared = shared_plan(setting, data, validation_data)
    return {"version": runs.VERSION, "model": facts.of_model(model), **shared}


def shared_plan(setting, data, validation_data):
    """The same without what the model is."""
    return {
        "data": facts.described(data),
        "validation_data": facts.described(validation_data),
        "loss": facts.described(setting.loss),
        "metrics": facts.described(setting.metrics),
        "epochs": setting.epochs,
        "batch_size": setting.batch_size,
        "replication": [setting.replication.name, setting.replication.replicas],
        "options": facts.described({**setting.trainer, **setting.fit}),
    }


@contextlib.contextmanager
def held(directory, plan, replication):
    """Keeps other jobs out of the directory, and other configurations. For every process.

    Args:
        directory: The directory, or `None`.
        plan: What the runs have in common, JSON values.
        replication: A `Replication`.

    Raises:
        ValueError: The directory holds runs of another configuration.
        RuntimeError: Another job uses it.
    """
    if directory is None:
        yield
        return
    lock = Lock(directory)
    try:
        exchange.told_by_chief(replication, lambda: _open(directory, lock, plan))
        yield
    finally:
        lock.release()


def _open(directory, lock, plan):
    os.makedirs(directory, exist_ok=True)
    try:
        lock.acquire()
    except InUse as error:
        raise RuntimeError(
            str(error).replace("checkpoint directory", "directory of experiments")
        ) from None
    agree(directory, plan)


@contextlib.contextmanager
def alone_in(directory, seconds=120.0):
    """Waits until no other job that shares the directory is here.

    Raises:
        RuntimeError: One has not left after so many seconds.
    """
    os.makedirs(directory, exist_ok=True)
    lock, end = Lock(directory), time.monotonic() + seconds
    while True:
        try:
            lock.acquire()
            break
        except InUse as error:
            if time.monotonic() > end:
                raise RuntimeError(
                    str(error).replace("checkpoint directory", "directory of experiments")
                ) from None
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.release()


def agree(directory, plan):
    """Compares a plan with the directory's, and writes what it adds; on the chief.

    Raises:
        ValueError: They differ; the message lists how.
    """
    path = os.path.join(directory, _PLAN)
    plan = json.loads(json.dumps(plan))
    if os.path.exists(path):
        try:
            with open(path) as file:
                before = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path!r} cannot be read ({error}); take another directory") from None
        for key in _GROWING:
            if key in plan and key in before:
                plan[key] = {**before[key], **plan[key]}
                added = {k: v for k, v in plan[key].items() if k not in before[key]}
                before[key] = {**before[key], **added}
        found = facts.differences(before, plan)
        if found:
            raise ValueError(
                f"the directory {directory!r} holds runs of another configuration: "
                f"{facts.listed(found)}. Bring it back to what it was, or take another directory"
            )
    runs.write_json(path, plan)

"""Checkpoints: what is saved, how it survives faults, and how a training goes on from it."""

import importlib

from disttrain.checkpoints.options import Checkpoint

#: Imported when they are used, for they need TensorFlow.
_HOMES = {"Preempted": "signals", "export": "weights", "load_weights": "weights"}

__all__ = ["Checkpoint", *_HOMES]


def __getattr__(name):
    if name in _HOMES:
        home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
        return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

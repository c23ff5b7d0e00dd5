"""Runs Keras's own tests with every optimizer inside a `DistributedOptimizer`.

A pytest plugin: `pytest -p tests.keras_suite.plugin --pyargs keras.src.optimizers`. Names of
optimizer classes in Keras's test modules then make the optimizer and wrap it, and `Model.compile`
wraps what is handed to it. `DISTTRAIN_REPORT` names the JSON file that gets each test's outcome.
`DISTTRAIN_UNWRAPPED=1` leaves Keras as it is, to tell a test that fails on this machine anyway.
"""

import functools
import importlib.util
import json
import os
import pathlib
import sys
import types

import keras

import disttrain

# Imported before Keras's classes are replaced, on which it builds.
DistributedOptimizer = disttrain.DistributedOptimizer

_OUTCOMES, _NAMES = {}, {}

# Keras's test modules import it even where the tests of TensorFlow do not use it.
if importlib.util.find_spec("jax") is None:
    sys.modules["jax"] = types.ModuleType("jax")


def _wrapped(optimizer):
    bare = isinstance(optimizer, keras.optimizers.Optimizer) and not isinstance(
        optimizer, DistributedOptimizer
    )
    return DistributedOptimizer(optimizer) if bare else optimizer


class _Wrapping(type):
    """The type of a class that stands for an optimizer's, and makes wrapped ones."""

    def __call__(cls, *args, **kwargs):
        return _wrapped(cls.original(*args, **kwargs))

    def __instancecheck__(cls, instance):
        return isinstance(instance, cls.original)

    def __subclasscheck__(cls, subclass):
        return issubclass(subclass, cls.original)

    def __getattr__(cls, name):
        return getattr(type.__getattribute__(cls, "original"), name)


def _stand_in(cls):
    return _Wrapping(cls.__name__, (), {"original": cls, "__module__": cls.__module__})


def _is_optimizer(value):
    base = keras.optimizers.Optimizer
    return (
        isinstance(value, type) and issubclass(value, base) and value.__module__ != base.__module__
    )


def _replace_optimizers(module):
    for name, value in list(vars(module).items()):
        if _is_optimizer(value) and value is not DistributedOptimizer:
            setattr(module, name, _stand_in(value))


def _wrap_in_compile():
    compile = keras.Model.compile

    @functools.wraps(compile)
    def wrapping(self, optimizer="rmsprop", *args, **kwargs):
        if isinstance(optimizer, (str, dict)):
            optimizer = keras.optimizers.get(optimizer)
        return compile(self, _wrapped(optimizer), *args, **kwargs)

    keras.Model.compile = wrapping
    keras.src.trainers.trainer.Trainer.compile = wrapping


def pytest_collection_finish(session):
    tests = {item.module.__name__ for item in session.items}
    # Where Keras is installed does not matter.
    for item in session.items:
        file = item.module.__name__.rpartition(".")[2]
        _NAMES[item.nodeid] = "::".join([file, *item.nodeid.split("::")[1:]])
    if os.environ.get("DISTTRAIN_UNWRAPPED"):
        return
    public = ("keras.optimizers", "keras.src.optimizers")
    for name in (*sorted(tests), *public):
        _replace_optimizers(sys.modules[name])
    _wrap_in_compile()


def pytest_runtest_logreport(report):
    name = _NAMES[report.nodeid]
    if report.failed:
        _OUTCOMES[name] = {"outcome": "failed", "why": str(report.longrepr)[-2000:]}
    elif report.when == "call" or report.skipped:
        _OUTCOMES.setdefault(name, {"outcome": report.outcome})


def pytest_sessionfinish():
    if "DISTTRAIN_REPORT" in os.environ:
        pathlib.Path(os.environ["DISTTRAIN_REPORT"]).write_text(json.dumps(_OUTCOMES))

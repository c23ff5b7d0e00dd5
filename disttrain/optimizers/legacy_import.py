"""Imports modules that were written for Keras 2, beside Keras 3.

In such a module, and nowhere else, `tf.keras` and `keras` mean `tf_keras`: each module gets an
`import` statement of its own, so that the process's TensorFlow and Keras are never touched, not
even for a moment, and other threads see nothing. `addons.py` imports TensorFlow Addons this way.
"""

import builtins
import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import sys
import types


def import_legacy(module):
    """Imports a module that was written for Keras 2.

    The module, and its own submodules, see `tf_keras` where they say `tf.keras` or `keras`.
    Everything else goes on seeing Keras 3.

    ```python
    mine = disttrain.optimizers.legacy.import_legacy("my_project.optimizers")
    optimizer = disttrain.optimizers.from_legacy(mine.MyOptimizer(learning_rate=0.1))
    ```

    Args:
        module: The full name of a module or a package, a string.

    Returns:
        The module.

    Raises:
        RuntimeError: tf-keras is not installed.
        ValueError: The module was imported before, with Keras 3.
        ModuleNotFoundError: There is no such module.
    """
    before = sys.modules.get(module)
    if before is not None and not isinstance(before.__loader__, _LegacyLoader):
        raise ValueError(
            f"{module!r} has been imported already, with Keras 3; call import_legacy({module!r}) "
            "before anything else imports it"
        )
    with _legacy_finder(module):
        return importlib.import_module(module)


def tf_keras():
    """The `tf_keras` package.

    Raises:
        RuntimeError: tf-keras is not installed.
    """
    if importlib.util.find_spec("tf_keras") is None:
        raise RuntimeError(
            "tf-keras, which holds the optimizers of Keras 2, is not installed; run "
            "pip install 'disttrain[addons]'"
        )
    return importlib.import_module("tf_keras")


class _StandIn(types.ModuleType):
    """Has the attributes of another module, but for those that are set on it."""

    def __init__(self, module, **changed):
        super().__init__(module.__name__, module.__doc__)
        self.__dict__.update(changed, _module=module)

    def __getattr__(self, name):
        return getattr(self.__dict__["_module"], name)


@functools.cache
def _tensorflow():
    import tensorflow

    return _StandIn(tensorflow, keras=tf_keras())


@functools.cache
def _importlib():
    def find_spec(name, package=None):
        # The real one would import tensorflow.keras once more, and put that into tf.keras.
        if f"{name}.".startswith("tensorflow.keras."):
            name = name.replace("tensorflow.keras", "tf_keras", 1)
        return importlib.util.find_spec(name, package)

    return _StandIn(importlib, util=_StandIn(importlib.util, find_spec=find_spec))


def _import(name, globals=None, locals=None, fromlist=(), level=0):
    """What `import` does in a module that was written for Keras 2."""
    if level == 0:
        if name.partition(".")[0] == "keras":
            return builtins.__import__(f"tf_{name}", globals, locals, fromlist)
        if name == "tensorflow" or f"{name}.".startswith("tensorflow.keras."):
            return _resolve(_tensorflow(), name, fromlist)
        if name in ("importlib", "importlib.util"):
            return _resolve(_importlib(), name, fromlist)
    return builtins.__import__(name, globals, locals, fromlist, level)


def _resolve(package, name, fromlist):
    """`import a.b` binds a, `from a.b import c` asks for a.b."""
    return functools.reduce(getattr, name.split(".")[1:], package) if fromlist else package


class _LegacyLoader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
        super().exec_module(module)


class _LegacyFinder:
    def __init__(self, module):
        self._prefix = f"{module}."

    def find_spec(self, name, path=None, target=None):
        if not f"{name}.".startswith(self._prefix):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _LegacyLoader(spec.loader.name, spec.loader.path)
        return spec


@contextlib.contextmanager
def _legacy_finder(module):
    finder = _LegacyFinder(module)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)

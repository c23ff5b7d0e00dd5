"""Packages that only some functions need, which are imported when they are first called."""

import importlib


def needed(module, purpose, extra="experiments"):
    """Imports a module of an optional package.

    Args:
        module: Its name, such as `"scipy.stats"`.
        purpose: What needs it, the beginning of a sentence.
        extra: The extra of disttrain that brings the package.

    Raises:
        RuntimeError: The package is not installed, or does not load.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise RuntimeError(
            f"{purpose} needs {package}, which does not load ({error}): "
            f"pip install 'disttrain[{extra}]'"
        ) from error

"""Packages of the extra `experiments`, which are imported when they are first needed."""

import importlib


def needed(module, purpose):
    """Imports a module of an optional package.

    Args:
        module: Its name, such as `"scipy.stats"`.
        purpose: What needs it, the beginning of a sentence.

    Raises:
        RuntimeError: The package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise RuntimeError(
            f"{purpose} needs {package}, which does not load ({error}): "
            "pip install 'disttrain[experiments]'"
        ) from error

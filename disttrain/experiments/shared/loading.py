"""Finds what a command line names: `program.py:name` or `package.module:name`."""

import importlib
import importlib.util
import os
import sys


def find(text, default=None):
    """Loads an object of a Python file or module.

    Args:
        text: `file.py:name`, `package.module:name`, or either without a name where there is a
            default one. What the file does when it is imported is done.
        default: The name that is looked for where `text` has none.

    Raises:
        ValueError: There is no such file, module or name.
    """
    place, _, name = text.rpartition(":") if ":" in text else (text, "", "")
    name = name or default
    if not place or not name:
        raise ValueError(f"name an object as program.py:name or package.module:name, not {text!r}")
    module = _file(place) if place.endswith(".py") else _module(place)
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [n for n in vars(module) if not n.startswith("_")]
            raise ValueError(f"{place} has no {name!r}; it has {', '.join(sorted(known)[:20])}")
        found = getattr(found, part)
    return found


def _file(path):
    if not os.path.isfile(path):
        raise ValueError(f"there is no file {path!r}")
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    # A program finds what lies beside it, as when Python runs it.
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


def _module(name):
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise ValueError(f"there is no module {name!r}") from None

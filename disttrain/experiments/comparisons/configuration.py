"""A comparison in a file: TOML, or Python that defines what `compare` takes."""

import contextlib
import importlib
import inspect
import os
import runpy
import sys

import keras

import disttrain

#: Arguments of `compare` that a file may hold beside `build_model` (`model` in TOML), `data` and
#: `optimizers`.
SETTINGS = (
    "seeds",
    "loss",
    "metrics",
    "epochs",
    "batch_size",
    "validation_data",
    "monitor",
    "mode",
    "target",
    "baseline",
    "replication",
    "callbacks",
)

#: What a TOML file may hold besides: tables.
_TABLES = ("optimizers", "options")


class BadConfiguration(ValueError):
    """A configuration that cannot be used, with a sentence that says why."""


def read(path):
    """Reads a configuration.

    Args:
        path: A file whose name ends in `.toml` or `.py`.

    Returns:
        Arguments of `compare`, a dictionary.

    Raises:
        BadConfiguration: It cannot be read, or something is missing, unknown or wrong in it.
    """
    path = os.path.abspath(path)
    readers = {".toml": _from_toml, ".py": _from_python}
    ending = os.path.splitext(path)[1]
    if ending not in readers:
        raise BadConfiguration(f"{path!r} is no .toml or .py file")
    if not os.path.isfile(path):
        raise BadConfiguration(f"there is no file {path!r}")
    # Modules that the file names, or imports, lie beside it.
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found = readers[ending](path)
    found.setdefault("optimizers", {})
    if "loss" not in found:
        raise BadConfiguration(
            f"{path!r} does not say which loss; add loss = 'mean_squared_error', or another one"
        )
    return found


def _from_python(path):
    try:
        names = runpy.run_path(path, run_name="disttrain_configuration")
    except SyntaxError as error:
        raise BadConfiguration(f"{path!r} is no Python: {error}") from None
    missing = [name for name in ("build_model", "data", "optimizers") if name not in names]
    if missing:
        raise BadConfiguration(
            f"{path!r} does not define {', '.join(missing)}; a comparison needs build_model, data, "
            "optimizers and loss"
        )
    found = {
        name: names[name]
        for name in ("build_model", "data", "optimizers", *SETTINGS)
        if name in names
    }
    options = names.get("options", {})
    if not isinstance(options, dict):
        raise BadConfiguration(f"options in {path!r} must be a dictionary, not {options!r}")
    return {**found, **options}


def _from_toml(path):
    content = _parsed(path)
    known = ("model", "data", *_TABLES, *SETTINGS)
    for name in content:
        if name not in known:
            raise BadConfiguration(
                f"{path!r} has {name!r}, which means nothing; there are {', '.join(known)}"
            )
    for name in ("model", "data"):
        if name not in content:
            raise BadConfiguration(
                f"{path!r} does not say what {name} is; add {name} = 'module:function'"
            )
    for name in _TABLES:
        if not isinstance(content.get(name, {}), dict):
            raise BadConfiguration(f"{name} in {path!r} must be a table: [{name}.NAME]")
    if not content.get("optimizers"):
        raise BadConfiguration(
            f"{path!r} names no optimizer; add a table [optimizers.adam] with class = 'Adam'"
        )
    found = {name: content[name] for name in SETTINGS if name in content}
    found["build_model"] = named(content["model"], "model")
    found["data"] = named(content["data"], "data")
    for name in ("validation_data", "callbacks"):
        if name in found:
            found[name] = named(found[name], name)
    if callable(found.get("validation_data")):
        found["validation_data"] = found["validation_data"]()
    found["optimizers"] = {
        name: _optimizer(name, table) for name, table in content["optimizers"].items()
    }
    if "loss" in found:
        found["loss"] = _loss(found["loss"])
    options = content.get("options", {})
    return {**found, **{name: built(value, f"options.{name}") for name, value in options.items()}}


def _parsed(path):
    tomllib = _toml_reader(path)
    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadConfiguration(f"{path!r} is no TOML: {error}") from None


def _toml_reader(path):
    """Python's own reader, or, before 3.11, that of the package that it came from."""
    for name in ("tomllib", "tomli"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise BadConfiguration(
        f"{path!r} cannot be read: Python {sys.version_info[0]}.{sys.version_info[1]} has no "
        "reader for TOML; pip install tomli, or write the configuration in Python (a .py file)"
    )


def named(text, what):
    """What `"module:name"` stands for.

    Raises:
        BadConfiguration: There is none.
    """
    module, _, attribute = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not module or not attribute:
        raise BadConfiguration(
            f"{what} must be a text 'module:function', such as 'my_model:build', not {text!r}"
        )
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module}.".startswith(f"{error.name}."):
            raise  # Something that the module itself imports.
        raise BadConfiguration(
            f"{what} is {text!r}, but there is no module {module!r} beside the configuration or "
            "among the installed ones"
        ) from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise BadConfiguration(f"{what} is {text!r}, but {module!r} has no {attribute!r}")
        found = getattr(found, part)
    return found


def built(value, what):
    """A table with `class` as the object that it describes; other values as they are.

    Raises:
        BadConfiguration: There is no such class, or it does not take these settings.
    """
    if isinstance(value, list):
        return [built(one, what) for one in value]
    if not isinstance(value, dict):
        return value
    settings = {name: built(one, f"{what}.{name}") for name, one in value.items()}
    if "class" not in settings:
        return settings
    kind = _class(settings.pop("class"), what)
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise BadConfiguration(f"{what} cannot be made: {kind.__name__}: {error}") from None


def _class(name, what):
    if isinstance(name, str) and ":" in name:
        return named(name, f"{what}.class")
    for place in (
        keras.optimizers,
        disttrain.optimizers,
        keras.optimizers.schedules,
        disttrain.schedules,
        keras.losses,
        disttrain,
    ):
        found = getattr(place, name, None) if isinstance(name, str) else None
        if inspect.isclass(found):
            return found
    raise BadConfiguration(
        f"{what}.class is {name!r}, but neither Keras nor disttrain has an optimizer, a schedule, "
        "a loss or a clip of this name; write 'module:Class' for one of your own"
    )


def _optimizer(name, table):
    what = f"optimizers.{name}"
    if not isinstance(table, dict) or "class" not in table:
        raise BadConfiguration(
            f"{what} must be a table with class = 'Adam' and its settings, not {table!r}"
        )
    built(table, what)  # What is wrong is said before anything trains.
    return lambda: built(table, what)


def _loss(value):
    if isinstance(value, str) and ":" in value:
        return named(value, "loss")
    return built(value, "loss")

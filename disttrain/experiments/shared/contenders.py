"""What is compared: names of optimizers, and functions that make a fresh one for each run."""

import inspect
import re

import keras


def factories(optimizers):
    """From what a user gives to functions without arguments.

    Args:
        optimizers: Name to a function that returns a new optimizer, a class, Keras's configuration
            of one (`{"class_name": ..., "config": {...}}`), its name, or an optimizer that was
            never used, of which each run gets a copy.

    Returns:
        A dictionary of the same names, whose functions return Keras optimizers.

    Raises:
        TypeError: It is no dictionary, or a value is none of these.
        ValueError: It is empty, a name cannot name a directory, or an optimizer was used.
    """
    if not isinstance(optimizers, dict):
        raise TypeError(
            "optimizers must be a dictionary from names to optimizers, such as "
            f"{{'adam': lambda: keras.optimizers.Adam(1e-3)}}, not {optimizers!r}"
        )
    if not optimizers:
        raise ValueError("optimizers is empty; name at least one")
    folders = {}
    for name in optimizers:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"the name of an optimizer must be a text that is not empty: {name!r}")
        other = folders.setdefault(folder(name), name)
        if other != name:
            raise ValueError(
                f"the optimizers {other!r} and {name!r} would share the directory "
                f"{folder(name)!r}; give one another name"
            )
    return {name: _factory(name, value) for name, value in optimizers.items()}


def folder(name):
    """A name as the name of a directory."""
    kept = re.sub(r"[^A-Za-z0-9._=+-]+", "_", name).strip(".")
    return kept or "_"


def made(name, factory):
    """A new optimizer.

    Raises:
        TypeError: The function returned something else.
    """
    optimizer = factory()
    if isinstance(optimizer, (str, dict)):
        optimizer = keras.optimizers.get(optimizer)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"the function of optimizer {name!r} must return a new keras.optimizers.Optimizer, not "
            f"{optimizer!r}"
        )
    return optimizer


def _factory(name, value):
    if isinstance(value, keras.optimizers.Optimizer):
        if value.built:
            raise ValueError(
                f"optimizer {name!r} belongs to a model already; give a function that makes a new "
                "one"
            )
        kind, config = type(value), value.get_config()
        return lambda: kind.from_config(dict(config))
    if isinstance(value, (str, dict)):
        return lambda: _got(name, value)
    if callable(value):
        try:
            inspect.signature(value).bind()
        except TypeError as error:
            raise TypeError(
                f"the function of optimizer {name!r} is called without arguments ({error}); wrap "
                "it: lambda: ..."
            ) from None
        except ValueError:  # Some functions of C have no signature.
            pass
        return value
    raise TypeError(
        f"optimizer {name!r} must be a function that returns a new optimizer, Keras's "
        f"configuration of one, or its name, not {value!r}"
    )


def _got(name, value):
    try:
        return keras.optimizers.get(value)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"Keras makes no optimizer {name!r} of {value!r}: {error}") from None

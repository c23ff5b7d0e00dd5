"""What an experiment is, as JSON values, and what has changed since its directory was made."""

import dataclasses
import functools
import hashlib
import json
import math
import re

import keras
import numpy as np
import tensorflow as tf

#: What Python adds to the text of an object.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

#: Keras numbers names by what else the process has made, and refers to layers by them.
_NUMBERED = (
    "name",
    "input_layers",
    "output_layers",
    "inbound_nodes",
    "registered_name",
    "shared_object_id",
)

#: Differences that a message lists at most.
_MOST = 12


def described(value):
    """A value as JSON values that are equal when the value means the same.

    Args:
        value: JSON values, Keras objects, functions, arrays (told by a digest of their bytes),
            datasets (by their structure), and lists, tuples and dictionaries of them.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [described(one) for one in value]
    if isinstance(value, dict):
        return {str(k): described(v) for k, v in value.items() if k not in _NUMBERED}
    if isinstance(value, np.ndarray) or tf.is_tensor(value) or hasattr(value, "to_numpy"):
        return _digest(value)
    if isinstance(value, tf.data.Dataset):
        return f"dataset of {value.element_spec}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return {"class": type(value).__name__, **described(fields)}
    if isinstance(value, functools.partial):
        return {"function": described(value.func), "with": described([value.args, value.keywords])}
    if callable(getattr(value, "get_config", None)) and not isinstance(value, type):
        try:
            return {"class": type(value).__name__, **described(value.get_config())}
        except (NotImplementedError, TypeError, ValueError):
            return {"class": type(value).__name__}
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}:{value.__qualname__}"
    return _ADDRESS.sub("", repr(value))


def of_model(model):
    """The layers of a model with their settings, and the shapes of its variables."""
    try:
        layers = [described(layer) for layer in model._flatten_layers(include_self=False)]
    except AttributeError:
        layers = []
    shapes = [[list(v.shape), v.dtype] for v in model.variables]
    text = json.dumps([layers, shapes], sort_keys=True)
    return {
        "class": type(model).__name__,
        "layers": [layer.get("class") for layer in layers],
        "parameters": int(sum(math.prod(shape) for shape, _ in shapes)),
        "settings": hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
    }


def differences(before, now, name=""):
    """Where two JSON values differ, a list of sentences' parts: `"epochs was 3, now 5"`."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        pairs = [(f"{name}.{key}" if name else key, before.get(key), now.get(key)) for key in keys]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        numbered = enumerate(zip(before, now, strict=True))
        pairs = [(f"{name}[{number}]", *pair) for number, pair in numbered]
    else:
        return [] if before == now else [f"{name} was {before!r}, now {now!r}"]
    return [found for key, old, new in pairs for found in differences(old, new, key)]


def listed(found):
    """Differences as one sentence's part."""
    more = f"; and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return "; ".join(found[:_MOST]) + more


def _digest(value):
    array = np.ascontiguousarray(
        keras.ops.convert_to_numpy(value) if tf.is_tensor(value) else value
    )
    if array.dtype == object:
        return f"array of {array.shape} objects"
    digest = hashlib.blake2b(array.tobytes(), digest_size=8).hexdigest()
    return f"{array.dtype}{list(array.shape)} {digest}"

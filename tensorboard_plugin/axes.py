"""What the axes of a part's records are named, and where parts that differ have the same names.

Names come from metadata alone; records live in `partreader` and `joined`.
"""

import dataclasses
import math

import numpy as np

from tensorboard_plugin import metadata


@dataclasses.dataclass(frozen=True)
class Variable:
    """One variable of a run.

    Attributes:
        path: Its path, made unique with `#2`, `#3` where a model repeats one.
        shape: List of int.
        dtype: Name of its type, such as `"float32"`.
        trainable: Whether training changes it.
        slots: By slot name, an object with `dtype` and `bytes`.
        parameters: Number of elements.
    """

    path: str
    shape: list
    dtype: str
    trainable: bool
    slots: dict
    parameters: int


def describe_variables(part):
    """The `Variable`s of one part, in model order. Fields of the wrong type become empty ones."""
    # Every request asks, and of 10,000 variables it takes a while; a part never changes.
    if "described" not in vars(part):
        vars(part)["described"] = tuple(_describe(part))
    return vars(part)["described"]


def _describe(part):
    seen = {}
    for entry in part.variables:
        path = entry["path"]
        seen[path] = seen.get(path, 0) + 1
        if seen[path] > 1:
            path = f"{path}#{seen[path]}"
        shape = entry.get("shape")
        if not isinstance(shape, list) or not all(type(size) is int for size in shape):
            shape = []
        slots = entry.get("slots")
        yield Variable(
            path,
            shape,
            str(entry.get("dtype", "")),
            bool(entry.get("trainable", True)),
            slots if isinstance(slots, dict) else {},
            math.prod(shape),
        )


def merge(lists):
    """The union of lists of names; a name that is new goes behind the one it followed.

    >>> merge([["a", "c"], ["a", "b", "c", "d"]])
    ['a', 'b', 'c', 'd']
    """
    merged = []
    known = set()
    for names in dict.fromkeys(map(tuple, lists)):  # Nearly all parts of a run name the same.
        at = 0
        for name in names:
            if name in known:
                at = merged.index(name) + 1
            else:
                merged.insert(at, name)
                known.add(name)
                at += 1
    return merged


def merge_variables(parts):
    """The union of the variables of several `metadata.Part`s; the latest description wins."""
    described = [describe_variables(part) for part in parts]
    if len(set(map(id, described))) == 1:  # Nearly all parts of a run share one.
        return list(described[0])
    latest = {variable.path: variable for variables in described for variable in variables}
    return [latest[path] for path in merge([[v.path for v in vs] for vs in described])]


def merge_columns(parts):
    """The union of the columns of several `metadata.Part`s, in order."""
    return merge([part.columns for part in parts])


def merge_bins(parts):
    """The union of the bins of several `metadata.Part`s: counts in order, then exponents, rising.

    The lowest and the highest bin of a part take what lies beyond, also where another part has
    bins for it.
    """
    counts = merge([[name for name in part.bins if isinstance(name, str)] for part in parts])
    exponents = {bin_ for part in parts for bin_ in part.bins if not isinstance(bin_, str)}
    return [*counts, *sorted(exponents)]


def names(tag, part):
    """The names along each axis of a part's records, without the axis of records.

    Args:
        tag: One of `metadata.TAGS`.
        part: Its `metadata.Part`.
    """
    rows = {
        metadata.LAYERS: lambda: [variable.path for variable in describe_variables(part)],
        metadata.HISTOGRAMS: lambda: [variable.path for variable in describe_variables(part)],
        metadata.REPLICAS: lambda: range(part.replicas),
    }
    first = [rows[tag]()] if tag in rows else []
    return [*first, part.columns, *([part.bins] if tag == metadata.HISTOGRAMS else [])]


def match(tag, part, wanted):
    """Where a part has wanted names.

    Args:
        tag: One of `metadata.TAGS`.
        part: Its `metadata.Part`.
        wanted: The names wanted along each axis of `names`.

    Returns:
        `(sources, targets)`: along each axis, int64 indices of the names in both, where the part
        has them and where they are wanted. Each is as long as the other; empty ones have nothing.
    """
    pairs = [_match(*both) for both in zip(names(tag, part), wanted, strict=True)]
    return tuple(zip(*pairs, strict=True))


def _match(have, wanted):
    at = {name: index for index, name in reversed(list(enumerate(have)))}
    pairs = [(at[name], target) for target, name in enumerate(wanted) if name in at]
    return np.array(pairs, np.int64).reshape(-1, 2).T

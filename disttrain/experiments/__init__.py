"""Experiments: which optimizer, which learning rate, and what an optimizer does on its way.

The public names are imported when they are first used, for some of them load SciPy, Matplotlib or
Optuna. No module here is called as a public name is: importing it would hide the name.
"""

import importlib

_HOMES = {
    "compare": "disttrain.experiments.comparisons.comparing",
    "search": "disttrain.experiments.searches.searching",
    "lr_range": "disttrain.experiments.lr_ranges",
    "trajectory": "disttrain.experiments.trajectories.path",
    "Integer": "disttrain.experiments.searches.spaces",
    "LogUniform": "disttrain.experiments.searches.spaces",
    "Uniform": "disttrain.experiments.searches.spaces",
}

__all__ = sorted(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'disttrain.experiments' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])

"""Which variables each replica keeps for itself: `DistributedOptimizer(local_variables=...)`.

Their gradients are not reduced, and neither they nor their slots are broadcast.
"""

import fnmatch

import keras
import tensorflow as tf

from disttrain.optimizers.missing import some
from disttrain.optimizers.slots import find_slots


class LocalVariables:
    """Names variables by themselves, by their layers, or by patterns of their paths.

    Args:
        entries: `keras.Variable`, `tf.Variable`, `keras.Layer` or strings such as `"*/adapter/*"`;
            one of them, or a list.

    Raises:
        TypeError: An entry is none of these.
    """

    def __init__(self, entries=()):
        kinds = (str, keras.Variable, tf.Variable, keras.Layer)
        entries = (entries,) if isinstance(entries, kinds) else tuple(entries)
        for entry in entries:
            if not isinstance(entry, kinds):
                raise TypeError(
                    "local_variables takes variables, layers, or patterns of variables' paths "
                    f"such as '*/adapter/*', not {entry!r}"
                )
        self.entries = entries

    def __bool__(self):
        return bool(self.entries)

    def __contains__(self, variable):
        return any(_matches(entry, variable) for entry in self.entries)

    def check(self, variables):
        """Makes sure that each entry means a variable.

        Args:
            variables: The trainable variables.

        Raises:
            ValueError: One means none of them.
        """
        for entry in self.entries:
            if not any(_matches(entry, variable) for variable in variables):
                paths = [getattr(v, "path", v.name) for v in variables]
                raise ValueError(
                    f"local_variables has {_name(entry)!r}, which is none of the trainable "
                    f"variables: {some(paths)}; correct it or leave it out"
                )

    def without(self, variables, optimizer):
        """Those of `variables` that are neither local nor slots of local variables.

        Args:
            variables: A list of `keras.Variable`.
            optimizer: The inner optimizer, built or not.
        """
        if not self.entries:
            return list(variables)
        local = [v for v in (*variables, *optimizer._trainable_variables) if v in self]
        left_out = {id(variable) for variable in local}
        for slots in find_slots(optimizer, local):
            left_out |= {id(slot) for slot in slots.values()}
        return [variable for variable in variables if id(variable) not in left_out]

    def get_config(self):
        """The entries as strings."""
        return [_name(entry) for entry in self.entries]


def _matches(entry, variable):
    if isinstance(entry, str):
        return fnmatch.fnmatch(getattr(variable, "path", ""), entry)
    if isinstance(entry, keras.Layer):
        return any(one is variable for one in entry.variables)
    return entry is variable or entry is getattr(variable, "value", None)


def _name(entry):
    if isinstance(entry, keras.Layer):
        return f"{entry.path or entry.name}/*"
    return entry if isinstance(entry, str) else getattr(entry, "path", entry.name)

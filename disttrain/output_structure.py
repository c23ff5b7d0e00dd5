"""The order of a model's outputs, and what belongs to each of them.

Losses, targets, sample weights and loss weights may come as one value, a list in the order of the
outputs, a dictionary by their names, or in the outputs' own structure. Here each of these becomes a
list with one entry for each output. Metrics are left to Keras, which does the same.
"""

import keras


class OutputStructure:
    """The outputs of a model.

    Args:
        outputs: The outputs, symbolic or tensors, in any structure.
        names: Their names, in the order in which a list has them.

    Attributes:
        names: A name for each output: its key in a dictionary, else the name in `names`.
    """

    def __init__(self, outputs, names):
        self.is_single = not _is_nested(outputs)
        self._structure = keras.tree.map_structure(lambda _: None, outputs)
        if self.is_single:
            self._paths, self.names = [()], [names[0]]
            return
        self._paths = [path for path, _ in keras.tree.flatten_with_path(outputs)]
        self.names = ["/".join(map(str, path)) for path in self._paths]
        if isinstance(outputs, (list, tuple)) and len(names) == len(self._paths):
            self.names = list(names)

    def entries(self, value, what, *, missing=None, repeat=False, present=None):
        """Brings what a user has given for the outputs into their order.

        Args:
            value: One value, or a list, a dictionary or a deeper structure of them.
            what: What it is, for errors, such as `"loss"`.
            missing: Entry for an output that a dictionary leaves out.
            repeat: Whether a single value counts for every output.
            present: Numbers of the outputs that a list may be limited to, or `None`.

        Returns:
            A list with an entry for each output.

        Raises:
            ValueError: The structure does not fit the outputs.
        """
        if self.is_single:
            return [self._of_single(value, what)]
        if not _is_nested(value):
            if repeat:
                return [value] * len(self.names)
            raise ValueError(
                f"{what} must have an entry for each of the outputs {self.names}, not one for all"
            )
        if isinstance(value, dict) and set(value) <= set(self.names):
            return [value.get(name, missing) for name in self.names]
        found = self._by_path(value)
        if found is not None:
            return found
        if isinstance(value, dict):
            unknown = sorted(map(str, set(value) - set(self.names)))
            raise ValueError(
                f"{what} names outputs that the model does not have: {unknown}; its outputs are "
                f"{self.names}"
            )
        flat = not any(_is_nested(entry) for entry in value)
        if flat and len(value) == len(self.names):
            return list(value)
        if flat and present is not None and len(value) == len(present):
            given = dict(zip(present, value, strict=True))
            return [given.get(i, missing) for i in range(len(self.names))]
        raise ValueError(
            f"{what} has {len(value)} entries for the {len(self.names)} outputs {self.names}"
        )

    def pack(self, entries):
        """Puts a list with an entry for each output into the outputs' structure."""
        return keras.tree.pack_sequence_as(self._structure, entries)

    def _of_single(self, value, what):
        if isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
        elif isinstance(value, dict) and len(value) == 1 and set(value) <= set(self.names):
            (value,) = value.values()
        elif isinstance(value, dict) and len(value) == 1:
            raise ValueError(
                f"{what} names the output {next(iter(value))!r}; the model's output is "
                f"{self.names[0]!r}"
            )
        if _is_nested(value):
            raise ValueError(
                f"the model has one output and {what} has {len(value)} entries: {value!r}"
            )
        return value

    def _by_path(self, value):
        """The entries of a value that has the outputs' structure, or `None`."""
        if len(keras.tree.flatten(value)) != len(self._paths):
            return None
        found = []
        for path in self._paths:
            entry = value
            for key in path:
                try:
                    entry = entry[key]
                except (KeyError, IndexError, TypeError):
                    return None
            found.append(entry)
        return None if any(_is_nested(entry) for entry in found) else found


def _is_nested(value):
    return isinstance(value, (dict, list, tuple))

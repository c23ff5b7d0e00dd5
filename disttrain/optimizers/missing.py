"""Variables that have no gradient: left out, with a warning, or an error where all are."""

import warnings


class MissingGradients:
    """Leaves out gradients that are `None`; warns about them once."""

    def __init__(self):
        self._warned = False

    def leave_out(self, gradients, variables):
        """The gradients that are there.

        Args:
            gradients: Tensors, `tf.IndexedSlices` or `None`.
            variables: Their variables.

        Returns:
            `(gradients, variables)` without those whose gradient is `None`, two lists.

        Raises:
            ValueError: All are `None`, or there are more or fewer than variables.
        """
        if len(gradients) != len(variables):
            raise ValueError(f"there are {len(gradients)} gradients for {len(variables)} variables")
        pairs = list(zip(gradients, variables, strict=True))
        missing = [getattr(v, "path", v.name) for g, v in pairs if g is None]
        if len(missing) == len(variables):
            raise ValueError(
                f"no variable has a gradient ({some(missing)}); does the loss depend on the model?"
            )
        if missing and not self._warned:
            self._warned = True
            warnings.warn(
                f"{len(missing)} of {len(variables)} trainable variables have no gradient and will "
                f"not be trained: {some(missing)}",
                stacklevel=4,
            )
        return [g for g, _ in pairs if g is not None], [v for g, v in pairs if g is not None]

    def leave_out_of(self, compute, variables):
        """The function `compute`, with what it returns passed through `leave_out`; or `None`."""
        if compute is None:
            return None

        def computed():
            gradients = list(compute())
            if len(gradients) < len(variables):  # it has passed through already
                return gradients
            return self.leave_out(gradients, variables)[0]

        return computed


def some(names, most=5):
    """The first names of a list, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"

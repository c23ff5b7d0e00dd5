"""How the state of `DistributedOptimizer` itself is kept in Keras's files: by position.

Names hold numbers that Keras counts, and a model that is built again may have others.
"""

import numpy as np
import tensorflow as tf

from disttrain.gradients.overwriting import is_overwritten
from disttrain.optimizers import taking_over


def save(store, variables, accumulator):
    """Puts variables into a store.

    What replicas of this process have added up since the last update is brought together: where all
    begin with the mean of theirs, the next update is the same.

    Args:
        store: What Keras hands to `save_own_variables`.
        variables: The variables, a list.
        accumulator: The `Accumulator`, some of whose sums may be among them.
    """
    targets = {id(total): variable for variable, total in accumulator.pairs}
    for number, variable in enumerate(variables):
        value = variable.numpy()
        parts = getattr(variable.value, "values", None)
        if id(variable) in targets and parts is not None:
            values = np.stack([np.asarray(part) for part in parts])
            # No dtype of 16 bits has a mean in NumPy.
            one = values.max(0) if is_overwritten(targets[id(variable)]) else _mean(values)
            value = one.astype(value.dtype)
        store[str(number)] = value


def load(optimizer, variables, store):
    """Gives variables the values of a store, unless `taking_over.same_variables` leaves them.

    Args:
        optimizer: Whose variables they are, for the message.
        variables: As for `save`.
        store: What Keras hands to `load_own_variables`, or a dictionary.

    Raises:
        ValueError: They do not fit.
    """
    if not taking_over.same_variables(optimizer, variables, store):
        return
    for number, variable in enumerate(variables):
        # Older files have names.
        key = str(number) if str(number) in store.keys() else variable.name  # noqa: SIM118
        if key not in store.keys():  # noqa: SIM118 - a group of HDF5
            raise ValueError(
                f"the saved state of the optimizer {optimizer.name!r} has no {variable.name!r}, "
                f"but {', '.join(store.keys())}; build the model with the names that it had"
            )
        variable.assign(store[key])


def _mean(values):
    wide = tf.cast(values, tf.float64) if values.dtype != np.float64 else values
    return np.asarray(tf.reduce_mean(wide, 0))

"""The variables that make a training what it is, and their copies in memory.

Weights and slots are equal on all replicas and are kept once. What replicas move apart is kept for
each: statistics, seeds, sums of metrics, `local_variables` with their slots. A restored value is
the saved one to the last bit; where the number of replicas has changed, `Role` says what becomes of
it.
"""

import dataclasses
import enum
import re

import keras
import numpy as np
import tensorflow as tf

from disttrain.optimizers.slots import find_slots
from disttrain.schedules.plateau import find_plateaus

#: Keras numbers names by what else the process has made.
_NUMBER = re.compile(r"_\d+(?=_|/|$)")

#: Keras spreads replicas' seeds so; see `Task.spread_seeds`.
_SEED_STEP = 1_000_003


class Role(enum.Enum):
    """What a variable is, which says how other numbers of replicas share it out.

    Attributes:
        EQUAL: Equal on all replicas.
        COMMON: Each replica has its own, and that of the first will do for any other.
        SUM: A part of a sum, which goes to the first replica as a whole.
        MEAN: Statistics; the mean over the replicas goes to all.
        SEED: The state of a seed generator, from which that of more replicas is made.
        LOCAL: A replica's own, which no other number of replicas can have.
    """

    EQUAL = "equal"
    COMMON = "common"
    SUM = "sum"
    MEAN = "mean"
    SEED = "seed"
    LOCAL = "local"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One variable.

    Attributes:
        key: Its name in a checkpoint, such as `"model/3/dense/kernel"`.
        path: The name that it goes by, without the numbers that Keras adds.
        role: Its `Role`.
        parts: The `tf.Variable` of each replica of this process.
    """

    key: str
    path: str
    role: Role
    parts: list

    def describe(self):
        """As JSON values."""
        first = self.parts[0]
        return {
            "key": self.key,
            "path": self.path,
            "role": self.role.value,
            "shape": first.shape.as_list(),
            "dtype": first.dtype.name,
        }


class State:
    """All variables of a training.

    Args:
        task: A built `disttrain.task.Task`.
        step: The `disttrain.train_step.TrainStep`.

    Attributes:
        entries: A list of `Entry`.
    """

    def __init__(self, task, step):
        self._replicas = task.replication.topology.local_replicas
        self._buffers = {}
        self._described = None
        self.entries = []
        optimizer, model = task.optimizer, task.model
        kept_apart = [v for v in optimizer.built_with if optimizer.is_local(v)]
        is_local = _ids(kept_apart)
        for slots in find_slots(optimizer.inner, kept_apart):
            is_local |= _ids(slots.values())

        def equal(variable):
            return Role.LOCAL if id(variable) in is_local else Role.EQUAL

        moving = _moving(model)
        self._add("model", model.variables, lambda v: moving.get(id(v)) or equal(v))
        self._add("optimizer", optimizer.inner.variables, equal)
        large, inner = _ids(optimizer.accumulator.sums), _ids(optimizer.inner.variables)
        own = [variable for variable in optimizer.variables if id(variable) not in inner]
        # Sums of gradients are empty between two updates, so they are equal as well.
        self._add("step", own, lambda v: Role.EQUAL if id(v) in large else Role.COMMON)
        factors = [plateau.factor for plateau in find_plateaus(optimizer)]
        self._add("schedule", factors, lambda v: Role.EQUAL)
        self._add("metrics", task.metric_variables, lambda v: Role.SUM)
        self._add("sums", step.sums, lambda v: Role.COMMON)
        self._add("seeds", _global_seeds(), lambda v: Role.COMMON)

    def _add(self, group, variables, role_of):
        for number, variable in enumerate(variables):
            path = _NUMBER.sub("", getattr(variable, "path", variable.name).split(":")[0])
            key = f"{group}/{number}/{path}"
            self.entries.append(Entry(key, path, role_of(variable), self._parts(variable)))

    def _parts(self, variable):
        value = variable.value if isinstance(variable, keras.Variable) else variable
        parts = list(getattr(value, "values", [value]))
        return parts if len(parts) == self._replicas else parts[:1] * self._replicas

    def describe(self):
        """The variables as a list of JSON values; nothing changes it."""
        if self._described is None:
            self._described = [entry.describe() for entry in self.entries]
        return self._described

    def copy(self, with_equal=True):
        """Copies the variables to memory that is kept for it: two calls overwrite each other.

        Args:
            with_equal: Whether what is equal on all replicas is copied too; the chief's will do.

        Returns:
            `(equal, own)`: key to array, and a list with the same for each local replica.
        """
        equal, own = {}, [{} for _ in range(self._replicas)]
        for entry in self.entries:
            if entry.role is not Role.EQUAL:
                for replica, part in enumerate(entry.parts):
                    own[replica][entry.key] = self._copied(entry.key, replica, part)
            elif with_equal:
                equal[entry.key] = self._copied(entry.key, 0, entry.parts[0])
        return equal, own

    def _copied(self, key, replica, part):
        # On a CPU a view of the variable's own memory; `read_value` does more, and takes longer.
        value = np.asarray(tf.raw_ops.ReadVariableOp(resource=part.handle, dtype=part.dtype))
        buffer = self._buffers.get((key, replica))
        if buffer is None:
            # Memory that is new each time takes as long to get as to fill.
            buffer = self._buffers[key, replica] = np.empty_like(value)
        np.copyto(buffer, value)
        return buffer

    def assign(self, equal, own):
        """Gives the variables the values of a copy.

        Args:
            equal: Key to array, or `None` to leave those as they are.
            own: Key to array for each replica of this process.
        """
        for entry in self.entries:
            values = [one.get(entry.key) for one in own]
            if entry.role is Role.EQUAL:
                values = [(equal or {}).get(entry.key)] * len(entry.parts)
            for part, value in zip(entry.parts, values, strict=True):
                if value is not None:
                    part.assign(value)

    def equal_variables(self):
        """What is equal on all replicas: the `tf.Variable` of the first one, in order."""
        return [entry.parts[0] for entry in self.entries if entry.role is Role.EQUAL]


def share_out(described, own, replicas):
    """What each of another number of replicas gets.

    Args:
        described: What `State.describe` has said of the saved variables.
        own: Key to array for each replica that has saved.
        replicas: How many there are now.

    Returns:
        A list with key to array for each of them.

    Raises:
        ValueError: There are variables that only as many replicas as saved them can have.
    """
    if len(own) == replicas:
        return own
    roles = {entry["key"]: Role(entry["role"]) for entry in described}
    local = [entry["path"] for entry in described if entry["role"] == Role.LOCAL.value]
    if local:
        raise ValueError(
            f"the checkpoint holds variables that each of {len(own)} replicas has for itself "
            f"({', '.join(local[:5])}), and now there are {replicas}; go on with {len(own)}"
        )
    shared = [{} for _ in range(replicas)]
    for key in own[0]:
        values = [one[key] for one in own]
        for replica in range(replicas):
            shared[replica][key] = _share(roles[key], values, replica)
    return shared


def _share(role, values, replica):
    if role is Role.SUM:
        total = np.sum([value.astype(np.float64) for value in values], axis=0)
        return (total if replica == 0 else np.zeros_like(total)).astype(values[0].dtype)
    if role is Role.MEAN:
        mean = np.mean([value.astype(np.float64) for value in values], axis=0)
        return mean.astype(values[0].dtype)
    if role is Role.SEED and replica >= len(values):
        # Beyond all those that were given out before, so that no two replicas draw alike.
        return values[0] + np.asarray([replica * _SEED_STEP, 0], values[0].dtype)
    return values[replica] if role is Role.SEED else values[0]


def _moving(model):
    """The variables of a model that training moves without gradients, id to `Role`."""
    frozen = set()
    for layer in model._flatten_layers():
        # What a layer has frozen is not trained, and stays equal on all replicas.
        frozen |= _ids(getattr(layer, "_trainable_variables", []))
    found = {}
    for variable in model.non_trainable_variables:
        if id(variable) in frozen:
            continue
        if variable.name == "seed_generator_state":
            role = Role.SEED
        elif tf.as_dtype(variable.dtype).is_floating:
            role = Role.COMMON if getattr(variable, "equal_on_replicas", False) else Role.MEAN
        else:
            role = Role.COMMON
        found[id(variable)] = role
    return found


def _global_seeds():
    """The generators behind `keras.random` and `tf.random.get_global_generator`, where used."""
    from keras.src.backend.common import global_state
    from tensorflow.python.ops import stateful_random_ops

    found = []
    of_keras = global_state.get_global_attribute("global_seed_generator")
    if of_keras is not None:
        found.append(of_keras.state)
    if stateful_random_ops.global_generator is not None:
        found.append(stateful_random_ops.global_generator.state)
    return found


def _ids(variables):
    return {id(variable) for variable in variables}

"""State that replicas move apart, such as BatchNormalization's moving averages.

Finds which variables a forward pass assigns, and which of those assignments depend on the data; and
averages them over the replicas. What no step assigns is neither copied nor sent.
"""

import tensorflow as tf

# Not public: what TensorFlow itself orders operations by.
from tensorflow.python.framework.auto_control_deps_utils import get_read_write_resource_inputs

from disttrain.replication import replica_value


class AssignedVariables:
    """Finds the variables that are assigned after it was made.

    Inside of a `tf.function` it looks at the operations that were added to the graph; control flow
    and nested functions count as a whole. Outside of one it compares values.

    Args:
        variables: Candidates, a list of `keras.Variable`. In replica context.
        replication: A `disttrain.replication.Replication`.
    """

    def __init__(self, variables, replication):
        place = replication.replica_index() - replication.topology.first_replica
        self._variables = list(variables)
        self._own = [replica_value(variable, place) for variable in self._variables]
        # A read whose result is not used costs nothing: it is dropped when the graph is done.
        self._before = [
            tf.raw_ops.ReadVariableOp(resource=own.handle, dtype=own.dtype) for own in self._own
        ]
        if tf.executing_eagerly():
            # A value that was read may share its memory with the variable.
            self._before = [tf.identity(value) for value in self._before]
            return
        self._graph = tf.compat.v1.get_default_graph()
        self._operations = len(self._graph.get_operations())
        self._places = {id(read.op.inputs[0]): i for i, read in enumerate(self._before)}

    def find(self):
        """The variables that were assigned until now.

        Returns:
            A list of `(variable, value before)`, in the order of the candidates.
        """
        return [(self._variables[i], self._before[i]) for i in sorted(self._assignments())]

    def find_dependent(self, tensors):
        """As `find`, but only those whose new value depends on some tensors.

        Args:
            tensors: A nested structure of tensors.
        """
        assignments = self._assignments()
        if tf.executing_eagerly():
            return self.find()
        sources = {id(tensor) for tensor in tf.nest.flatten(tensors, expand_composites=True)}
        dependent = set()
        while True:
            found = {
                place
                for place, operations in assignments.items()
                if place in dependent
                or any(self._reaches(operation, sources, dependent) for operation in operations)
            }
            if found == dependent:
                break
            # A variable may depend on the data by way of another one.
            dependent = found
        return [(self._variables[i], self._before[i]) for i in sorted(dependent)]

    def _assignments(self):
        """Place of each assigned variable to the operations that assign it."""
        if tf.executing_eagerly():
            changed = {}
            for i, (own, before) in enumerate(zip(self._own, self._before, strict=True)):
                if bool(tf.reduce_any(own.read_value() != before)):
                    changed[i] = []
            return changed
        found = {}
        for operation in self._graph.get_operations()[self._operations :]:
            if any(id(tensor) in self._places for tensor in operation.inputs):
                for handle in get_read_write_resource_inputs(operation)[1]:
                    if id(handle) in self._places:
                        found.setdefault(self._places[id(handle)], []).append(operation)
        return found

    def _reaches(self, operation, sources, dependent):
        """Whether the inputs of an operation depend on `sources` or on variables that do."""
        seen, waiting = set(), list(operation.inputs)
        while waiting:
            tensor = waiting.pop()
            if id(tensor) in sources or self._places.get(id(tensor)) in dependent:
                return True
            if id(tensor) not in seen:
                seen.add(id(tensor))
                waiting.extend(tensor.op.inputs)
        return False


def average(replication, variables, is_first):
    """Averages floating variables over the replicas; in replica context.

    Where all replicas have equal values, they keep them to the last bit, so the differences from
    the first replica are summed, in float32 or float64.

    Args:
        replication: A `disttrain.replication.Replication`.
        variables: A list of `keras.Variable`, the same on all replicas.
        is_first: Whether this is the first of all replicas, a boolean scalar; an argument of the
            traced function. TensorFlow takes Horovod's operations for plain computations: while it
            prepares a graph it runs those whose inputs are constant, and waits for ranks on which
            they are not.
    """
    own = [_wide(tf.convert_to_tensor(variable.value)) for variable in variables]
    parts = [tf.where(is_first, value, tf.zeros_like(value)) for value in own]
    first = replication.reduce_sum(parts, "state.first")
    differences = [
        tf.where(one == other, tf.zeros_like(one), one - other)
        for one, other in zip(own, first, strict=True)
    ]
    sums = replication.reduce_sum(differences, "state.differences")
    for variable, value, start, total in zip(variables, own, first, sums, strict=True):
        mean = tf.where(total == 0, start, start + total / replication.replicas)
        # A sum with zeros has lost the sign of -0.0.
        mean = tf.where((value == 0) & (mean == 0), value, mean)
        variable.assign(tf.cast(mean, variable.dtype))


def _wide(value):
    return value if value.dtype in (tf.float32, tf.float64) else tf.cast(value, tf.float32)

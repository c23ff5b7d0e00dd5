"""Sums gradients over micro-batches before they are reduced.

The sums are local to each replica, so nothing is communicated until a step is complete.
"""

import tensorflow as tf

from disttrain.gradients.overwriting import is_overwritten
from disttrain.gradients.sparse import to_dense


class Accumulator:
    """Weighted sums of gradients on a replica.

    Args:
        steps: Micro-batches of a step.

    Raises:
        ValueError: `steps` is not a whole number from 1.
    """

    def __init__(self, steps):
        if isinstance(steps, bool) or int(steps) != steps or steps < 1:
            raise ValueError(f"accumulate_steps must be a whole number from 1, not {steps!r}")
        self.steps = int(steps)
        self._sums = []
        self._variables = []
        self._counters = []

    @property
    def pairs(self):
        """`(variable, its sum of gradients)` for each variable; none before `build`."""
        return list(zip(self._variables, self._sums, strict=True))

    @property
    def state(self):
        """All variables: the sums, and what they weigh and count; none before `build`."""
        return [*self._sums, *self._counters]

    @property
    def sums(self):
        """The sums of gradients, one for each variable; none before `build`."""
        return list(self._sums)

    def build(self, add_variable, add_like, variables):
        """Makes the variables.

        Args:
            add_variable: `add_variable(name, dtype, value)` makes a scalar.
            add_like: `add_like(variable, name)` makes zeros in the shape of a variable.
            variables: The trainable variables.
        """
        self._sums = [add_like(variable, "accumulated") for variable in variables]
        self._places = {id(variable): i for i, variable in enumerate(variables)}
        self._variables = list(variables)
        self._weight = add_variable("accumulated_weight", "float32", 0.0)
        self._count = add_variable("accumulated_steps", "int64", 0)
        self._counters = [self._weight, self._count]

    def add(self, gradients, variables, weight=1.0, after=()):
        """Adds a micro-batch; in replica context.

        Args:
            gradients: Gradients of the mean over the micro-batch; dense or `IndexedSlices`.
            variables: Their variables.
            weight: What the micro-batch counts, a scalar; its number of examples, say.
            after: Tensors without which nothing is added, if the step fails before it has them.

        Returns:
            How many micro-batches there are now, an int64 scalar.
        """
        weight = tf.cast(weight, tf.float32)
        with tf.control_dependencies(after):
            for gradient, variable in zip(gradients, variables, strict=True):
                self._add_one(to_dense(gradient), variable, weight)
            self._weight.value.assign_add(weight)
            return self._count.value.assign_add(1)

    def _add_one(self, gradient, variable, weight):
        total = self._sums[self._places[id(variable)]]
        if is_overwritten(variable):
            total.value.assign(tf.maximum(total.value, tf.cast(gradient, total.dtype)))
            return
        total.value.assign_add(tf.cast(gradient * tf.cast(weight, gradient.dtype), total.dtype))

    def take(self, variables):
        """Takes the weighted means, and begins anew; in replica context.

        Of what is no gradient, see `overwriting`, it takes the largest.

        Args:
            variables: Variables whose gradients were added.

        Returns:
            `(gradients, weight)`: a list, and the sum of the weights, a float32 scalar.
        """
        weight = tf.identity(self._weight.value)
        gradients = []
        for variable in variables:
            total = self._sums[self._places[id(variable)]]
            if is_overwritten(variable):
                gradients.append(tf.identity(total.value))
                continue
            mean = tf.math.divide_no_nan(total.value, tf.cast(weight, total.dtype))
            gradients.append(mean)
        with tf.control_dependencies([weight, *gradients]):
            for variable in variables:
                total = self._sums[self._places[id(variable)]]
                total.value.assign(tf.zeros(total.shape, total.dtype))
            self._weight.value.assign(0.0)
            self._count.value.assign(0)
        return gradients, weight

    def pending(self):
        """How many micro-batches have been added since the last `take`, an int64 scalar."""
        return tf.identity(self._count.value)

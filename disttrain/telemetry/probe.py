"""Measures recorded steps inside the training graph and keeps the rows until the host reads them.

Lives on the first replica of the chief. Nothing here waits for the host, and steps that are not
recorded cost one comparison.
"""

import numpy as np
import tensorflow as tf

from disttrain.gradients.clipping import global_norm
from disttrain.optimizers.slots import find_slots
from disttrain.telemetry import statistics
from tensorboard_plugin import metadata

_BUFFER_BYTES = 4 * 2**20


class Probe:
    """An observer for `DistributedOptimizer.apply_shares`.

    Args:
        options: A `Telemetry`.
        optimizer: The built inner optimizer.
        variables: The trainable variables, in model order.
        first_step: Number of steps done before.
        steps_per_execution: Steps between two chances of the host to read.
    """

    def __init__(self, options, optimizer, variables, first_step=0, steps_per_execution=1):
        self.options = options
        self.variables = list(variables)
        self.slots = find_slots(optimizer, self.variables)
        self.slot_names = list(dict.fromkeys(name for slots in self.slots for name in slots))
        columns = len(metadata.layer_statistics(self.slot_names))
        row_bytes = 4 * columns * max(1, len(self.variables))
        per_execution = -(-steps_per_execution // options.every) + 1
        self.capacity = max(2 * per_execution, min(64, _BUFFER_BYTES // row_bytes))
        shape = [self.capacity, len(self.variables), columns]
        with tf.init_scope():
            self._step = tf.Variable(first_step, dtype=tf.int64, trainable=False)
            self._skipped = tf.Variable(0.0, trainable=False)
            self._cursor = tf.Variable(0, trainable=False)
            self._steps = tf.Variable(tf.zeros([self.capacity], tf.int64), trainable=False)
            self._layers = tf.Variable(tf.zeros(shape), trainable=False)
            self._quantities = tf.Variable(
                tf.zeros([self.capacity, len(metadata.STEP_QUANTITIES)]), trainable=False
            )
            self._examples = tf.Variable(tf.zeros([self.capacity]), trainable=False)

    def before(self, variables):
        """Notes the weights before the update of a recorded step."""
        step = self._step.assign_add(1)
        record = self.options.records(step)
        # Outside of recorded steps the values are empty, so that nothing is copied.
        weights = tf.cond(
            record,
            lambda: [tf.identity(v.value) for v in variables],
            lambda: [tf.zeros([0] * v.shape.rank, v.value.dtype) for v in variables],
        )
        return record, weights

    def after(self, state, step):
        """Writes the row of a recorded step.

        Args:
            state: What `before` returned.
            step: A `disttrain.optimizers.distributed.Step`, whose extras begin with the loss and
                the number of examples of the global batch.
        """
        record, weights = state
        self._skipped.assign_add(1.0 - tf.cast(step.reduced.finite, tf.float32))

        def write():
            rows = self._rows(weights, step)
            row = tf.reshape(self._cursor % self.capacity, [1, 1])
            self._steps.scatter_nd_update(row, [self._step])
            self._layers.scatter_nd_update(row, rows[None])
            quantities = statistics.step_quantities(
                step.reduced.extras[0], step, self._skipped, global_norm(step.reduced.norms)
            )
            self._quantities.scatter_nd_update(row, quantities[None])
            self._examples.scatter_nd_update(row, step.reduced.extras[1][None])
            self._cursor.assign_add(1)
            self._skipped.assign(0.0)
            return True

        tf.cond(record, write, lambda: False)

    def _rows(self, weights, step):
        places = {id(variable): i for i, variable in enumerate(step.variables)}
        missing = tf.fill([self._layers.shape[2]], statistics.NAN)
        rows = []
        for variable, slots in zip(self.variables, self.slots, strict=True):
            i = places.get(id(variable))
            if i is None:
                rows.append(missing)
                continue
            before = tf.ensure_shape(weights[i], variable.shape)
            rows.append(
                statistics.layer_statistics(
                    before,
                    variable.value,
                    step.reduced.gradients[i],
                    step.reduced.norms[i],
                    slots,
                    self.slot_names,
                )
            )
        return tf.stack(rows)

    def read(self):
        """Takes the rows that were written since the last call.

        Returns:
            `(steps, layers, quantities, examples)`: int64 `[n]`, float32 `[n, variables,
            statistics]`, float32 `[n, quantities]` and float32 `[n]`, oldest first.
        """
        written = int(self._cursor.numpy())
        rows = np.arange(max(0, written - self.capacity), written) % self.capacity
        self._cursor.assign(0)
        return (
            self._steps.numpy()[rows],
            self._layers.numpy()[rows],
            self._quantities.numpy()[rows],
            self._examples.numpy()[rows],
        )

    def part_of_layers(self, optimizer_config, replicas):
        """The `metadata.Part` that describes the rows of `disttrain/layers`."""
        variables = tuple(
            {
                "path": variable.path,
                "shape": list(variable.shape),
                "dtype": variable.dtype,
                "trainable": bool(variable.trainable),
                "slots": {
                    name: {"dtype": slot.dtype, "bytes": _bytes(slot)}
                    for name, slot in slots.items()
                },
            }
            for variable, slots in zip(self.variables, self.slots, strict=True)
        )
        columns = tuple(s.name for s in metadata.layer_statistics(self.slot_names))
        return metadata.Part(columns, variables, optimizer_config, replicas)


def _bytes(variable):
    return int(np.prod(variable.shape)) * tf.dtypes.as_dtype(variable.dtype).size

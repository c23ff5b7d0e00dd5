"""The rows of `disttrain/layers` and `disttrain/histograms`, made while the optimizer updates.

Lives on the first replica of the chief, inside the training graph.
"""

import math

import numpy as np
import tensorflow as tf

from disttrain.optimizers.slots import find_slots
from disttrain.replication import replica_value
from disttrain.telemetry.ring import Buffer
from disttrain.telemetry.statistics import NAN, LayerStatistics
from tensorboard_plugin import metadata


class Layers:
    """What is recorded of each variable.

    Args:
        optimizer: The built inner optimizer.
        variables: The variables to record, in model order.
        histograms: Whether histograms are wanted.

    Attributes:
        row_bytes: Bytes of a row of statistics.
        histogram_bytes: Bytes of a row of histograms; 0 without.
        rows: The `Buffer` of the statistics, once there is room for rows.
    """

    def __init__(self, optimizer, variables, histograms):
        self.variables = list(variables)
        self.slots = find_slots(optimizer, self.variables)
        names = list(dict.fromkeys(name for slots in self.slots for name in slots))
        self.statistics = LayerStatistics(names, histograms)
        self._shape = (len(self.variables), len(self.statistics.columns))
        self._histogram_shape = (
            len(self.variables),
            len(self.statistics.quantities),
            len(metadata.BINS),
        )
        self.row_bytes = 4 * math.prod(self._shape)
        self.histogram_bytes = 4 * math.prod(self._histogram_shape) if histograms else 0

    def make_buffers(self, rows, histogram_rows):
        """Makes room for rows; on the chief's first replica alone.

        Args:
            rows: Rows of statistics.
            histogram_rows: Rows of histograms.
        """
        self.rows = Buffer(rows, self._shape)
        self._histograms = None
        if self.histogram_bytes:
            self._histogram_rows = histogram_rows
            self._histograms = Buffer(histogram_rows, self._histogram_shape)
            with tf.init_scope(), tf.device("CPU:0"):
                self._counted = tf.Variable(0, trainable=False)
                self._histogram_steps = tf.Variable(
                    tf.zeros([histogram_rows], tf.int64), trainable=False
                )

    def write(self, row, step, watch):
        """Writes what was watched.

        Args:
            row: The row of the buffers, an int32 scalar.
            step: Number of the step, an int64 scalar.
            watch: A `Watch` whose update is done.
        """
        rows = watch.rows()
        self.rows.write(row, rows)
        if self._histograms is None:
            return

        def count():
            place = tf.identity(self._counted.read_value()) % self._histogram_rows
            self._histograms.write(place, watch.histograms())
            self._histogram_steps.scatter_nd_update(tf.reshape(place, [1, 1]), [step])
            self._counted.assign_add(1)
            return True

        tf.cond(watch.with_histograms, count, lambda: False)

    def histogram_variables(self):
        """Where an operation writes histograms: their count, their steps and their buffer."""
        if not self.histogram_bytes:
            return []
        return [self._counted, self._histogram_steps, self._histograms.variable]

    def read(self, rows):
        """float32 statistics `[n, variables, statistics]` of the given rows."""
        return self.rows.read(rows)

    def read_histograms(self):
        """Takes the histograms since the last call.

        Returns:
            `(steps, counts)`: int64 `[n]` and float32 `[n, variables, quantities, bins]`.
        """
        if self._histograms is None or not int(self._counted.numpy()):
            return np.empty(0, np.int64), np.empty((0, *self._histogram_shape), np.float32)
        written = int(self._counted.numpy())
        rows = [k % self._histogram_rows for k in range(written)][-self._histogram_rows :]
        self._counted.assign(0)
        return self._histogram_steps.numpy()[rows], self._histograms.read(rows)

    def describe(self, optimizer_config, replicas):
        """The `metadata.Part`s of both tags.

        Args:
            optimizer_config: The optimizer's configuration, as JSON values.
            replicas: Number of replicas.

        Returns:
            `(layers, histograms)`.
        """
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
        common = (variables, optimizer_config, replicas)
        return (
            metadata.Part(self.statistics.columns, *common),
            metadata.Part(self.statistics.quantities, *common, bins=metadata.BINS),
        )


class Watch:
    """Measures the variables of one step, each while its values are at hand.

    Args:
        layers: The `Layers`.
        variables: The variables that have a gradient, in the optimizer's order.
        gradients: Their gradients, or multiples of them.
        norms: The gradients' norms before clipping, float32 of shape `[len(gradients)]`.
        record: Whether the step is recorded, a boolean scalar; else nothing is computed.
        with_histograms: Whether histograms are due then, a boolean scalar.
    """

    def __init__(self, layers, variables, gradients, norms, record, with_histograms):
        self._layers = layers
        places = {id(variable): i for i, variable in enumerate(layers.variables)}
        self._places = [places.get(id(variable)) for variable in variables]
        self._values = [replica_value(variable) for variable in variables]
        self._gradients = gradients
        self._norms = norms
        self._record = record
        self._before = {}
        self._results = []
        self._order = []
        self._at_once = None
        self.with_histograms = with_histograms

    def request(self, slots):
        """What an operation that updates and measures all variables at once is to be told.

        Args:
            slots: Of each variable, a list of `keras.Variable`.

        Returns:
            Arguments of the operation, by name.
        """
        layers = self._layers
        columns = {
            id(slot): layers.statistics.slot_names.index(name)
            for own in layers.slots
            for name, slot in own.items()
        }
        return {
            "norms": self._norms,
            "record": self._record,
            "places": [-1 if place is None else place for place in self._places],
            "slot_places": [columns.get(id(slot), -1) for own in slots for slot in own],
            "result_rows": len(layers.variables),
            **layers.statistics.settings(self.with_histograms),
        }

    def measured(self, rows, histograms):
        """Takes what such an operation has returned: rows, and counts, in model order."""
        self._at_once = rows, histograms

    @property
    def at_once(self):
        """Whether such an operation has measured."""
        return self._at_once is not None

    def before(self, group):
        """Notes the values of some variables before their update, by their places in the list."""
        watched = [i for i in group if self._places[i] is not None]
        if watched:
            values = [self._values[i] for i in watched]
            values = self._layers.statistics.snapshot(values, self._record)
            self._before.update(zip(watched, values, strict=True))

    def after(self, group):
        """Measures some variables, whose updates are done.

        Returns:
            A list of tensors that are there once the values before are no longer needed.
        """
        watched = [i for i in group if i in self._before]
        if not watched:
            return []
        rows, histograms = self._layers.statistics.measure(
            [self._values[i] for i in watched],
            [self._before.pop(i) for i in watched],
            [self._gradients[i] for i in watched],
            self._norms,
            watched,
            [self._slots(self._places[i]) for i in watched],
            self._record,
            self.with_histograms,
        )
        self._results.append((rows, histograms))
        self._order += [self._places[i] for i in watched]
        return [rows]

    def _slots(self, place):
        return {name: replica_value(slot) for name, slot in self._layers.slots[place].items()}

    def rows(self):
        """float32 `[variables, statistics]` of a recorded step; NaN without a gradient."""
        if self._at_once is not None:
            return self._at_once[0]
        missing = [len(self._layers.statistics.columns)]
        return self._in_model_order([rows for rows, _ in self._results], missing)

    def histograms(self):
        """float32 `[variables, quantities, bins]` of a step with histograms."""
        if self._at_once is not None:
            return self._at_once[1]
        missing = [len(self._layers.statistics.quantities), len(metadata.BINS)]
        return self._in_model_order([counts for _, counts in self._results], missing)

    def _in_model_order(self, groups, missing):
        found = {place: i for i, place in enumerate(self._order)}
        last = len(self._order)
        order = [found.get(place, last) for place in range(len(self._layers.variables))]
        return tf.gather(tf.concat([*groups, tf.fill([1, *missing], NAN)], 0), order)


def _bytes(variable):
    return math.prod(variable.shape) * tf.dtypes.as_dtype(variable.dtype).size

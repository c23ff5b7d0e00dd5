"""Which steps a replica records, and which row of its buffers each of them gets.

Every replica has a ring of its own, and all take the same decisions: by the number of the step,
and by whether its gradients were finite, which replicas agree on. Nothing here waits for the host.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from disttrain import kernels

#: Rows for steps that are recorded because they were skipped, between two reads of the host.
SPARE = 16

#: An interval that no step reaches.
NEVER = 2**62


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which steps are recorded by their numbers, counted from 1: the first, the last and multiples.

    The methods take integers on the host and tensors on a replica.

    Attributes:
        every: Multiples of it are recorded.
        histograms: Multiples of it are recorded with histograms; `NEVER` for no histograms at all.
        last: Number of the last step; 0 as long as it is not known.
    """

    every: int
    histograms: int = NEVER
    last: int = 0

    def records(self, step):
        """Whether the step of this number is recorded."""
        return self._multiple(step) | (step == 1) | (step == self.last)

    def _multiple(self, step):
        return (step % self.every == 0) | (step % self.histograms == 0)

    def with_histograms(self, step):
        """Whether the step of this number is recorded with histograms, if there are any."""
        return (step % self.histograms == 0) | (step == 1) | (step == self.last)

    def count(self, first, last):
        """How many of the steps `first` to `last`, both included, are recorded."""
        both = math.lcm(self.every, self.histograms)
        found = _multiples(self.every, first, last) + _multiples(self.histograms, first, last)
        found -= _multiples(both, first, last)
        others = {1, self.last} - {0}
        return found + sum(not self._multiple(step) for step in others if first <= step <= last)

    def next_after(self, step):
        """The first step after this one that is recorded."""
        multiples = [step - step % every + every for every in (self.every, self.histograms)]
        return min(*multiples, *(one for one in (1, self.last) if one > step))

    def count_histograms(self, first, last):
        """How many of them with histograms."""
        if self.histograms >= NEVER:
            return 0
        found = _multiples(self.histograms, first, last)
        others = {1, self.last} - {0}
        others = {step for step in others if first <= step <= last}
        return found + sum(step % self.histograms != 0 for step in others)

    def last_within(self, step, rows, counts):
        """A step until which, after `step`, at most so many are recorded and with histograms.

        Args:
            step: Number of a step.
            rows: How many are recorded at most.
            counts: How many of them with histograms at most.

        Returns:
            The last such step, or one before it.
        """
        others = sum(step < one for one in (1, self.last))
        if others > min(rows, counts):
            return step
        every = self.every
        if self.histograms < NEVER:
            every = math.gcd(every, self.histograms)
        beyond = [
            step - step % interval + (room - others + 1) * interval
            for interval, room in ((every, rows), (self.histograms, counts))
        ]
        return min(beyond) - 1


class Ring:
    """The buffers' index on one replica.

    Args:
        plan: The `Plan` to begin with.
        first_step: Number of steps done before.
        capacity: Rows for steps that the plan names; `SPARE` more are added.

    Attributes:
        rows: Number of rows of a buffer.
        step: Number of the present step, an int64 variable.
        variables: What the operations of `kernels/ring.h` need, but for the buffers, in its order.
        together: Handles of these, and of the buffers, as those operations take them.
    """

    def __init__(self, plan, first_step, capacity):
        self.rows = capacity + SPARE
        with tf.init_scope(), tf.device("CPU:0"):
            self.step = tf.Variable(first_step, dtype=tf.int64, trainable=False)
            self._counts = plan.histograms < NEVER
            intervals, offsets = _numbers(plan)
            self._intervals = tf.Variable(intervals, dtype=tf.int64, trainable=False)
            self._offsets = tf.Variable(offsets, dtype=tf.int64, trainable=False)
            self._cursor = tf.Variable(0, trainable=False)
            self._spare = tf.Variable(SPARE, trainable=False)
            self._steps = tf.Variable(tf.zeros([self.rows], tf.int64), trainable=False)
        self.variables = [self.step, self._intervals, self._offsets, self._cursor, self._steps]
        self.variables.append(self._spare)
        self.together = kernels.together(self.variables)

    def follow(self, plan):
        """Goes on by another `Plan`."""
        intervals, offsets = _numbers(plan)
        self._intervals.assign(intervals)
        self._offsets.assign(offsets)

    def begin(self):
        """Begins a step.

        Returns:
            `(record, with_histograms)`: whether the plan names it, and whether with histograms,
            boolean scalars.
        """
        operations = kernels.available()
        if operations is None:
            return self._named(self.step.assign_add(1))
        with tf.device("CPU:0"):
            record, counts = operations.disttrain_begin(ring=self.together)
        return record, counts if self._counts else tf.constant(False)

    def _named(self, step):
        """`Plan.records` and `Plan.with_histograms`, in few operations: they run at each step."""
        reached = tf.math.floormod(step - self._offsets.read_value(), self._intervals.read_value())
        named = reached == 0
        counts = tf.reduce_any(named[1:]) if self._counts else tf.constant(False)
        return tf.reduce_any(named), counts

    def take(self):
        """The row for the present step, an int32 scalar."""
        row = tf.identity(self._cursor.read_value()) % self.rows
        self._steps.scatter_nd_update(tf.reshape(row, [1, 1]), [self.step.read_value()])
        self._cursor.assign_add(1)
        return row

    def has_room(self):
        """Whether the present step gets a row although it was skipped; a boolean scalar.

        What is left of the spare rows counts down; the rest are for steps that the plan names.
        """
        named, _ = self._named(self.step.read_value())
        left = self._spare.assign_sub(tf.cast(~named, tf.int32))
        return named | (left >= 0)

    def read(self):
        """Takes what was written since the last call.

        Returns:
            `(steps, rows)`: int64 `[n]` numbers of steps, and which rows of a buffer are theirs,
            oldest first.
        """
        written = int(self._cursor.numpy())
        rows = np.arange(max(0, written - self.rows), written) % self.rows
        self._cursor.assign(0)
        self._spare.assign(SPARE)
        return self._steps.numpy()[rows], rows


class Buffer:
    """Rows of numbers beside a `Ring`.

    Args:
        rows: Number of rows.
        shape: Shape of a row.
    """

    def __init__(self, rows, shape):
        with tf.init_scope(), tf.device("CPU:0"):
            self._values = tf.Variable(tf.zeros([rows, *shape]), trainable=False)

    @property
    def variable(self):
        """What holds the values, float32 `[rows, *shape]`."""
        return self._values

    def write(self, row, values):
        """Writes one row.

        Args:
            row: int32 scalar.
            values: float32 of the shape of a row.
        """
        self._values.scatter_nd_update(tf.reshape(row, [1, 1]), values[None])

    def read(self, rows):
        """The given rows, float32 of shape `[n, *shape]`."""
        # `numpy()` would copy all rows first.
        return np.asarray(self._values.read_value())[rows]


def _multiples(interval, first, last):
    return last // interval - (first - 1) // interval


def _numbers(plan):
    """Intervals, and the steps from which they count: the first and the last are met once."""
    return [plan.every, plan.histograms, NEVER, NEVER], [0, 0, 1, plan.last]

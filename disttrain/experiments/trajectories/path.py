"""The path of an optimizer on a function of one or two variables, and what became of it."""

import csv
import dataclasses
import math
import os
import time

import numpy as np
import tensorflow as tf

from disttrain.experiments.trajectories import landscapes
from disttrain.experiments.trajectories.updates import Update

#: Most steps of a path.
MOST_STEPS = 1_000_000

CONVERGED, EXCEEDED, EXPLODED = "converged", "exceeded", "exploded"


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A path.

    Attributes:
        function: The `landscapes.Landscape`.
        optimizer: Name of the optimizer.
        learning_rate: The one at the start, or `None` where the optimizer tells none.
        verdict: `"converged"`: a step did not change the position any more. `"exploded"`: the
            gradient was NaN, or the position was infinite, so that there was nowhere to go.
            `"exceeded"`: neither had happened after the last step.
        steps: The step, from 1, at which that was seen.
        positions: float32 `[n + 1, variables]`, the start first.
        values: The function there, float32 `[n + 1]`.
        gradients: Its gradients there, float32 `[n + 1, variables]`.
        seconds: How long the steps took.
    """

    function: landscapes.Landscape
    optimizer: str
    learning_rate: float | None
    verdict: str
    steps: int
    positions: np.ndarray
    values: np.ndarray
    gradients: np.ndarray
    seconds: float

    def __str__(self):
        names = zip(self.function.variables, self.positions[-1], strict=True)
        end = ", ".join(f"{name} = {value:.6g}" for name, value in names)
        place = f"at {end}, value {self.values[-1]:.6g}"
        if self.verdict == CONVERGED:
            return f"converged in {self.steps:,} steps {place}"
        if self.verdict == EXPLODED:
            return f"exploded at step {self.steps:,}"
        return f"exceeded {self.steps:,} steps {place}"

    @property
    def label(self):
        """The optimizer's name, with its learning rate."""
        return self.optimizer + (f" {self.learning_rate:g}" if self.learning_rate else "")

    def save(self, path):
        """Writes the path as CSV, a row for each position.

        The columns are `step`, the variables, `value`, and `gradient_x` for each variable.
        """
        write_csv([self], path)

    def plot(self, path=None):
        """Draws it; see `pictures.plot`."""
        from disttrain.experiments.trajectories import pictures

        return pictures.plot([self], path)


def trajectory(expression, optimizer, start=None, steps=2000):
    """Follows an optimizer on a function.

    It stops when a step does not change the position in float32 any more.

    Args:
        expression: A function of x, or of x and y, such as `"2*x^4 + 3*x^3 + 2"`; see
            `disttrain.experiments.trajectories.expressions.parse`. Or `"rosenbrock"`, `"beale"` or
            `"himmelblau"`.
        optimizer: A Keras optimizer or its name, an optimizer of the old API, or an object with
            `apply_gradients(grads, vars)` or `apply_gradients(grads_and_vars)`. A Keras optimizer
            is copied and begins anew; another object is used as it is, and should be new.
        start: A number, or one for each variable. The classics have a usual one.
        steps: Most steps.

    Returns:
        A `Trajectory`.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: The expression cannot be read, or the start does not fit it.
    """
    function = landscapes.find(expression)
    start = _start(function, start)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"steps must be a whole number from 1 to {MOST_STEPS:,}, not {steps!r}")
    update = Update(optimizer, start)
    follow = _in_graph if update.in_graph else _step_by_step
    began = time.perf_counter()
    verdict, positions, values, gradients = follow(function, update, steps)
    seconds = time.perf_counter() - began
    made = len(positions) - 1
    # What explodes does so in the step that cannot be made.
    number = made + 1 if verdict == EXPLODED else made
    return Trajectory(
        function,
        update.name,
        update.learning_rate,
        verdict,
        number,
        positions,
        values,
        gradients,
        seconds,
    )


def _start(function, start):
    if start is None:
        start = function.start
    if start is None:
        raise ValueError(
            f"say where to start: one number for each of {', '.join(function.variables)}"
        )
    try:
        values = np.atleast_1d(np.asarray(start, np.float32))
    except (TypeError, ValueError):
        raise TypeError(f"start must be numbers, not {start!r}") from None
    if values.shape != (len(function.variables),) or not np.isfinite(values).all():
        raise ValueError(
            f"start must be {len(function.variables)} finite number(s), for "
            f"{', '.join(function.variables)}, not {start!r}"
        )
    return values


def _value_and_gradient(function, variable):
    with tf.GradientTape() as tape:
        position = tf.convert_to_tensor(variable)
        tape.watch(position)
        value = function.compute(*tf.unstack(position))
    return position, value, tape.gradient(value, position)


def _no_way_on(position, gradient):
    """Whether no step can be made from here."""
    return tf.reduce_any(tf.math.is_nan(gradient)) | ~tf.reduce_all(tf.math.is_finite(position))


def _in_graph(function, update, steps):
    """Follows in one graph; for what is returned see `_step_by_step`."""
    variable = update.variable
    size = variable.shape[0]

    def again():
        return _value_and_gradient(function, variable)[2]

    @tf.function(autograph=False)
    def follow():
        def record(made, arrays, position, value, gradient):
            entries = tf.concat([position, [value], gradient], 0)
            return arrays.write(made, entries)

        def go_on(made, state, records):
            return (state == 0) & (made < steps)

        def step(made, state, records):
            position, value, gradient = _value_and_gradient(function, variable)
            records = record(made, records, position, value, gradient)

            def move():
                update.step(gradient, again)
                return _state(position, variable, gradient)

            state = tf.cond(_no_way_on(position, gradient), lambda: tf.constant(2), move)
            return tf.where(state == 2, made, made + 1), state, records

        records = tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=[2 * size + 1])
        made, state, records = tf.while_loop(
            go_on, step, (tf.constant(0), tf.constant(0), records), parallel_iterations=1
        )
        position, value, gradient = _value_and_gradient(function, variable)
        records = record(made, records, position, value, gradient)
        return state, records.stack()

    # Called as it is, for each path has a function of its own, which TensorFlow would warn of.
    state, rows = follow.get_concrete_function()()
    rows = rows.numpy()
    verdict = (EXCEEDED, CONVERGED, EXPLODED)[int(state)]
    return verdict, rows[:, :size], rows[:, size], rows[:, size + 1 :]


def _state(before, variable, gradient):
    """0 after a step that moved, 1 where it did not, 2 where it could not."""
    still = tf.reduce_all(tf.convert_to_tensor(variable) == before)
    # An optimizer that skips what is not finite stands still without having arrived.
    arrived = tf.where(tf.reduce_all(tf.math.is_finite(gradient)), 1, 2)
    return tf.where(still, arrived, 0)


def _step_by_step(function, update, steps):
    """Follows in Python.

    Returns:
        `(verdict, positions, values, gradients)` as in `Trajectory`.
    """
    variable, rows, state = update.variable, [], 0
    look = tf.function(lambda: _value_and_gradient(function, variable), autograph=False)
    look = look.get_concrete_function()
    while True:
        position, value, gradient = look()
        rows.append((position.numpy(), value.numpy(), gradient.numpy()))
        if state == 1 or len(rows) > steps:
            break
        if _no_way_on(position, gradient):
            state = 2
            break
        update.step(gradient, None)
        state = int(_state(position, variable, gradient))
        if state == 2:
            break
    return ((EXCEEDED, CONVERGED, EXPLODED)[state], *map(np.stack, zip(*rows, strict=True)))


def write_csv(trajectories, path):
    """Writes paths on one function as CSV, with their numbers in a column `run` where several."""
    several = len(trajectories) > 1
    names = trajectories[0].function.variables
    with open(os.fspath(path), "w", newline="") as file:
        writer = csv.writer(file)
        head = ["step", *names, "value", *(f"gradient_{name}" for name in names)]
        writer.writerow([*(["run"] if several else []), *head])
        for number, one in enumerate(trajectories):
            for step, row in enumerate(zip(one.positions, one.values, one.gradients, strict=True)):
                numbers = [
                    float(entry) for entry in np.concatenate([np.atleast_1d(r) for r in row])
                ]
                writer.writerow([*([number] if several else []), step, *map(_shortest, numbers)])


def _shortest(number):
    """A float32 in as few digits as give it back."""
    return str(np.float32(number)) if math.isfinite(number) else repr(number)

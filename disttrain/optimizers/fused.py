"""Keras's own optimizers, with one operation for the update of all variables.

Keras takes several operations for each variable, with a pass over memory for each. A compiled
operation does the same arithmetic in the same order, and measures the variables in the same pass.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from disttrain import kernels
from disttrain.gradients import sparse
from disttrain.optimizers import around_each

_LARGEST = float(np.finfo(np.float32).max)

#: What a rule of Keras is made of.
_METHODS = ("update_step", "assign", "assign_add", "assign_sub")


@dataclasses.dataclass(frozen=True)
class Rule:
    """What the compiled operation has to know of an optimizer.

    Attributes:
        name: The operation's name of the rule.
        slots: Lists of slots, each in the order of the variables that the optimizer was built with.
        numbers: Makes the rule's numbers from the learning rate, a float32 scalar.
        hyperparameters: Numbers of the optimizer that the rule takes as constants.
        advance: Changes what the optimizer keeps besides, behind the update, if that was applied, a
            boolean scalar; or `None`.
    """

    name: str
    slots: list
    numbers: Callable
    hyperparameters: tuple
    advance: Callable | None = None


def _sgd(o):
    if o.momentum == 0:
        return Rule("sgd", [], lambda rate: [rate], ())
    name = "nesterov" if o.nesterov else "momentum"
    return Rule(name, [o.momentums], lambda rate: [rate, o.momentum], (o.momentum,))


def _adam(o):
    def numbers(rate):
        step = _step(o)
        # Kingma and Ba 2015, section 2.
        alpha = rate * tf.sqrt(1 - tf.pow(o.beta_2, step)) / (1 - tf.pow(o.beta_1, step))
        return [alpha, 1 - o.beta_1, 1 - o.beta_2, o.epsilon]

    hyperparameters = (o.beta_1, o.beta_2, o.epsilon)
    if o.amsgrad:
        slots = [o._momentums, o._velocities, o._velocity_hats]
        return Rule("amsgrad", slots, numbers, hyperparameters)
    return Rule("adam", [o._momentums, o._velocities], numbers, hyperparameters)


def _adamax(o):
    def numbers(rate):
        correction = 1 - tf.pow(o.beta_1, _step(o))
        return [rate, 1 - o.beta_1, o.beta_2, correction, o.epsilon]

    return Rule("adamax", [o._m, o._u], numbers, (o.beta_1, o.beta_2, o.epsilon))


def _nadam(o):
    if o._u_product.dtype != "float32":
        return None

    def decayed_and_product():
        decayed = 1.0 - 0.5 * tf.pow(0.96, _step(o))
        return decayed, o._u_product.value * o.beta_1 * decayed

    def advance(applied):
        o._u_product.assign(tf.where(applied, decayed_and_product()[1], o._u_product.value))

    def numbers(rate):
        one, two = np.float32(o.beta_1), np.float32(o.beta_2)
        step = _step(o)
        decayed, product = decayed_and_product()
        present = one * decayed
        ahead = one * (1.0 - 0.5 * tf.pow(0.96, _step(o, 2)))
        correction = 1 - tf.pow(two, step)
        less = np.float32(1) - one, np.float32(1) - two
        next_product = 1 - product * ahead
        return [rate, *less, ahead, next_product, 1 - present, 1 - product, correction, o.epsilon]

    hyperparameters = (o.beta_1, o.beta_2, o.epsilon)
    return Rule("nadam", [o._momentums, o._velocities], numbers, hyperparameters, advance)


def _adagrad(o):
    return Rule("adagrad", [o._accumulators], lambda rate: [rate, o.epsilon], (o.epsilon,))


def _adadelta(o):
    slots = [o._accumulated_grads, o._accumulated_delta_vars]
    numbers = [o.rho, 1 - o.rho, o.epsilon]
    return Rule("adadelta", slots, lambda rate: [rate, *numbers], (o.rho, o.epsilon))


def _rmsprop(o):
    name, slots = "rmsprop", [o._velocities]
    numbers = [o.rho, 1 - o.rho, o.epsilon]
    if o.centered:
        name += "_centered"
        slots.append(o._average_gradients)
    if o.momentum > 0:
        name += "_momentum"
        slots.append(o._momentums)
        numbers.append(o.momentum)
    return Rule(name, slots, lambda rate: [rate, *numbers], (o.rho, o.epsilon, o.momentum))


def _lion(o):
    one, two = np.float32(o.beta_1), np.float32(o.beta_2)
    numbers = [one, np.float32(1) - one, two, np.float32(1) - two]
    return Rule("lion", [o._momentums], lambda rate: [rate, *numbers], (o.beta_1, o.beta_2))


_RULES = {
    keras.optimizers.SGD: _sgd,
    keras.optimizers.Adam: _adam,
    keras.optimizers.Adamax: _adamax,
    keras.optimizers.Nadam: _nadam,
    keras.optimizers.Adagrad: _adagrad,
    keras.optimizers.Adadelta: _adadelta,
    keras.optimizers.RMSprop: _rmsprop,
    keras.optimizers.Lion: _lion,
}


def _step(optimizer, ahead=1):
    return tf.cast(optimizer.iterations.value + ahead, tf.float32)


def find(inner, variables):
    """The fused update of an optimizer, or `None` where Keras has to make it.

    Keras has to where the optimizer has a rule of its own, or parts of it are replaced; where
    something is not float32; on a GPU, under XLA, and without the compiled operations.

    Args:
        inner: A built Keras optimizer.
        variables: The variables to update, a list of `keras.Variable`.

    Returns:
        A `FusedUpdate`, or `None`.
    """
    owner = next((cls for cls in type(inner).__mro__ if cls in _RULES), None)
    if not variables or owner is None or not around_each.updates_as_keras(inner):
        return None
    same_rule = all(
        getattr(type(inner), name) is getattr(owner, name) and name not in vars(inner)
        for name in _METHODS
    )
    if not same_rule or any(v.dtype != "float32" or v.overwrite_with_gradient for v in variables):
        return None
    rule = _RULES[owner](inner)
    if rule is None:
        return None
    if not all(isinstance(n, (int, float)) and abs(n) < _LARGEST for n in rule.hyperparameters):
        return None
    places = {id(variable): i for i, variable in enumerate(inner._trainable_variables)}
    slots = [[of_all[places[id(v)]] for of_all in rule.slots] for v in variables]
    if any(slot is None or slot.dtype != "float32" for own in slots for slot in own):
        return None
    operations = kernels.available()
    return operations and FusedUpdate(operations, inner, rule, variables, slots)


class FusedUpdate:
    """Updates variables as `inner.apply` does; see `find`."""

    def __init__(self, operations, inner, rule, variables, slots):
        self._operations = operations
        self._inner = inner
        self._rule = rule
        self._variables = variables
        self._slots = slots

    @property
    def measures(self):
        """Whether the operation can measure: nothing but it changes variables and slots."""
        constrained = any(variable.constraint is not None for variable in self._variables)
        return not self._inner.use_ema and not constrained

    def apply(
        self, gradients, scales, unscale, own, watch=None, unclipped=(), finite=None, alone=False
    ):
        """Makes the update; in replica context.

        Args:
            gradients: The gradients of the variables, dense or `tf.IndexedSlices` without repeated
                rows, each of them times a number.
            scales: What makes of them the gradients to apply, float32 of shape
                `[len(gradients)]`.
            unscale: What makes of them the gradients before clipping, a float32 scalar.
            own: Gives the `tf.Variable` of this replica for a `keras.Variable`.
            watch: A `disttrain.telemetry.layers.Watch` that gets the rows, if `measures`; or
                `None`.
            unclipped: With a watch, the gradients before clipping, if they are no multiples.
            finite: Whether to make it, a boolean scalar, if `measures`; by default it is made. Else
                nothing changes, and the watch gets the rows of what stands still.
            alone: Whether nothing else in the graph uses the slots.
        """
        applied = tf.constant(True) if finite is None else finite
        inner, variables = self._inner, self._variables
        rate = tf.cast(tf.convert_to_tensor(inner.learning_rate), tf.float32)
        decay = inner.weight_decay
        values = [own(variable) for variable in variables]
        decayed = [decay is not None and bool(inner._use_weight_decay(v)) for v in values]
        sparse_places = [i for i, g in enumerate(gradients) if sparse.is_sparse(g)]
        state = [own(slot) for slots in self._slots for slot in slots]
        wanted = _unwatched(self._slots) if watch is None else watch.request(self._slots)
        rows, histograms = self._operations.disttrain_update(
            variables=[value.handle for value in values],
            slots=kernels.together(state) if alone else [slot.handle for slot in state],
            gradients=[_float32(g) for g in gradients],
            unclipped=[_float32(_like(u, g)) for u, g in zip(unclipped, gradients, strict=False)],
            rows=[tf.cast(gradients[i].indices, tf.int64) for i in sparse_places],
            numbers=_stack(self._rule.numbers(rate)),
            decay=_stack([decay if any(decayed) else 0.0, rate]),
            scales=scales,
            unscale=unscale,
            apply=applied,
            rule=self._rule.name,
            decayed=decayed,
            sparse=sparse_places,
            **wanted,
        )
        if watch is not None:
            watch.measured(rows, histograms)
        if self._rule.advance is not None:
            self._rule.advance(applied)
        # What else Keras does after an update.
        if inner.use_ema:
            inner._update_model_variables_moving_average(inner._trainable_variables)
        for variable in variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))
        inner.iterations.assign_add(tf.cast(applied, inner.iterations.dtype))


def _unwatched(slots):
    """What `Watch.request` returns, where nothing is measured."""
    return {
        "norms": tf.zeros([len(slots)]),
        "record": tf.constant(False),
        "with_histograms": tf.constant(False),
        "places": [-1] * len(slots),
        "slot_places": [-1 for own in slots for _ in own],
        "result_rows": 0,
        "slot_columns": 0,
        "lowest_exponent": 0,
        "highest_exponent": 0,
    }


def _float32(gradient):
    return tf.cast(sparse.values_of(gradient), tf.float32)


def _like(gradient, other):
    """A gradient that is dense where the other is: some clips leave no rows out."""
    return gradient if sparse.is_sparse(other) else sparse.to_dense(gradient)


def _stack(numbers):
    return tf.stack([tf.cast(number, tf.float32) for number in numbers])

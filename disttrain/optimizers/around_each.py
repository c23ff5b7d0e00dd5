"""Lets someone watch each variable right before and right after its own update.

Keras updates variables one by one, so where nothing else changes them, what is watched needs to be
kept for a few variables at a time only, not for the whole model.
"""

import collections
import contextlib
import math

import keras
import tensorflow as tf

#: Values of variables that are kept at a time, in bytes, or one variable where that is larger.
KEPT_BYTES = 4 * 2**20

#: Variables that are measured together, in bytes, or one where that is larger: few operations for
#: small variables, and values that are still in the processor's cache for large ones.
GROUP_BYTES = 2**20

#: Variables of a group; TensorFlow takes long over operations with thousands of inputs.
_MOST = 64

_TF_OPTIMIZER = keras.optimizers.Optimizer
_NADAM = keras.optimizers.Nadam

#: Methods in which Keras goes from the gradients to `update_step`, and the owners whose way of it
#: leaves one variable alone while another is updated.
_KNOWN = {
    "apply": (_TF_OPTIMIZER,),
    "_backend_apply_gradients": (_TF_OPTIMIZER,),
    "_apply_weight_decay": (_TF_OPTIMIZER,),
    "_backend_update_step": (_TF_OPTIMIZER, _NADAM),
    "_distributed_tf_update_step": (_TF_OPTIMIZER,),
}


def call(update, inner, variables, watch):
    """Makes an update and lets `watch` see the variables around their own part of it.

    Args:
        update: Makes the update, by `inner.apply` above all.
        inner: A built Keras optimizer.
        variables: The variables that `inner.apply` gets, a list of `keras.Variable`.
        watch: An object with `before(group)` and `after(group)`, called in the order of the updates
            with places in the list of variables. `after` returns a list of tensors that are there
            once it needs the values no more; further groups wait for them when room is short.
    """
    groups = _groups(variables)
    if updates_one_by_one(inner, variables):
        with _hooked(inner, variables, groups, watch):
            update()
        return
    for group in groups:
        watch.before(group)
    update()
    for group in groups:
        watch.after(group)


def look(variables, watch):
    """Lets `watch` see variables that nothing changes; see `call`."""
    for group in _groups(variables):
        watch.before(group)
        watch.after(group)


def _groups(variables):
    """Places of variables in a row that are measured together, soon after their updates."""
    groups, taken = [], 0
    for i, variable in enumerate(variables):
        size = _bytes(variable)
        if not groups or taken + size > GROUP_BYTES or len(groups[-1]) == _MOST:
            groups.append([])
            taken = 0
        groups[-1].append(i)
        taken += size
    return groups


def updates_as_keras(inner):
    """Whether the way from the gradients to `update_step` is Keras's, without accumulation.

    Not so where an optimizer has a rule of its own for weight decay, or stands around another.
    """
    cls = type(inner)
    return not inner.gradient_accumulation_steps and all(
        name not in vars(inner) and getattr(cls, name) in [getattr(owner, name) for owner in owners]
        for name, owners in _KNOWN.items()
    )


def updates_one_by_one(inner, variables):
    """Whether a variable changes in weight decay and `update_step` alone, as Keras does them.

    Not so either where constraints or averages of weights act behind them.
    """
    return (
        updates_as_keras(inner)
        and not inner.use_ema
        and not any(v.constraint is not None or v.overwrite_with_gradient for v in variables)
    )


@contextlib.contextmanager
def _hooked(inner, variables, groups, watch):
    """Puts the watch into `inner.update_step`, and weight decay with it, while a step is traced."""
    names = ("update_step", "_apply_weight_decay")
    own = {name: vars(inner)[name] for name in names if name in vars(inner)}
    update_step = inner.update_step
    places = {inner._var_key(variable): i for i, variable in enumerate(variables)}
    gate = _Gate(variables, groups, watch)

    def around(gradient, variable, learning_rate):
        # Under a MirroredStrategy the further replicas' copies of a variable follow the first.
        gate.enter(places[inner._var_key(variable)])
        with tf.control_dependencies(gate.waits_for):
            _decay(inner, variable)
            update_step(gradient, variable, learning_rate)

    inner.update_step = around
    inner._apply_weight_decay = lambda variables: None
    try:
        yield
        gate.leave()
    finally:
        for name in names:
            if name in own:
                setattr(inner, name, own[name])
            else:
                delattr(inner, name)


def _decay(inner, variable):
    """Keras's weight decay, for the copy of a variable on one replica."""
    if inner.weight_decay is None or not inner._use_weight_decay(variable):
        return
    rate = tf.cast(inner.learning_rate, variable.dtype)
    variable.assign_sub(variable * tf.cast(inner.weight_decay, variable.dtype) * rate)


class _Gate:
    """Bounds how many groups of variables are being updated at a time.

    Args:
        variables: All variables.
        groups: Lists of places, in order.
        watch: The watch.

    Attributes:
        waits_for: Operations that the updates of the present group wait for.
    """

    def __init__(self, variables, groups, watch):
        self._group_of = {place: group for group in groups for place in group}
        self._sizes = {id(g): sum(_bytes(variables[i]) for i in g) for g in groups}
        self._room = max([KEPT_BYTES, *self._sizes.values()])
        self._watch = watch
        self._present = None
        self._inside = collections.deque()
        self.waits_for = []

    def enter(self, place):
        """Notes that a variable is updated now; groups follow each other."""
        group = self._group_of[place]
        if group is self._present:
            return
        self.leave()
        self._present = group
        leaving, size = [], self._sizes[id(group)]
        while self._inside and self._room < size:
            freed, done = self._inside.popleft()
            self._room += freed
            leaving += done
        self._room -= size
        if leaving:
            # What waits for this group waits for all before it, too.
            with tf.control_dependencies([*self.waits_for, *leaving]):
                self.waits_for = [tf.no_op()]
        with tf.control_dependencies(self.waits_for):
            self._watch.before(group)

    def leave(self):
        """Notes that the present group is done."""
        if self._present is not None:
            done = self._watch.after(self._present)
            self._inside.append((self._sizes[id(self._present)], done))
            self._present = None


def _bytes(variable):
    return math.prod(variable.shape) * tf.dtypes.as_dtype(variable.dtype).size

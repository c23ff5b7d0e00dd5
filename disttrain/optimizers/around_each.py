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
    """Makes an update and lets `watch` see each variable around its own part of it.

    Args:
        update: Makes the update, by `inner.apply` above all.
        inner: A built Keras optimizer.
        variables: The variables that `inner.apply` gets, a list of `keras.Variable`.
        watch: An object with `before(i, value)` and `after(i, value)`, called in the order of the
            updates with a variable's place in the list and its value on the first replica of this
            process. What `after` returns, a tensor, is waited for before the value is let go.
    """
    if updates_one_by_one(inner, variables):
        with _hooked(inner, variables, watch):
            update()
        return
    for i, variable in enumerate(variables):
        watch.before(i, tf.convert_to_tensor(variable.value))
    update()
    for i, variable in enumerate(variables):
        watch.after(i, tf.convert_to_tensor(variable.value))


def updates_one_by_one(inner, variables):
    """Whether a variable changes in weight decay and `update_step` alone, as Keras does them.

    Not so where constraints, averages of weights, accumulated gradients, a rule of its own for
    weight decay, or an optimizer around another act before or behind them.
    """
    cls = type(inner)
    return (
        all(
            name not in vars(inner)
            and getattr(cls, name) in [getattr(owner, name) for owner in owners]
            for name, owners in _KNOWN.items()
        )
        and not inner.use_ema
        and not inner.gradient_accumulation_steps
        and not any(v.constraint is not None or v.overwrite_with_gradient for v in variables)
    )


@contextlib.contextmanager
def _hooked(inner, variables, watch):
    """Puts the watch into `inner.update_step`, and weight decay with it, while a step is traced."""
    names = ("update_step", "_apply_weight_decay")
    own = {name: vars(inner)[name] for name in names if name in vars(inner)}
    update_step = inner.update_step
    places = {inner._var_key(variable): i for i, variable in enumerate(variables)}
    window = _Window(variables)

    def update(gradient, variable, learning_rate):
        _decay(inner, variable)
        update_step(gradient, variable, learning_rate)

    def around(gradient, variable, learning_rate):
        # Under a MirroredStrategy further replicas come with their own copy of the variable.
        i = places.pop(inner._var_key(variable), None)
        if i is None:
            update(gradient, variable, learning_rate)
            return
        with window.wait_for_room(i):
            watch.before(i, variable.read_value())
            update(gradient, variable, learning_rate)
            window.leave(i, watch.after(i, variable.read_value()))

    inner.update_step = around
    inner._apply_weight_decay = lambda variables: None
    try:
        yield
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


class _Window:
    """Bounds how much of the variables is kept at a time, by control dependencies.

    Args:
        variables: All that will come.
    """

    def __init__(self, variables):
        self._sizes = [_bytes(variable) for variable in variables]
        self._room = max([KEPT_BYTES, *self._sizes])
        self._inside = collections.deque()
        self._barrier = None

    def wait_for_room(self, i):
        """A context in which operations wait until variable `i` fits beside those inside."""
        leaving = []
        while self._inside and self._room < self._sizes[i]:
            size, done = self._inside.popleft()
            self._room += size
            leaving.append(done)
        if leaving:
            # What waits for this barrier waits for all that left before, too.
            earlier = [self._barrier] if self._barrier is not None else []
            with tf.control_dependencies([*earlier, *leaving]):
                self._barrier = tf.no_op()
        self._room -= self._sizes[i]
        return tf.control_dependencies([self._barrier] if self._barrier is not None else [])

    def leave(self, i, done):
        """Notes that variable `i` needs no room once the tensor `done` is there."""
        self._inside.append((self._sizes[i], done))


def _bytes(variable):
    return math.prod(variable.shape) * tf.dtypes.as_dtype(variable.dtype).size

"""Keeps Keras from dividing losses by the number of replicas inside of disttrain's steps.

Under `tf.distribute`, `keras.losses.Loss.__call__` and `Model.compute_loss` divide what they return
by the number of replicas, because `Model.fit` adds the replicas' gradients up. disttrain's steps
weigh each replica's part by its examples, so a loss that a layer or a model computes inside of them
is not to be divided as well.
"""

import contextlib
import threading

from keras.src.losses import loss as keras_loss

_thread = threading.local()
_scale = keras_loss.scale_loss_for_distribution


@contextlib.contextmanager
def unscaled():
    """Losses that this thread computes inside are not divided by the number of replicas."""
    _install()
    before = getattr(_thread, "unscaled", False)
    _thread.unscaled = True
    try:
        yield
    finally:
        _thread.unscaled = before


def _scale_outside(value):
    return value if getattr(_thread, "unscaled", False) else _scale(value)


def _install():
    # Keras looks the function up by its name in this module, each time.
    keras_loss.scale_loss_for_distribution = _scale_outside

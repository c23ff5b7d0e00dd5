"""Signals that stop a training, and how all processes come to act on one at the same step.

What one process knows, a signal that it got or the chief's clock, travels with the numbers that
each step sums over the replicas anyway: one float32 more, and no collective of its own.
"""

import contextlib
import signal
import threading

import tensorflow as tf

STOPPING = (signal.SIGTERM, signal.SIGUSR1)

#: A wish to stop counts so much, a wish to save 1; both stay exact in float32 for 4095 replicas.
_STOP = 4096.0


class Preempted(SystemExit):
    """A signal has stopped the training, after a checkpoint was saved.

    It ends the process, unless it is caught, with 128 and the signal's number, as shells have it.

    Attributes:
        step: The step of the checkpoint.
    """

    def __init__(self, step, number):
        super().__init__(128 + number)
        self.step = step

    def __str__(self):
        return f"stopped by a signal after step {self.step}, which was saved"


class Stop:
    """Whether this process was told to stop.

    Attributes:
        number: The signal's number, or `None`.
    """

    def __init__(self):
        self.number = None

    @contextlib.contextmanager
    def listening(self):
        """Listens to `STOPPING`; a thread other than the main one cannot."""
        self.number = None
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number, frame):
            self.number = number

        before = {one: signal.signal(one, note) for one in STOPPING}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler if handler is not None else signal.SIG_DFL)


class Wishes:
    """What this process wishes, and what all of them have heard with a step's sums."""

    def __init__(self):
        with tf.init_scope(), tf.device("CPU:0"):
            self._own = tf.Variable(0.0, trainable=False)
            self._heard = tf.Variable(0.0, trainable=False)
        self._told = 0.0

    def tell(self, save, stop):
        """Tells with the next steps whether this process wants to save, or to stop."""
        wish = float(save) + _STOP * bool(stop)
        if wish != self._told:
            self._own.assign(wish)
            self._told = wish

    def share(self):
        """What goes into a step's sums, a float32 scalar; in replica context."""
        return self._own.read_value()

    def hear(self, total):
        """Takes the sum over the replicas, in the graph."""
        self._heard.assign(total)

    def heard(self):
        """`(save, stop)` as all processes have heard it since the last call."""
        total = float(self._heard.numpy())
        if total:
            self._heard.assign(0.0)
        return total % _STOP > 0, total >= _STOP

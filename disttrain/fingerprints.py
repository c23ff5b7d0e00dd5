"""Finds out whether processes that should read the same batches read different ones.

Training compares with each step, in `train_step.py`; steps without gradients compare at the end.
"""

import numpy as np
import tensorflow as tf

#: float64 counts whole numbers up to 2**53 exactly.
_PRIME, _FACTOR = 1_000_003.0, 8191.0


def different_batches():
    """The error of processes that read different batches."""
    return RuntimeError(
        "the processes read different batches; give each the whole dataset in the same order "
        "(shuffle with a seed, do not shard; a generator or PyDataset has to yield the same on "
        "each), or a function of a tf.distribute.InputContext that returns its part"
    )


class ReadOrder:
    """A number that depends on all batches a process has read and on their order.

    Args:
        replication: A `Replication`.
        shared: Whether all processes read the same global batches; else there is nothing to
            compare.
    """

    def __init__(self, replication, shared):
        self._replication = replication
        self._number = None
        if shared and replication.topology.processes > 1:
            with tf.init_scope(), tf.device("CPU:0"):
                self._number = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def reset(self):
        """Forgets what was read."""
        if self._number is not None:
            self._number.assign(0.0)

    def note(self, element):
        """Notes an element that a step has divided; called in the step's function."""
        if self._number is not None:
            with tf.device("CPU:0"):
                fingerprint = tf.cast(element["fingerprint"], tf.float64)
                after = tf.math.floormod(self._number * _FACTOR + fingerprint + 1.0, _PRIME)
                self._number.assign(after)

    def check(self):
        """Compares the processes, all of which call this.

        Raises:
            RuntimeError: They have read different batches.
        """
        if self._number is not None and not self._replication.agree(
            np.asarray(self._number.numpy())
        ):
            raise different_batches()

"""Which replication a layer is in while it is traced, and how many rows of its input count.

A thread traces one replica at a time, so the answer belongs to the thread.
"""

import contextlib
import threading

_thread = threading.local()


@contextlib.contextmanager
def activate(replication, present=None):
    """Tells layers that are called inside where they are.

    Args:
        replication: A `Replication`.
        present: float32 scalar, 0 where this replica computes on a borrowed row that counts for
            nothing, else 1; `None` for 1.
    """
    before = getattr(_thread, "state", None)
    _thread.state = (replication, present)
    try:
        yield
    finally:
        _thread.state = before


def state():
    """`(replication, present)` of the innermost `activate` of this thread, or `None`."""
    return getattr(_thread, "state", None)

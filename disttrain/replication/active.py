"""Which replication a layer is in while it is traced, and how many rows of its input count.

A thread traces one replica at a time, so the answer belongs to the thread.
"""

import contextlib
import itertools
import threading
import weakref

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

_thread = threading.local()

#: How many collectives layers have put into each function that is traced.
_collectives = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def activate(replication, present=None, rows=None):
    """Tells layers that are called inside where they are.

    Args:
        replication: A `Replication`.
        present: float32 scalar, 0 where this replica computes on a borrowed row that counts for
            nothing, else 1; `None` for 1.
        rows: How many rows count, float32 scalar; only the step of a user asks for it.
    """
    before = getattr(_thread, "state", None), getattr(_thread, "gathers", None)
    _thread.state, _thread.gathers = (replication, present), _numbered(replication, rows)
    try:
        yield
    finally:
        _thread.state, _thread.gathers = before


def _numbered(replication, rows):
    return ((replication, rows, number) for number in itertools.count())


def next_gather():
    """`(replication, rows, number of the call)` of the innermost `activate` of this thread.

    Raises:
        RuntimeError: No step of a user is being traced.
    """
    gathers = getattr(_thread, "gathers", None)
    found = next(gathers) if gathers is not None else (None, None, 0)
    if found[1] is None:
        raise RuntimeError(
            "gather works in CustomStep.losses while a Trainer trains or evaluates; it was called "
            "outside of it"
        )
    return found


def state():
    """`(replication, present)` of the innermost `activate` of this thread, or `None`."""
    return getattr(_thread, "state", None)


def collective_number():
    """A number for a collective of a layer, equal on all processes that trace the same layers.

    No two collectives of a function have the same one. Outside of functions it is 0, because there
    each collective ends before the next begins.
    """
    graph = tf.compat.v1.get_default_graph()
    if not isinstance(graph, FuncGraph):
        return 0
    while isinstance(graph.outer_graph, FuncGraph):
        graph = graph.outer_graph
    number = _collectives.get(graph, 0)
    _collectives[graph] = number + 1
    return number

"""Who goes first: what a person waits for, before what is looked at in the background."""

import contextlib
import threading


class Turns:
    """Counts the requests that a person waits for; safe to use from several threads."""

    def __init__(self):
        self._waited_for = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def first(self):
        """Surrounds the work for an answer that a person waits for."""
        with self._changed:
            self._waited_for += 1
        try:
            yield
        finally:
            with self._changed:
                self._waited_for -= 1
                self._changed.notify_all()

    def give_way(self, seconds):
        """Waits until nobody waits for an answer, at most so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waited_for, seconds)

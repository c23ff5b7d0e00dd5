"""A cache bounded by bytes, for what was read through the data provider. It knows nothing of it."""

import collections
import threading


class Cache:
    """Values by key, each good for one stamp; the least recently used ones go first.

    Safe to use from several threads.
    """

    def __init__(self, limit):
        """Keeps values up to `limit` bytes in all."""
        self._limit = limit
        self._held = 0
        self._kept = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key, stamp):
        """The value put last under a key, or `None` if there is none of that stamp."""
        with self._lock:
            kept_stamp, value, _ = self._kept.get(key, (None, None, 0))
            if value is None or kept_stamp != stamp:
                return None
            self._kept.move_to_end(key)
            return value

    def put(self, key, stamp, value, size):
        """Keeps a value of `size` bytes, in place of what the key had before."""
        with self._lock:
            _, _, replaced = self._kept.pop(key, (None, None, 0))
            self._held -= replaced
            if size > self._limit:  # It would push out everything, and then itself.
                return
            self._kept[key] = (stamp, value, size)
            self._held += size
            while self._held > self._limit:
                _, (_, _, dropped) = self._kept.popitem(last=False)
                self._held -= dropped

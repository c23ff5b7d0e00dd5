"""Writes checkpoints on a thread of its own, one at a time.

A failure, a full disk above all, is told by a warning on the thread that trains; the training goes
on with the checkpoints that are there.
"""

import concurrent.futures
import warnings


class Writer:
    """Runs one piece of work after another beside the training."""

    def __init__(self):
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "disttrain-checkpoints")
        self._running = None

    @property
    def busy(self):
        """Whether the last piece of work goes on."""
        return self._running is not None and not self._running.done()

    def start(self, work, what):
        """Begins a piece of work; waits for the one before it.

        Args:
            work: A function without arguments.
            what: What a warning calls it.
        """
        self.wait()
        self._what = what
        self._running = self._thread.submit(work)

    def look(self):
        """Warns if the last piece of work has failed.

        Returns:
            Whether it has been done; `None` where it goes on, or there was none.
        """
        if self._running is None or not self._running.done():
            return None
        done, self._running = self._running, None
        error = done.exception()
        if error is not None:
            warnings.warn(
                f"{self._what} could not be saved ({_text(error)}); training goes on, and the "
                "checkpoints before it are kept",
                stacklevel=2,
            )
        return error is None

    def wait(self):
        """Waits for the last piece of work; returns what `look` does."""
        if self._running is not None:
            concurrent.futures.wait([self._running])
        return self.look()


def _text(error):
    text = str(error).split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

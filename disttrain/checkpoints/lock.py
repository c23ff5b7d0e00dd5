"""One writer: a job holds its checkpoint directory, and a second one is told by whom it is held.

The lock is the kernel's (`flock`), so that it ends with its process however that ends; the file
says who holds it, and what a dead process has left in it means nothing.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import warnings

NAME = "lock"


class InUse(RuntimeError):
    """Another job holds the directory."""


class Lock:
    """Holds a directory.

    Args:
        directory: It exists.
    """

    def __init__(self, directory):
        self._directory = directory
        self._path = os.path.join(directory, NAME)
        self._file = None

    def acquire(self):
        """Takes the lock.

        Raises:
            InUse: Another process, or another trainer of this one, has it.
            OSError: The file cannot be written.
        """
        # Not truncated, for it may be another's.
        file = open(self._path, "a+")  # noqa: SIM115, it stays open as long as the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                holder = _holder(file)
                file.close()
                raise InUse(
                    f"the checkpoint directory {self._directory!r} is in use by {holder}; give "
                    "each job a directory of its own, or end that job"
                ) from None
            warnings.warn(
                f"the file system of {self._directory!r} knows no locks ({error.strerror}), so "
                "nothing keeps a second job out of it",
                stacklevel=2,
            )
        self._file = file
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        holder = {"host": socket.gethostname(), "process": os.getpid(), "started": now}
        # A full disk has no room for who holds it, but the lock holds all the same.
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(json.dumps(holder))
            file.flush()

    def release(self):
        """Gives the lock back."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.truncate(0)
            # What could not be written is tried again here.
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def _holder(file):
    try:
        file.seek(0)
        who = json.load(file)
        return f"process {who['process']} on {who['host']}, started at {who['started']}"
    except (ValueError, KeyError, TypeError):
        return "another process"

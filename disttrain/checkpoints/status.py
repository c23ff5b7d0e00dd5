"""`status.json`: how a training has ended, for those who start it again.

`running` means that it goes on, or was killed; the launcher's exit code does not tell which.
"""

import contextlib
import datetime
import fcntl
import json
import os
import socket

NAME = "status.json"
RUNNING, FINISHED, PREEMPTED, FAILED = "running", "finished", "preempted", "failed"


def write(directory, status, **facts):
    """Writes the status.

    Args:
        directory: The checkpoint directory.
        status: One of the constants above.
        **facts: JSON values, such as `step` and `epoch`.
    """
    with _alone(directory):
        _replace(directory, status, facts)


def write_failure(directory, rank, error, **facts):
    """Says why a training has failed, unless another rank has said so before: it is the cause.

    Args:
        directory: The checkpoint directory; where this host does not see it, nothing is written.
        rank: Index of this process.
        error: What was raised.
        **facts: As for `write`.
    """
    text = str(error).strip()
    facts |= {"rank": rank, "error": f"{type(error).__name__}: {text}" if text else repr(error)}
    # The failure itself is raised on; a disk that is full must not hide it.
    with contextlib.suppress(OSError), _alone(directory):
        if read(directory).get("status") != FAILED:
            _replace(directory, FAILED, facts)


def read(directory):
    """The status as a dictionary; empty where there is none."""
    try:
        with open(os.path.join(directory, NAME)) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def _replace(directory, status, facts):
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    content = {
        "status": status,
        **facts,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "time": now,
    }
    path = os.path.join(directory, NAME)
    with open(f"{path}.{os.getpid()}", "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.{os.getpid()}", path)


@contextlib.contextmanager
def _alone(directory):
    """Ranks on one file system take turns."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

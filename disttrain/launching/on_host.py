"""Runs a rank on its host, in the launcher's folder: `python on_host.py FOLDER COMMAND...`.

Run by its path, with no package imported, before every rank that may be on another host. ssh ends
nothing on the other side when it is cut off or killed, so a rank there is watched over; horovodrun
changes folders without quoting, so the folder comes as an argument.
"""

import os
import signal
import subprocess
import sys

_MARK = "DISTTRAIN_JOB"
_GRACE = 10


def main(arguments):
    """Runs the command; returns its exit status, 128 and the signal where one ended it."""
    folder, *command = arguments
    try:
        os.chdir(folder)
    except OSError as error:
        print(
            f"disttrain: {folder} is not on {os.uname().nodename} ({error.strerror}); start from a "
            "folder that all hosts share, or copy it there",
            file=sys.stderr,
        )
        return 1
    watched = None if _started_here(os.getppid()) else _server(os.getppid())
    if watched is None:
        try:
            os.execvp(command[0], command)
        except OSError as error:
            return _cannot_run(command, error)
    return _watch_over(command, watched)


def _watch_over(command, server):
    """Runs a command until it ends or the ssh server's process for this session does."""
    try:
        child = subprocess.Popen(command, start_new_session=True)
    except OSError as error:
        return _cannot_run(command, error)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: child.terminate())
    while True:
        try:
            status = child.wait(1)
            break
        except subprocess.TimeoutExpired:
            if not os.path.exists(f"/proc/{server}"):
                child.terminate()
                try:
                    child.wait(_GRACE)
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, signal.SIGKILL)
    return 128 - status if status < 0 else status


def _cannot_run(command, error):
    print(f"disttrain: {command[0]} cannot be run ({error.strerror})", file=sys.stderr)
    return 127


def _started_here(parent):
    """Whether the launcher runs on this machine: its own child carries the job's mark."""
    mark = f"{_MARK}={os.environ.get(_MARK, '')}".encode()
    return mark in _read(f"/proc/{parent}/environ").split(b"\0")


def _server(pid):
    """The ssh server's process that this one descends from, or `None`."""
    while pid > 1:
        status = dict(
            line.split(":\t", 1)
            for line in _read(f"/proc/{pid}/status").decode().splitlines()
            if ":\t" in line
        )
        if status.get("Name", "").startswith("sshd"):
            return pid
        pid = int(status.get("PPid", 0))
    return None


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

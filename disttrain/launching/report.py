"""How a job ends for the user: one error, once, with the exit status of the rank to blame."""

import contextlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile

from disttrain.launching import blame


class Log:
    """A file for what all ranks write, used as a context.

    Args:
        path: Its path, or `None` for a temporary one, which is removed unless it is `kept`.

    Attributes:
        path: Its path.
        file: The binary file.
        kept: Whether a temporary one stays.

    Raises:
        ValueError: It cannot be written.
    """

    def __init__(self, path=None):
        self.kept = path is not None
        self.path = path
        try:
            if path is None:
                handle, self.path = tempfile.mkstemp(prefix="disttrain-", suffix=".log")
                self.file = os.fdopen(handle, "wb")
            else:
                pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
                self.file = open(path, "wb")  # noqa: SIM115, closed by __exit__
        except OSError as error:
            raise ValueError(
                f"the log {self.path or tempfile.gettempdir()} cannot be written "
                f"({error.strerror}); choose another one with --log FILE"
            ) from error

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
        if not self.kept and error[0] is None:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.path)


def environment():
    """The environment of the ranks: their output goes through here to the user's terminal."""
    made = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    if sys.stdout.isatty():
        made["DISTTRAIN_TERMINAL"] = "1"
        made.setdefault("COLUMNS", str(shutil.get_terminal_size().columns))
    made.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    made["PYTHONUNBUFFERED"] = "1"
    return made


def finish(ends, screen, stopped, name, log, where=lambda rank: "", lost=list):
    """Says how the job has ended, where that is not by success.

    Args:
        ends: `blame.End`s of the ranks, in the order of time.
        screen: The `Screen`, whose rank 0 the user has seen.
        stopped: The signal that has stopped the job, or `None`.
        name: What the job is called.
        log: The `Log`; a failure keeps it.
        where: A function from a rank to where it ran, such as `" on host1"`.
        lost: Called where ranks have lost each other; returns the hosts that do not answer.

    Returns:
        The exit status of the job.
    """
    if stopped is not None:
        signalled = _NAMES.get(stopped) or signal.Signals(stopped).name
        _say(f"stopped by {signalled}; all processes have ended.")
        return 128 + stopped
    end = blame.culprit(ends)
    if end is None:
        return 0
    log.kept = True
    words = blame.error(end.words)
    if words and words[-1:] != blame.error(screen.last_words(0))[-1:]:
        print("\n".join(words), file=sys.stderr)
    reason = f"{name} failed in rank {end.rank}{where(end.rank)} with status {end.status}"
    if end.lost_a_partner or end.terminated:
        gone = lost()
        if gone:
            plural = "does" if len(gone) == 1 else "do"
            reason += f", for it has lost its partners: {', '.join(gone)} {plural} not answer"
    if any("connect [127." in line for line in words):
        # As released, its process sets look up the machine's own name, whatever the interface.
        reason += (
            ", for a host takes its own name for 127.*; give it its address on the network in "
            "/etc/hosts, or use the Horovod that launch/setup.sh builds"
        )
    _say(f"{reason}; {log.path} holds what every rank wrote.")
    return end.status


_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


def _say(text):
    print(f"disttrain: {text}", file=sys.stderr, flush=True)

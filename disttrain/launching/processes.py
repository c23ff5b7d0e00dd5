"""Starts the processes of a job, passes signals on, and leaves none behind."""

import contextlib
import math
import os
import pathlib
import selectors
import signal
import subprocess
import time
import uuid

from disttrain.launching.output import Lines

#: Seconds between asking a process to end and killing it; horovodrun gives its ranks 5.
GRACE = 10

#: Carries the job's name to all of its processes, by which those left over are found.
MARK = "DISTTRAIN_JOB"


class Processes:
    """Processes whose output is read as it comes. Used as a context, which ends what is left.

    Attributes:
        mark: The job's name, in the environment of every process under `MARK`.
        stopped: The signal that has stopped the job, or `None`.
    """

    def __init__(self):
        self.mark = uuid.uuid4().hex
        self.stopped = None
        self._selector = selectors.DefaultSelector()
        self._running = {}
        self._end_at = self._kill_at = None
        self._handlers = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            # Under nohup the job outlives its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *error):
        for process in self._running.values():
            _signal(process, signal.SIGKILL)
        for pid in self.leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._selector.close()

    def start(self, key, command, take, environment, at_once=False):
        """Starts a process in a session of its own, so that Ctrl-C reaches it only from here.

        Args:
            key: What it is called in `ended`.
            command: A list of strings.
            take: Called with `("stdout" or "stderr", bytes)` for each line.
            environment: Its environment.
            at_once: As for `Lines`, for its standard output.

        Raises:
            ValueError: The program cannot be started.
        """
        try:
            process = subprocess.Popen(
                command,
                env={**environment, MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ValueError(f"{command[0]} cannot be run ({error.strerror})") from error
        self._running[key] = process
        for name in ("stdout", "stderr"):
            stream = getattr(process, name)
            os.set_blocking(stream.fileno(), False)
            # An error has to stay in its lines to be told from another.
            raw = at_once and name == "stdout"
            lines = Lines(lambda line, name=name: take(name, line), raw)
            self._selector.register(stream, selectors.EVENT_READ, lines)

    def ended(self):
        """Yields `(key, exit status)` as processes end; 128 and the signal where one ended it."""
        while self._running:
            self._read(0.1)
            for key, process in list(self._running.items()):
                status = process.poll()
                if status is None:
                    continue
                del self._running[key]
                self._read_rest(process)
                yield key, 128 - status if status < 0 else status
            self._enforce()

    def terminate(self, grace=GRACE, after=0):
        """Asks all processes to end, and has them killed after a while.

        Args:
            grace: Seconds between the two.
            after: Seconds before the first.
        """
        if self._end_at is None:
            self._end_at = time.monotonic() + after
            self._kill_at = self._end_at + grace

    def _enforce(self):
        now = time.monotonic()
        if self._end_at is not None and now >= self._end_at:
            self._end_at = math.inf
            for process in self._running.values():
                # To the process alone: what it has started is its own to end.
                process.terminate()
        if self._kill_at is not None and now >= self._kill_at:
            for process in self._running.values():
                _signal(process, signal.SIGKILL)

    def leftovers(self):
        """Ids of processes of this job that still run, wherever they have moved."""
        wanted = f"{MARK}={self.mark}".encode()
        for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if wanted in path.read_bytes().split(b"\0"):
                    yield int(path.parent.name)

    def _stop(self, number, frame):
        if self.stopped is None:
            self.stopped = number
            self._end_at = None  # a failure may have set it to later
            self.terminate()
        elif number == signal.SIGINT:
            self._kill_at = 0.0  # whoever presses it twice does not want to wait

    def _read(self, seconds):
        for key, _ in self._selector.select(seconds):
            self._pass_on(key)

    def _pass_on(self, key):
        data = key.fileobj.read()
        if data is None:
            return False
        key.data.feed(data)
        if not data:
            self._selector.unregister(key.fileobj)
            key.fileobj.close()
        return bool(data)

    def _read_rest(self, process):
        """What an ended process has left in its pipes; a child of it may hold them open."""
        for stream in (process.stdout, process.stderr):
            while stream in {key.fileobj for key in self._selector.get_map().values()}:
                if not self._pass_on(self._selector.get_key(stream)):
                    break
            if not stream.closed:
                self._selector.unregister(stream).data.feed(b"")


def _signal(process, number):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)

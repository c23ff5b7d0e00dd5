"""Writes a run's event file: packed summaries for the plugin, and plain scalars beside them.

The chief alone has one. A failure to write warns once and never stops a training.
"""

import concurrent.futures
import json
import os
import socket
import tempfile
import threading
import time
import warnings

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto import event_pb2

from disttrain.telemetry.events import Encoder, Record

#: Batches of records that may wait for the disk.
_MOST_WAITING = 64

#: Seconds after which a page that follows gets to see what was written.
_FLUSH_SECONDS = 2.0

#: Seconds that a flush waits for the disk.
_PATIENCE = 30.0


def check_writable(logdir):
    """Makes the directory, and proves that a file can be written in it.

    Raises:
        RuntimeError: It cannot be made, or nothing can be written there.
    """
    try:
        os.makedirs(logdir, exist_ok=True)
        with tempfile.TemporaryFile(dir=logdir):
            pass
    except OSError as error:
        raise RuntimeError(
            f"the log directory {logdir!r} cannot be written ({error.strerror or error}); choose "
            "another logdir, or telemetry=None and logdir=None to write nothing"
        ) from error


def warn_of_older_run(logdir):
    """Points out that a directory holds a run already, which readers would take for the same."""
    if any(".tfevents." in name for name in os.listdir(logdir)):
        warnings.warn(
            f"the log directory {logdir!r} already holds a run; TensorBoard will show the later of "
            "two records of one step, so give each run a directory of its own",
            stacklevel=5,
        )


class EventFile:
    """A new event file, by TensorFlow's writer: TensorBoard's own takes its checksums in Python.

    Args:
        logdir: The run's directory.
    """

    def __init__(self, logdir):
        os.makedirs(logdir, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        # Two runs of one process within a second are two files.
        number = sum(found.startswith(name) for found in os.listdir(logdir))
        self._path = os.path.join(logdir, f"{name}.{number}")
        self._writer = tf.io.TFRecordWriter(self._path)
        self._flushed = time.monotonic()
        first = event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2")
        self.write(first.SerializeToString())
        self.flush()

    def write(self, event):
        """Writes a serialized `Event`."""
        self._writer.write(event)

    def flush(self):
        """Hands what was written to the file system.

        Raises:
            FileNotFoundError: Somebody has removed the file, which writing alone would not tell.
        """
        self._writer.flush()
        if not os.path.exists(self._path):
            raise FileNotFoundError(f"{self._path!r} is gone")
        self._flushed = time.monotonic()

    def flush_now_and_then(self):
        """The same, unless it was a moment ago."""
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def close(self):
        """Closes the file."""
        self._writer.close()


class Recorder:
    """The event file of one run.

    Records are put together and written on a thread of its own. A failure is told by one warning,
    at the next call, and ends the recording, never the training.

    Args:
        logdir: The run's directory.
    """

    def __init__(self, logdir):
        self._file = EventFile(logdir)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "disttrain-telemetry")
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)
        self._encoder = Encoder()
        self._failure = None
        self._warned = False
        self._dropped = 0

    def write(self, records):
        """Writes `Record`s; returns at once."""
        self._tell()
        if self._failure is not None:
            return
        # A disk that hangs must not hold up the training, nor fill the memory.
        if not self._waiting.acquire(blocking=False):
            self._dropped += len(records)
            warn_once(
                "the event file is written more slowly than records come; some are dropped, and "
                "training goes on"
            )
            return
        self._thread.submit(self._write_and_release, records)

    def write_part(self, tag, description, steps, rows, wall_times):
        """Writes packed records of one tag.

        Args:
            tag: `metadata.LAYERS` or another of `metadata.TAGS`.
            description: The `metadata.Part` of the rows.
            steps: Step numbers, `[n]`.
            rows: float32 `[n, ...]`.
            wall_times: Seconds since the epoch, `[n]`.
        """
        self.write(
            [
                Record(step, wall_time, {tag: (description, row)}, {})
                for step, row, wall_time in zip(steps, rows, wall_times, strict=True)
            ]
        )

    def write_scalars(self, scalars, step, wall_time=None):
        """Writes numbers for TensorBoard's own pages.

        Args:
            scalars: As in `Record`.
            step: Step number.
            wall_time: Seconds since the epoch; now by default.
        """
        self.write([Record(step, wall_time or time.time(), {}, dict(scalars))])

    def flush(self):
        """Hands what was written to the file system."""
        self._finish(lambda: self._file.flush())

    def close(self):
        """Writes what is left and closes the file."""
        self._finish(lambda: self._file.close())

    def _finish(self, action):
        done = self._thread.submit(self._guard, action)
        # A file system that hangs gets some time, not for ever.
        concurrent.futures.wait([done], timeout=_PATIENCE)
        self._tell()

    def _write_and_release(self, records):
        try:
            for record in records:
                self._guard(lambda record=record: self._file.write(self._encoder.encode(record)))
            self._guard(lambda: self._file.flush_now_and_then())
        finally:
            self._waiting.release()

    def _guard(self, action):
        if self._failure is not None:
            return
        try:
            action()
        except Exception as error:  # The writer's thread raises what TensorFlow's files raise.
            self._failure = error

    def _tell(self):
        """Warns of a failure, in the thread that trains, once."""
        if self._failure is not None and not self._warned:
            self._warned = True
            warnings.warn(
                f"telemetry stops: the event file could not be written ({self._failure}); training "
                "goes on",
                stacklevel=4,
            )


_told = set()


def warn_once(text):
    """Warns, but not twice of the same."""
    if text not in _told:
        _told.add(text)
        warnings.warn(text, stacklevel=4)


def jsonable(value):
    """A configuration as JSON values; what JSON cannot hold becomes its text."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return repr(value)

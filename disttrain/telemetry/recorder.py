"""Writes a run's event file: packed summaries for the plugin, and plain scalars beside them.

The chief alone has one. Records go through TensorBoard's own writer, which writes on a thread of
its own. A failure to write warns once and never stops a training.
"""

import json
import os
import tempfile
import time
import warnings

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

from tensorboard_plugin import metadata


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


class Recorder:
    """The event file of one run.

    Args:
        logdir: The run's directory.
    """

    def __init__(self, logdir):
        self._writer = EventFileWriter(logdir, max_queue_size=1000, flush_secs=5)
        self._described = set()
        self._failed = False
        self._parts = {}

    def write_part(self, tag, description, steps, rows, wall_times):
        """Writes packed records.

        Args:
            tag: `metadata.LAYERS` or another of `metadata.TAGS`.
            description: The `metadata.Part` of the rows; a new one opens a new part.
            steps: Step numbers, `[n]`.
            rows: float32 `[n, ...]`.
            wall_times: Seconds since the epoch, `[n]`.
        """
        for step, row, wall_time in zip(steps, rows, wall_times, strict=True):
            part = self._parts.get(tag)
            if part is None or part[1] != description or part[2] > metadata.PART_BYTES:
                number = 0 if part is None else part[0] + 1
                part = self._parts[tag] = [number, description, 0]
            part[2] += row.nbytes
            summary = summary_pb2.SummaryMetadata(data_class=summary_pb2.DATA_CLASS_TENSOR)
            summary.plugin_data.plugin_name = metadata.PLUGIN_NAME
            summary.plugin_data.content = metadata.encode(tag, description)
            self._write(metadata.part_tag(tag, part[0]), row, step, wall_time, summary)

    def write_scalars(self, scalars, step, wall_time=None):
        """Writes numbers for TensorBoard's own pages.

        Args:
            scalars: Tag to number; what is not one number is left out.
            step: Step number.
            wall_time: Seconds since the epoch; now by default.
        """
        for tag, value in scalars.items():
            value = np.asarray(value)
            if value.size == 1 and np.issubdtype(value.dtype, np.number):
                summary = scalar_metadata.create_summary_metadata("", "")
                summary.data_class = summary_pb2.DATA_CLASS_SCALAR
                value = np.float32(value.reshape(()))
                self._write(tag, value, step, wall_time or time.time(), summary)

    def _write(self, tag, value, step, wall_time, summary):
        if self._failed:
            return
        value = summary_pb2.Summary.Value(
            tag=tag, tensor=tensor_util.make_tensor_proto(np.asarray(value))
        )
        # Readers look at a tag's first metadata only.
        if tag not in self._described:
            self._described.add(tag)
            value.metadata.CopyFrom(summary)
        event = event_pb2.Event(
            wall_time=float(wall_time), step=int(step), summary=summary_pb2.Summary(value=[value])
        )
        self._guard(lambda: self._writer.add_event(event))

    def flush(self):
        """Hands what was written to the file system."""
        self._guard(self._writer.flush)

    def close(self):
        """Writes what is left and closes the file."""
        self._guard(self._writer.close)

    def _guard(self, action):
        if self._failed:
            return
        try:
            action()
        except Exception as error:  # The writer's thread raises what TensorFlow's files raise.
            self._failed = True
            warnings.warn(
                f"telemetry stops: the event file could not be written ({error}); training goes on",
                stacklevel=3,
            )


def jsonable(value):
    """A configuration as JSON values; what JSON cannot hold becomes its text."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return repr(value)

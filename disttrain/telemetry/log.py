"""Brings the probe's rows and the host's clock together, and hands both to the recorder."""

import collections
import time

import numpy as np

from disttrain.telemetry import recorder
from disttrain.telemetry.probe import Probe
from tensorboard_plugin import metadata

#: Seconds after which rows are written even if the buffer has room, so that a page can follow.
_PATIENCE = 2.0

_NAMES = [s.name for s in metadata.STEP_QUANTITIES]


class RunLog:
    """What a process writes about a run; every process has one, only the chief's writes.

    Args:
        logdir: The run's directory, or `None`.
        replicas: Number of replicas.

    Attributes:
        steps_done: Steps that the run has made, skipped ones included.
    """

    def __init__(self, logdir, replicas):
        self._recorder = recorder.Recorder(logdir) if logdir else None
        self._replicas = replicas
        self._probes = {}
        self._timings = collections.deque()
        self._pending = 0
        self._last_read = time.monotonic()
        self.steps_done = 0

    @classmethod
    def open(cls, logdir, replication):
        """Opens the run's directory on the chief, and fails on every process if that fails."""
        if logdir is None:
            return cls(None, replication.replicas)
        logdir = str(logdir)
        problem = None
        if replication.is_chief:
            try:
                recorder.check_writable(logdir)
            except RuntimeError as error:
                problem = error
            else:
                recorder.warn_of_older_run(logdir)
        if replication.any(problem is not None):
            raise problem or RuntimeError(f"the chief cannot write the log directory {logdir!r}")
        return cls(logdir if replication.is_chief else None, replication.replicas)

    def probe(self, options, task, steps_per_execution):
        """A new `Probe` for the optimizer and variables of `task`, or `None` if none is needed."""
        if self._recorder is None or options is None:
            return None
        optimizer = task.optimizer
        variables = task.model.trainable_variables
        probe = Probe(options, optimizer.inner, variables, self.steps_done, steps_per_execution)
        config = recorder.jsonable(
            {
                "class_name": type(optimizer.inner).__name__,
                "config": optimizer.inner.get_config(),
                "clip": repr(optimizer.clip) if optimizer.clip else None,
                "loss_scale": repr(optimizer.loss_scale) if optimizer.loss_scale else None,
                "reduction": optimizer.reduction.kind,
                "compression": optimizer.reduction.compression,
                "accumulate_steps": optimizer.accumulate_steps,
            }
        )
        self._probes[id(probe)] = (
            probe.part_of_layers(config, self._replicas),
            metadata.Part(tuple(_NAMES), (), config, self._replicas),
        )
        return probe

    def executed(self, probe, steps, seconds):
        """Notes one execution, and reads the probe when that is due.

        Args:
            probe: The `Probe`, or `None`.
            steps: Steps that it made.
            seconds: Time that it took.
        """
        first = self.steps_done + 1
        self.steps_done += steps
        if probe is None or steps == 0:
            return
        last = self.steps_done
        recorded = probe.options.count(first, last)
        if recorded:
            self._timings.append((last, seconds / steps, time.time()))
            self._pending += recorded
        room = probe.capacity - self._pending
        most = probe.options.count(1, steps) + 1
        if self._pending and (room < most or time.monotonic() - self._last_read > _PATIENCE):
            self.read(probe)

    def read(self, probe):
        """Writes the rows that the probe has kept."""
        self._last_read = time.monotonic()
        self._pending = 0
        if probe is None or self._recorder is None:
            return
        steps, layers, quantities, examples = probe.read()
        if not len(steps):
            return
        ends = np.asarray([end for end, _, _ in self._timings])
        places = np.searchsorted(ends, steps)
        timings = list(self._timings)
        seconds = np.asarray([timings[i][1] for i in places])
        walls = [timings[i][2] for i in places]
        self._timings.clear()
        quantities[:, _NAMES.index("step_seconds")] = seconds
        quantities[:, _NAMES.index("examples_per_second")] = examples / np.maximum(seconds, 1e-9)
        of_layers, of_steps = self._probes[id(probe)]
        self._recorder.write_part(metadata.LAYERS, of_layers, steps, layers, walls)
        self._recorder.write_part(metadata.STEPS, of_steps, steps, quantities, walls)
        for step, row, wall in zip(steps, quantities, walls, strict=True):
            plain = {name: row[_NAMES.index(name)] for name in ("loss", "learning_rate")}
            self._recorder.write_scalars(plain, step, wall)

    def scalars(self, scalars):
        """Writes the numbers of an epoch for TensorBoard's own pages."""
        if self._recorder is not None:
            self._recorder.write_scalars(scalars, self.steps_done)

    def flush(self):
        """Hands what was written to the file system."""
        if self._recorder is not None:
            self._recorder.flush()

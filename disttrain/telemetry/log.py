"""Brings the observer's rows and the host's clock together, and hands both to the recorder."""

import collections
import math
import time
import weakref

import numpy as np

from disttrain.telemetry import recorder
from disttrain.telemetry.alerts import Alerts, Chunk
from disttrain.telemetry.observer import Observer
from disttrain.telemetry.recording import QUANTITIES, Recording
from disttrain.telemetry.ring import Plan
from tensorboard_plugin import metadata

#: Seconds after which rows are written even if the buffer has room, so that a page can follow.
_PATIENCE = 2.0

#: Executions between two reads, however seldom is recorded.
_MOST_TIMINGS = 10_000

_PLAIN = ("loss", "learning_rate")

#: Records whose plain scalars are all written; TensorBoard keeps as many of a tag.
_SCALARS = 1000


class RunLog:
    """What a process writes about a run; every process has one, only the chief's writes.

    Args:
        logdir: The run's directory, or `None`.
        replication: A `Replication`.

    Attributes:
        steps_done: Steps that the run has made, skipped ones included.
    """

    def __init__(self, logdir, replication):
        self._replication = replication
        self._alone = replication.topology.processes == 1
        self._wanted = logdir is not None
        self._recorder = None
        if self._wanted and replication.is_chief:
            self._recorder = recorder.Recorder(str(logdir))
        self._alerts = Alerts()
        self._runs = weakref.WeakKeyDictionary()
        self._thinnings = []
        self._timings = collections.deque()
        self._pending = self._pending_histograms = 0
        self._last_read = time.monotonic()
        self._written = 0
        # The last step that was accounted for, the next that is recorded, and the next before
        # which something may have to be decided; the latter two are never too late.
        self._accounted = self._recorded_next = self._decide = 0
        self.steps_done = 0

    @classmethod
    def open(cls, logdir, replication, goes_on=False):
        """Opens the run's directory on the chief, and fails on every process if that fails.

        Args:
            logdir: As for `RunLog`.
            replication: As for `RunLog`.
            goes_on: Whether the run may go on from a checkpoint, so that an older event file there
                is its own; on the chief.
        """
        if logdir is None:
            return cls(None, replication)
        logdir = str(logdir)
        problem = None
        if replication.is_chief:
            try:
                recorder.check_writable(logdir)
            except RuntimeError as error:
                problem = error
            else:
                if not goes_on:
                    recorder.warn_of_older_run(logdir)
        if replication.any(problem is not None):
            raise problem or RuntimeError(f"the chief cannot write the log directory {logdir!r}")
        return cls(logdir, replication)

    @property
    def findings(self):
        """What the health rules have found so far; on the chief."""
        return tuple(self._alerts.findings)

    def observer(self, options, optimizer, variables, steps_per_execution):
        """A new `Observer`, or `None` where nothing is to be recorded.

        Args:
            options: A `Telemetry`, or `None`.
            optimizer: The built `DistributedOptimizer`.
            variables: The trainable variables, in model order.
            steps_per_execution: Steps between two calls of `executed`.
        """
        if not self._wanted or options is None:
            return None
        observer = Observer(
            options,
            optimizer.inner,
            variables,
            self._replication,
            self.steps_done,
            steps_per_execution,
        )
        # What comes after a switch of the optimizer shares the run's budget.
        self._decide = 0
        left = max(0, int(options.budget) - sum(t.used for t in self._thinnings))
        run = Recording(
            observer, options, optimizer, self._replication.replicas, left, steps_per_execution
        )
        self._thinnings += run.thinnings
        self._runs[observer] = run
        return observer

    def go_on_from(self, step, observer):
        """Goes on after so many steps, which another process has made; before the first step.

        Args:
            step: Steps done.
            observer: The `Observer`, or `None`.
        """
        self.steps_done = self._accounted = step
        self._recorded_next = self._decide = 0
        if observer is not None:
            observer.go_on_from(step)

    def expect_last(self, observer, step):
        """Has the step of this number recorded, which will be the last one."""
        if observer is not None:
            self._account(observer)
            self._decide = 0
            plan = observer.plan
            observer.follow(Plan(plan.every, plan.histograms, step))

    def executed(self, observer, steps, seconds):
        """Notes one execution, and reads the observer when that is due.

        Args:
            observer: The `Observer`, or `None`.
            steps: Steps that it made.
            seconds: Time that it took.
        """
        last = self.steps_done = self.steps_done + steps
        if observer is None or steps == 0:
            self._accounted = last
            return
        self._timings.append((last, seconds / steps, time.time()))
        waited = self._alone and time.monotonic() - self._last_read > _PATIENCE
        waited = waited and (self._pending or last >= self._recorded_next)
        if last + steps < self._decide and not waited and len(self._timings) < _MOST_TIMINGS:
            # This goes on at every step, so it has to be short.
            return
        self._account(observer)
        # By the number of steps alone where processes have to agree.
        plan, coming = observer.plan, (last + 1, last + steps)
        self._recorded_next = plan.next_after(last)
        rows = observer.capacity - self._pending
        counts = observer.histogram_capacity - self._pending_histograms
        full = plan.count(*coming) > rows or plan.count_histograms(*coming) > counts
        if full or waited or len(self._timings) >= _MOST_TIMINGS:
            self.read(observer)
            rows, counts = observer.capacity, observer.histogram_capacity
        safe = min(observer.plan.last_within(last, rows, counts), self._runs[observer].steady)
        self._decide = max(self._recorded_next, safe + 1)

    def _account(self, observer):
        """Catches up with the steps that were done, and with what the budget makes of them."""
        first, last = self._accounted + 1, self.steps_done
        self._accounted = last
        if first > last:
            return
        plan = observer.plan
        recorded, counted = plan.count(first, last), plan.count_histograms(first, last)
        self._pending += recorded
        self._pending_histograms += counted
        self._runs[observer].thin(observer, recorded, counted, last)

    def read(self, observer, gather=True):
        """Writes what the observer has kept. Called by every process at the same steps.

        Args:
            observer: The `Observer`, or `None`.
            gather: Whether the processes exchange what each has recorded of its own part.
        """
        self._last_read = time.monotonic()
        if observer is not None:
            self._account(observer)
        timings = list(self._timings)
        self._timings.clear()
        self._pending = self._pending_histograms = 0
        if observer is None:
            return
        rows = observer.read()
        if rows is None or not len(rows.steps):
            return
        run = self._runs[observer]
        seconds, walls = _when(rows.steps, timings)
        replicas = None
        if rows.local is not None:
            replicas = self._all_replicas(_with_seconds(rows.local, seconds), gather)
        if self._recorder is not None:
            self._write(run, rows, replicas, seconds, walls)

    def _all_replicas(self, own, gather):
        """`[n, local replicas, k]` of each process as `[n, replicas, k]`; NaN if not gathered."""
        if self._alone:
            return own
        if gather:
            return np.concatenate(list(self._replication.all_gather(own)), axis=1)
        missing = self._replication.replicas - own.shape[1]
        return np.pad(own, [(0, 0), (0, missing), (0, 0)], constant_values=np.nan)

    def _write(self, run, rows, replicas, seconds, walls):
        quantities = rows.quantities
        quantities[:, QUANTITIES.index("step_seconds")] = seconds
        quantities[:, QUANTITIES.index("examples_per_second")] = rows.examples / np.maximum(
            seconds, 1e-9
        )
        if replicas is not None:
            quantities[:, QUANTITIES.index("noise_scale")] = run.noise_scales(rows, replicas)
            replicas = run.replica_columns(replicas)
        counted = np.asarray(rows.histogram_steps).tolist()
        histograms = dict(zip(counted, rows.histograms, strict=True))
        records = []
        for i, step in enumerate(rows.steps.tolist()):
            parts = {
                metadata.LAYERS: (run.layers, rows.layers[i]),
                metadata.STEPS: (run.steps, quantities[i]),
            }
            if replicas is not None:
                parts[metadata.REPLICAS] = (run.replicas, replicas[i])
            if step in histograms:
                parts[metadata.HISTOGRAMS] = (run.histograms, histograms[step])
            plain = {name: quantities[i, QUANTITIES.index(name)] for name in self._plain()}
            if math.isnan(plain.get("learning_rate", 0.0)):
                del plain["learning_rate"]  # several optimizers have several
            records.append(recorder.Record(step, walls[i], parts, plain))
        self._recorder.write(records)
        if run.warns:
            self._alerts.add(Chunk(run.layers, rows.steps, rows.layers, quantities, replicas))

    def _plain(self):
        """Scalars of the next record, in steps that grow: TensorBoard shows about 1000 of them."""
        self._written += 1
        return _PLAIN if self._written % (1 + self._written // _SCALARS) == 0 else ()

    def rescue(self, observer):
        """Writes what this process alone still knows, after an error."""
        try:
            self.read(observer, gather=False)
        except Exception as error:  # It must not hide the error that led here.
            recorder.warn_once(f"the last records are lost ({error})")

    def scalars(self, scalars):
        """Writes the numbers of an epoch for TensorBoard's own pages."""
        if self._recorder is not None:
            self._recorder.write_scalars(scalars, self.steps_done)

    def flush(self):
        """Hands what was written to the file system."""
        if self._recorder is not None:
            self._recorder.flush()

    def finish(self):
        """The same at the end of a training, and warns of what is wrong with its last records."""
        self.flush()
        self._alerts.finish()


def _when(steps, timings):
    """`(seconds, wall times)` of the steps, from the executions that they were part of.

    Those of an execution that has failed are not known: NaN, and now.
    """
    timings = [*timings, (steps[-1], math.nan, time.time())]
    ends = np.asarray([end for end, _, _ in timings])
    places = np.searchsorted(ends, steps)
    seconds = np.asarray([timings[i][1] for i in places], np.float32)
    return seconds, [timings[i][2] for i in places]


def _with_seconds(local, seconds):
    """`[n, replicas, k]` with the time of a step behind, which only the host knows."""
    column = np.broadcast_to(seconds[:, None, None], (*local.shape[:2], 1))
    return np.ascontiguousarray(np.concatenate([local, column], axis=2), np.float32)

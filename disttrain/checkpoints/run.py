"""Ties a trainer to its checkpoints: when one is saved, what all processes do for it, and going on.

Every process has a `Run` and makes the same calls at the same steps; the chief alone reads and
writes the directory.
"""

import contextlib
import dataclasses
import functools
import socket
import time

import numpy as np

from disttrain.batches import Place
from disttrain.checkpoints import adapting, comparing, exchange, facts, packing, status
from disttrain.checkpoints import callbacks as saved_callbacks
from disttrain.checkpoints.lock import Lock
from disttrain.checkpoints.signals import Preempted, Stop, Wishes
from disttrain.checkpoints.state import State
from disttrain.checkpoints.store import Store
from disttrain.checkpoints.writer import Writer
from disttrain.replication.elastic import Regroup


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a call of `fit` goes on.

    Attributes:
        epoch: The epoch, from 0.
        batches: Its batches that are done.
        over: Whether there is nothing left to do.
        restored: Whether the variables are those of the checkpoint; those of a later call are left
            to that call.
    """

    epoch: int
    batches: int
    over: bool = False
    restored: bool = True


class Run:
    """The checkpoints of one trainer.

    Args:
        options: A `disttrain.Checkpoint`.
        replication: A `Replication`.
        log: The `disttrain.telemetry.log.RunLog`.
        seed: The trainer's seed.

    Attributes:
        wishes: For the training step: what processes tell each other; `None` where there is one.
    """

    def __init__(self, options, replication, log, seed):
        self._options = options
        self._replication = replication
        self._log = log
        self._seed = seed
        self._several = replication.topology.processes > 1
        self._store = Store(options)
        self._writer = Writer()
        self._stop = Stop()
        self.wishes = Wishes() if self._several else None
        # Calls of `fit`, and whether one of them has gone on from a checkpoint or looked for one.
        self._call = -1
        self._manifest = self._tensors = None
        self._looked = self._resumed = False
        self._state = self._step = self._task = self._batches = None
        self._config = (None, None)
        self._best = None
        self._place = (0, 0)
        self._on_disk = None
        self._saved_step = self._saved_at = None

    @contextlib.contextmanager
    def fit(self, task, batches, epochs):
        """What surrounds one call of `Trainer.fit`.

        Args:
            task: The built `disttrain.task.Task`.
            batches: The `disttrain.batches.Batches` of the call.
            epochs: As for `Trainer.fit`.

        Raises:
            InUse: Another job uses the directory.
            NoneIsGood: All checkpoints are damaged.
            Preempted: A signal has stopped the training.
        """
        self._call += 1
        self._task, self._batches, self._epochs = task, batches, epochs
        lock = Lock(self._options.directory)
        try:
            exchange.told_by_chief(self._replication, lambda: self._open(lock))
            with self._stop.listening():
                try:
                    yield self
                    self._end(status.FINISHED)
                except Preempted:
                    raise
                except BaseException as error:
                    if self._replication.begins_anew(error):
                        self._writer.wait()
                    else:
                        self._fail(error)
                    raise
        finally:
            lock.release()

    def _open(self, lock):
        """Takes the directory; on the chief."""
        self._store.make()
        lock.acquire()
        # Only now, for another job's checkpoint may be half written.
        self._store.clean()
        self._write_status(status.RUNNING)

    # Going on.

    def go_on(self, current_step, observer):
        """Goes on from the newest checkpoint if there is one, in the first call that it concerns.

        Args:
            current_step: The `TrainStep`.
            observer: The telemetry's `Observer`, or `None`.

        Returns:
            A `Position`, or `None` where the call begins anew.

        Raises:
            Changed: The program is not the one that has written the checkpoint.
        """
        self._note_config()
        manifest = self._looked_up()
        if manifest is not None and self._call < manifest["place"]["fit"]:
            # A later call wrote the checkpoint, so this one had been done.
            return Position(self._epochs, 0, over=True, restored=False)
        self._state_of(current_step)
        if manifest is None or self._call > manifest["place"]["fit"]:
            self._begin_counting()
            return None
        now = self._compared(self._state)
        ratios = comparing.check(manifest, now)
        self._restore(manifest, self._state, ratios)
        self._log.go_on_from(manifest["step"], observer)
        self._begin_counting()
        place = manifest["place"]
        data, batches = adapting.place(manifest, now)
        self._resumed = True
        self._batches.go_to(Place(**data), within_epoch=batches > 0, epochs=place["epoch"])
        over = place["stopped"] and self._epochs <= place["epochs"]
        return Position(place["epoch"], batches, over)

    def goes_on(self):
        """Whether `go_on` will find a checkpoint of this call, or of a later one."""
        # What the program has set, before anything changes it.
        self._note_config()
        manifest = self._looked_up()
        return manifest is not None and self._call <= manifest["place"]["fit"]

    def _looked_up(self):
        """The manifest of the newest checkpoint, or `None`."""
        if not self._looked:
            self._looked = True
            self._manifest = exchange.told_by_chief(self._replication, self._load)
        return self._manifest

    def _state_of(self, step):
        """The `State` with this `TrainStep`."""
        if self._state is None or self._step is not step:
            self._writer.wait()  # It may write from the memory of the one before.
            self._state, self._step = State(self._task, step), step
            # Gets the memory for copies now, and not in the first step that waits for one.
            self._state.copy(self._replication.is_chief)
        return self._state

    def _load(self):
        """Reads the newest checkpoint; on the chief."""
        manifest, self._tensors = self._store.newest() or (None, None)
        self._best = self._store.best_value()
        return manifest

    def _restore(self, manifest, state, ratios):
        replication, topology = self._replication, self._replication.topology
        tensors, self._tensors = self._tensors, None
        if replication.is_chief:
            self._tensors = saved_callbacks.tensors_of(manifest["host"], tensors)
        own = packing.received(replication, manifest, tensors)
        mine = slice(topology.first_replica, topology.first_replica + topology.local_replicas)
        restore = functools.partial(state.assign, tensors, own[mine])
        adapting.follow(self._task.optimizer, ratios, restore)
        if self._several:
            packing.spread(replication, state.equal_variables())

    def begin(self, callbacks, history):
        """Called when the callbacks have begun; gives them and the history what they had.

        Args:
            callbacks: A list of Keras callbacks; see `callbacks.saved`.
            history: The `keras.callbacks.History`.
        """
        self._callbacks, self._history = callbacks, history
        if not self._resumed:
            return
        self._resumed = False
        tensors, self._tensors = self._tensors, None
        saved = self._manifest["host"]
        saved_callbacks.restore(self._replication, saved, tensors, callbacks, history)

    # While training.

    def before(self, updates):
        """Called before an execution that makes so many updates."""
        if self._several:
            save = self._replication.is_chief and self._due(self._log.steps_done + updates)
            self.wishes.tell(save, self._wants_to_stop())

    def after(self, step, observer, epoch, batches):
        """Called after an execution; saves if that is due, or a process was told to stop.

        Args:
            step: The `TrainStep`.
            observer: The `Observer`, or `None`.
            epoch: The epoch, from 0.
            batches: Its batches that are done.

        Raises:
            Preempted: A process was told to stop; the checkpoint is on the disk.
        """
        self._place = (epoch, batches)
        if self._several:
            save, stop = self.wishes.heard()
        else:
            stop = self._wants_to_stop()
            save = stop or self._due(self._log.steps_done)
        if stop:
            self._stop_here(step, observer)
        elif save:
            self._save(step, observer)
        if self._replication.is_chief:
            self._writer.look()

    def epoch_ended(self, step, observer, epoch, logs, stopping):
        """Called at the end of an epoch, after validation and callbacks.

        Args:
            step: As for `after`.
            observer: As for `after`.
            epoch: The epoch, from 0.
            logs: Its logs, name to number.
            stopping: Whether a callback has ended the training.

        Raises:
            Preempted: As for `after`.
        """
        self._place = (epoch + 1, 0)
        value = logs.get(self._options.best) if self._options.best else None
        value = float(value) if value is not None and np.ndim(value) == 0 else None
        improved = value is not None and self._options.better(value, self._best)
        due = self._options.each_epoch or improved or self._due(self._log.steps_done)
        flags = [due or stopping or epoch + 1 >= self._epochs, self._wants_to_stop()]
        # The chief decides what is saved, each what stops it.
        flags = self._replication.all_gather(np.asarray(flags, np.int32))
        monitor = {self._options.best: value} if value is not None else None
        if improved:
            self._best = value
        if flags[:, 1].any():
            self._stop_here(step, observer, monitor=monitor, stopped=bool(stopping))
        elif flags[0, 0]:
            self._save(step, observer, monitor=monitor, stopped=bool(stopping))

    def _due(self, step):
        """Whether a checkpoint is to be saved at a step, and the writer has time for it."""
        every, seconds = self._options.every_steps, self._options.every_seconds
        due = every is not None and step // every > self._saved_step // every
        due = due or (seconds is not None and time.monotonic() - self._saved_at >= seconds)
        return due and not self._writer.busy

    def _begin_counting(self):
        self._saved_step, self._saved_at = self._log.steps_done, time.monotonic()
        if self._replication.is_chief:
            self._write_status(status.RUNNING)

    def _stop_here(self, step, observer, monitor=None, stopped=False):
        self._save(step, observer, monitor, stopped)
        number = np.asarray([self._stop.number or 0], np.int32)
        number = int(self._replication.all_gather(number).max())
        if number == 0:
            self._end(status.RUNNING)
            raise Regroup(f"the hosts of the job have changed after step {self._log.steps_done}")
        self._end(status.PREEMPTED)
        raise Preempted(self._log.steps_done, number)

    def _wants_to_stop(self):
        """Whether this process got a signal, or has heard of other hosts."""
        return self._stop.number is not None or self._replication.hosts_changed()

    def _save(self, step, observer, monitor=None, stopped=False):
        """Copies the state, and has the chief's thread write it."""
        # The event file gets its records first, so that a resumed run leaves no gap.
        self._log.read(observer)
        self._saved_step, self._saved_at = self._log.steps_done, time.monotonic()
        self._note_config()
        self._writer.wait()  # It writes from the memory that is copied to now.
        state = self._state_of(step)
        equal, own = state.copy(self._replication.is_chief)
        own = packing.gathered(self._replication, state, own)
        if not self._replication.is_chief:
            return
        host, arrays = saved_callbacks.saved(self._callbacks, self._history)
        manifest = {
            "step": self._log.steps_done,
            "time": time.time(),
            "written_by": socket.gethostname(),
            "monitor": monitor,
            "place": self._place_facts(stopped),
            "host": host,
            **self._compared(state),
        }
        tensors = {**equal, **packing.named(own), **arrays}

        def write():
            self._on_disk = self._store.save(tensors, manifest, self._log.flush)

        self._writer.start(write, f"the checkpoint of step {manifest['step']}")

    def _place_facts(self, stopped):
        epoch, batches = self._place
        return {
            "fit": self._call,
            "epoch": epoch,
            "batches": batches,
            "epochs": self._epochs,
            "stopped": stopped,
            "data": dataclasses.asdict(self._batches.place),
        }

    def _compared(self, state):
        replicas = self._replication.replicas
        return facts.compared(state, self._batches.feed, self._config[1], self._seed, replicas)

    def _note_config(self):
        """Keeps the configuration of an optimizer as it is when it is first seen."""
        if self._config[0] is not self._task.optimizer:
            optimizer = self._task.optimizer
            self._config = (optimizer, comparing.configuration(optimizer))

    # The end.

    def _end(self, ended):
        """Waits until all is on the disk, for all processes."""
        if self._replication.is_chief:
            self._writer.wait()
            self._write_status(ended)
        # No process may end before: Horovod's launcher then ends all others.
        self._replication.any(False)

    def _fail(self, error):
        if self._replication.is_chief:
            self._writer.wait()
        status.write_failure(
            self._options.directory,
            self._replication.topology.process,
            error,
            **self._whereabouts(),
        )

    def hung(self, rank, error):
        """Says which process has held the others up; of this process alone, right before its end.

        Args:
            rank: Its index.
            error: A `disttrain.heartbeat.Hung`.
        """
        facts = self._whereabouts()
        status.write_failure(self._options.directory, rank, error, **facts)

    def _write_status(self, which):
        # A full disk is no reason to stop a training.
        with contextlib.suppress(OSError):
            status.write(self._options.directory, which, **self._whereabouts())

    def _whereabouts(self):
        found = {"step": self._log.steps_done, "epoch": self._place[0]}
        return {**found, "checkpoint": self._on_disk} if self._replication.is_chief else found

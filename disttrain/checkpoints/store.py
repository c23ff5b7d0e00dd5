"""The directory: one folder a checkpoint, of which the newest sound one counts.

A folder gets its name when all that is in it is on the disk, and loses it before it is removed, so
that what has a name is whole whenever a process is killed. Damage that comes later, a disk's, is
found by the manifest. Only the process that holds the lock writes here.
"""

import os
import re
import shutil
import warnings

from disttrain.checkpoints import bundle
from disttrain.checkpoints.bundle import Damaged

_NAME = re.compile(r"step-(\d+)(?:-(\d+))?")
_WRITING, _REMOVING, _ASIDE = ".writing-", ".removing-", "damaged-"


class NoneIsGood(RuntimeError):
    """There are checkpoints, and each of them is damaged."""


class Store:
    """Checkpoints in a directory.

    Args:
        options: A `disttrain.Checkpoint`.
    """

    def __init__(self, options):
        self._options = options
        self.directory = options.directory

    def names(self):
        """Names of the checkpoints, oldest first."""
        try:
            found = [name for name in os.listdir(self.directory) if _NAME.fullmatch(name)]
        except FileNotFoundError:
            return []
        return sorted(found, key=_order)

    def make(self):
        """Makes the directory.

        Raises:
            OSError: It cannot be made.
        """
        os.makedirs(self.directory, exist_ok=True)

    def clean(self):
        """Removes what a killed process has left half done.

        Raises:
            OSError: It cannot be removed.
        """
        for name in os.listdir(self.directory):
            if name.startswith((_WRITING, _REMOVING)):
                shutil.rmtree(self._path(name))

    def newest(self):
        """The newest checkpoint that is sound; warns of newer ones that are not, and why.

        Those are set aside under another name, for `fit` is to write their steps again.

        Returns:
            `(manifest, tensors)`, or `None` where there is no checkpoint at all.

        Raises:
            NoneIsGood: There are checkpoints, and all are damaged.
        """
        damaged = []
        for name in reversed(self.names()):
            try:
                found = bundle.verify(self._path(name)), bundle.read(self._path(name))
            except Damaged as error:
                damaged.append((name, error))
                continue
            for other, error in damaged:
                warnings.warn(
                    f"the checkpoint {other!r} is damaged: {error.file} {error.reason}; training "
                    f"goes on from {name!r} before it, and {other!r} is kept as {_ASIDE + other!r}",
                    stacklevel=2,
                )
                self._set_aside(other)
            return found
        if not damaged:
            return None
        listed = "; ".join(f"{error.file} {error.reason}" for _, error in damaged)
        raise NoneIsGood(
            f"no checkpoint in {self.directory!r} is whole: {listed}. Bring a good copy back, or "
            "choose another directory to begin anew"
        )

    def save(self, tensors, facts, before_rename=None):
        """Writes a checkpoint and removes those that are not kept any more.

        Args:
            tensors: Name to NumPy array.
            facts: As for `bundle.write`, with `step` and `monitor` among them.
            before_rename: Called when the checkpoint is on the disk and has no name yet.

        Returns:
            Its name.

        Raises:
            OSError: It cannot be written; then nothing has changed.
            tf.errors.OpError: The same, from TensorFlow.
        """
        name = self._new_name(facts["step"])
        writing = self._path(_WRITING + name)
        try:
            bundle.write(writing, tensors, facts)
            if before_rename is not None:
                before_rename()
            rename(writing, self._path(name))
        except BaseException:
            shutil.rmtree(writing, ignore_errors=True)
            raise
        bundle.flush_path(self.directory)
        try:
            self.prune()
        except OSError as error:
            warnings.warn(f"an old checkpoint could not be removed ({error})", stacklevel=2)
        return name

    def best(self):
        """Name of the checkpoint with the best value of the metric that is watched, or `None`."""
        best = value = None
        for name in self.names():
            found = self._monitored(name)
            if found is not None and self._options.better(found, value):
                best, value = name, found
        return best

    def best_value(self):
        """The value of that metric there, or `None`."""
        best = self.best()
        return None if best is None else self._monitored(best)

    def prune(self):
        """Removes all but the newest ones that are to be kept, and the best."""
        names = self.names()
        # Of one step the last counts: the end of an epoch says more than its last step.
        last = list({_order(name)[0]: name for name in names}.values())
        kept = {*last[-self._options.keep :], self.best()}
        for name in names:
            if name not in kept:
                remove(self._path(name), self._path(_REMOVING + name))

    def _monitored(self, name):
        if self._options.best is None:
            return None
        try:
            monitor = bundle.read_manifest(self._path(name)).get("monitor") or {}
        except Damaged:
            return None
        return monitor.get(self._options.best)

    def _new_name(self, step):
        name, number = f"step-{step:08d}", 1
        while os.path.exists(self._path(name)):
            # A training that has begun anew from an older checkpoint comes by again.
            number += 1
            name = f"step-{step:08d}-{number}"
        return name

    def _set_aside(self, name):
        aside = self._path(_ASIDE + name)
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(self._path(name), aside)

    def _path(self, name):
        return os.path.join(self.directory, name)


def rename(writing, final):
    """Gives a checkpoint its name: from now on it counts."""
    os.rename(writing, final)


def remove(path, aside):
    """Takes a checkpoint's name away, and then its files."""
    os.rename(path, aside)
    shutil.rmtree(aside)


def _order(name):
    step, number = _NAME.fullmatch(name).groups()
    return int(step), int(number or 1)

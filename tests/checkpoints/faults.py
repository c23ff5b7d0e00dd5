"""What goes wrong, in a process of its own, and what happens to files while nothing runs."""

import errno
import os
import random
import signal

import keras

from disttrain.checkpoints import bundle, store

#: Where a save can be interrupted.
PHASES = (
    "before-write",
    "half-written",
    "before-manifest",
    "before-flush",
    "half-flushed",
    "before-rename",
    "after-rename",
    "before-prune",
    "half-pruned",
)

#: What happens to the newest checkpoint's files between two runs.
DAMAGE = ("truncated", "flipped", "missing", "manifest")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


class AtStep(keras.callbacks.Callback):
    """Calls a function before the batch that follows on so many steps, or after the last one."""

    def __init__(self, trainer, step, function):
        super().__init__()
        self.trainer, self.step, self.function = trainer, step, function

    def on_train_batch_begin(self, batch, logs=None):
        if self.trainer._log.steps_done == self.step:
            self.function()

    def on_train_end(self, logs=None):
        self.on_train_batch_begin(0)


def in_phase(phase, number):
    """Has the process killed in a phase of its n-th save, or of the first one that prunes."""
    counts = {}

    def due(name):
        counts[name] = counts.get(name, 0) + 1
        return counts[name] == number

    def around(module, name, before=None, after=None):
        original = getattr(module, name)

        def replaced(*args):
            now = due(name)
            if now and before is not None:
                before(*args)
            result = original(*args)
            if now and after is not None:
                after(*args)
            return result

        setattr(module, name, replaced)

    def cut(folder, tensors):
        path = os.path.join(folder, "state.data-00000-of-00001")
        os.truncate(path, os.path.getsize(path) // 2)
        os.remove(os.path.join(folder, "state.index"))
        kill()

    def half_removed(path, aside):
        os.rename(path, aside)
        os.remove(os.path.join(aside, "state.index"))
        kill()

    def kills(*args):
        kill()

    {
        "before-write": lambda: around(bundle, "write_tensors", before=kills),
        "half-written": lambda: around(bundle, "write_tensors", after=cut),
        "before-manifest": lambda: around(bundle, "write_manifest", before=kills),
        "before-flush": lambda: around(bundle, "flush", before=kills),
        "half-flushed": lambda: around(bundle, "flush_path", after=kills),
        "before-rename": lambda: around(store, "rename", before=kills),
        "after-rename": lambda: around(store, "rename", after=kills),
        "before-prune": lambda: around(store, "remove", before=kills),
        "half-pruned": lambda: around(store, "remove", before=half_removed),
    }[phase]()


def full_disk(first, count):
    """Has the disk full from the n-th save on, for so many saves."""
    original, calls = bundle.write_tensors, []

    def write(folder, tensors):
        calls.append(folder)
        if first <= len(calls) < first + count:
            with open(os.path.join(folder, "state.data-00000-of-00001"), "wb") as file:
                file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(folder, tensors)

    bundle.write_tensors = write


def damage(folder, how, seed=0):
    """Damages a checkpoint; returns the file."""
    name = "manifest.json" if how == "manifest" else "state.data-00000-of-00001"
    path = os.path.join(folder, name)
    if how == "missing":
        os.remove(path)
    elif how == "flipped":
        with open(path, "r+b") as file:
            contents = file.read()
            place = random.Random(seed).randrange(len(contents))
            file.seek(place)
            file.write(bytes([contents[place] ^ 1]))
    else:
        os.truncate(path, random.Random(seed).randrange(os.path.getsize(path)))
    return path

"""Which trial comes next, where its parameters follow from its number: random and grid.

The chief alone has one of these, or of `optuna_trials.OptunaTrials`, which has the same methods.
Several jobs may share a directory: each trial is locked by the one that runs it.
"""

import json
import os

from disttrain.checkpoints.lock import InUse, Lock
from disttrain.experiments.shared import runs

_RECORD = "trial.json"


class NumberedTrials:
    """Trials whose parameters are known beforehand.

    Args:
        directory: The directory of the search.
        parameters: A function from a trial's number to its parameters.
        total: How many there are.
    """

    def __init__(self, directory, parameters, total):
        self._directory = directory
        self._parameters = parameters
        self._total = total
        self._lock = None

    def next(self):
        """Takes a trial that nobody has run or runs: `(number, parameters)`, or `None`."""
        for number in range(self._total):
            lock = claim(self._directory, number)
            if lock is not None:
                self._lock = lock
                return number, self._parameters(number)
        return None

    def tell(self, number, parameters, value, state, reason):
        """Keeps what came of the trial that was taken."""
        keep(self._directory, number, parameters, value, state, reason)
        self._lock.release()

    def close(self):
        """Lets go of a trial that was taken and not told of: an error has ended it."""
        if self._lock is not None:
            self._lock.release()


def folder(directory, number):
    """The directory of a trial."""
    return os.path.join(directory, "runs", f"trial-{number:04d}")


def claim(directory, number):
    """Takes a trial's lock; `None` if it is over, or another job runs it."""
    if record(directory, number) is not None:
        return None
    path = folder(directory, number)
    os.makedirs(path, exist_ok=True)
    lock = Lock(path)
    try:
        lock.acquire()
    except InUse:
        return None
    if record(directory, number) is not None:  # Another job has just ended it.
        lock.release()
        return None
    return lock


def keep(directory, number, parameters, value, state, reason):
    """Writes what came of a trial."""
    content = {
        "number": number,
        "parameters": parameters,
        "value": value,
        "state": state,
        "reason": reason,
    }
    runs.write_json(os.path.join(folder(directory, number), _RECORD), content)


def record(directory, number):
    """What `keep` has written of a trial, a dictionary of its arguments; `None` if nothing yet."""
    return _read(os.path.join(folder(directory, number), _RECORD))


def kept(directory):
    """What came of all trials that are over, a list of dictionaries in the order of numbers."""
    parent = os.path.join(directory, "runs")
    names = os.listdir(parent) if os.path.isdir(parent) else ()
    found = [_read(os.path.join(parent, name, _RECORD)) for name in names]
    return sorted((one for one in found if one is not None), key=lambda trial: trial["number"])


def _read(path):
    if not os.path.exists(path):
        return None
    with open(path) as file:
        return json.load(file)

"""Warns of what the health rules find in a training's last records, while it trains.

The rules run on a thread of their own, after a hundred records and not more than once a second; the
training thread hands over arrays that were read anyway, and prints what was found. `log` calls it
on the chief.
"""

import collections
import concurrent.futures
import dataclasses
import sys
import time
import warnings

import numpy as np

from disttrain.telemetry import recorder
from tensorboard_plugin import health, metadata

#: Records between two looks, and records looked at: some rules want 500 steps.
EVERY = 100
WINDOW = 600

#: Seconds between two looks, as long as they miss no record: short steps make many records, and a
#: look takes a millisecond from the training.
SECONDS = 1.0

#: What the records looked at may take in memory, in bytes, if that is fewer records, but so many.
MOST_BYTES = 2**26
_LEAST = 30

#: Seconds that the end of a training waits for the rules.
_PATIENCE = 5.0

#: Warnings point to the first line outside of these.
_OURS = ("disttrain", "keras", "tensorflow")

_STEPS = [q.name for q in metadata.STEP_QUANTITIES]
_REPLICAS = [q.name for q in metadata.REPLICA_QUANTITIES]


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Consecutive records.

    Attributes:
        part: The `metadata.Part` of layers.
        steps: `[n]` int64.
        layers: float32 `[n, variables, statistics]`.
        quantities: float32 `[n, quantities]`.
        replicas: float32 `[n, replicas, k]`, the first columns those of
            `metadata.REPLICA_QUANTITIES`; or `None`.
    """

    part: metadata.Part
    steps: np.ndarray
    layers: np.ndarray
    quantities: np.ndarray
    replicas: np.ndarray | None


class Alerts:
    """Looks at the last records of a run, and warns of each new finding once.

    Attributes:
        findings: The `tensorboard_plugin.health.Finding`s that it has warned of.
    """

    def __init__(self):
        self.findings = []
        self._thread = None
        self._looking = None
        self._chunks = []
        self._unseen = 0
        self._looked = float("-inf")
        self._since = 1
        self._known = set()
        self._found = collections.deque()

    def add(self, chunk):
        """Tells what was found before, takes records, and has them looked at when that is due."""
        self._tell()
        if self._chunks and self._chunks[-1].part is not chunk.part:
            # Another optimizer, or other variables: what was before says nothing of it.
            self._chunks = []
            self._since = int(chunk.steps[0])
        self._chunks.append(chunk)
        self._unseen += len(chunk.steps)
        most = min(WINDOW, max(_LEAST, MOST_BYTES // max(1, chunk.layers[0].nbytes)))
        held = sum(len(kept.steps) for kept in self._chunks)
        while held - len(self._chunks[0].steps) >= most:
            held -= len(self._chunks.pop(0).steps)
        soon = time.monotonic() - self._looked < SECONDS and self._unseen + EVERY <= most
        if self._unseen >= EVERY and not soon and (self._looking is None or self._looking.done()):
            self._look()

    def finish(self):
        """Looks at what nobody has looked at, waits for that a while, and tells."""
        if self._unseen:
            self._look()
        if self._looking is not None:
            concurrent.futures.wait([self._looking], timeout=_PATIENCE)
        self._tell()

    def _look(self):
        self._unseen = 0
        self._looked = time.monotonic()
        if self._thread is None:
            self._thread = concurrent.futures.ThreadPoolExecutor(1, "disttrain-alerts")
        self._looking = self._thread.submit(self._judge, list(self._chunks), self._since)

    def _judge(self, chunks, since):
        try:
            for finding in health.findings(as_run(chunks, since)):
                if finding.severity != "note" and finding.key not in self._known:
                    self._known.add(finding.key)
                    self._found.append(finding)
        except Exception as error:  # A rule that fails must not end a training.
            self._found.append(error)

    def _tell(self):
        """Warns in the thread that trains, where the warning belongs."""
        while self._found:
            found = self._found.popleft()
            if isinstance(found, Exception):
                recorder.warn_once(f"the health rules failed ({found!r}); training goes on")
                continue
            self.findings.append(found)
            warnings.warn(
                f"{found.message} {found.why} {found.advice} (Seen in steps {found.first_step} to "
                f"{found.last_step}; disttrain.Telemetry(warnings=False) is silent.)",
                stacklevel=_level(),
            )


def as_run(chunks, since):
    """Consecutive records of one training as a `health.Run`.

    Args:
        chunks: `Chunk`s of one part, at least one.
        since: The first step of the optimizer.
    """
    part = chunks[-1].part
    steps = np.concatenate([chunk.steps for chunk in chunks]).astype(np.int64)

    def table(names, arrays):
        return health.Table.packed(steps, names, np.concatenate(list(arrays)))

    replicas = health.Table.empty()
    if all(chunk.replicas is not None for chunk in chunks):
        replicas = table(_REPLICAS, (chunk.replicas for chunk in chunks))
    return health.Run(
        layers=table(part.columns, (chunk.layers for chunk in chunks)),
        quantities=table(_STEPS, (chunk.quantities for chunk in chunks)),
        replicas=replicas,
        variables=part.variables,
        optimizer=part.optimizer,
        optimizer_since=since,
    )


def _level():
    """The `stacklevel` with which a warning of the calling function points outside."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _OURS:
        frame, level = frame.f_back, level + 1
    return level

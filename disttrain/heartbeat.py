"""Finds the process that all others wait for, and ends the job instead of waiting for ever.

A collective waits until every process takes part. So each process tells the chief once a second
over UDP how far it is, the chief answers with what it knows of all, and who has waited too long
names the one that is behind, and what it waits for. The chief's address, and a word that shows who
belongs to the job, travel by the first collective of a training.
"""

import contextlib
import dataclasses
import hmac
import json
import os
import secrets
import socket
import sys
import threading
import time
import weakref

import numpy as np

#: Seconds between two messages.
_BEAT = 1.0

#: Seconds of silence after which a process does not answer.
_QUIET = 5.0

#: Where nobody can be blamed, the limit is so many times as long.
_PATIENCE = 3

#: Seconds that other processes leave to the one that tells the user.
_AFTERWARDS = 3.0

#: Bytes of a message, and of the chief's addresses, and how many of those there are at most.
_MOST = 65_000
_ROOM = 512
_ADDRESSES = 16


@dataclasses.dataclass(frozen=True)
class Peer:
    """What is known of a process.

    Attributes:
        rank: Index of the process.
        host: Name of its host.
        step: Its last step.
        still: Seconds since it last went on, whatever it does.
        waits: Whether it is where processes wait for each other.
        silent: Seconds since it was heard; 0 if it never was, for then no message comes through.
        what: What it waits for, such as `"a training step"`; `""` for nothing.
    """

    rank: int
    host: str
    step: int
    still: float
    waits: bool
    silent: float = 0.0
    what: str = ""


def verdict(own, peers, limit):
    """Who holds this process up.

    Args:
        own: This process, a `Peer`.
        peers: A `Peer` for each other process.
        limit: Seconds that it may wait, or `None` for ever.

    Returns:
        `(peer, sentence)`; `None` while it goes on. The peer is `None` if nobody can be blamed.
    """
    if limit is None or not own.waits or own.still < limit:
        return None
    silent = [peer for peer in peers if peer.silent > _QUIET]
    if silent:
        peer = max(silent, key=lambda one: one.silent)
        # A step that one process has done, all have taken part in.
        peer = dataclasses.replace(peer, step=max(one.step for one in [own, *peers]))
        return peer, f"does not answer any more, for {peer.silent:.0f} s now"
    elsewhere = [peer for peer in peers if not peer.waits]
    if elsewhere:
        peer = min(elsewhere, key=lambda one: one.step)
        return peer, f"has been busy with something else than its next step for {peer.still:.0f} s"
    behind = [peer for peer in [own, *peers] if peer.step < max(p.step for p in [own, *peers])]
    if behind:
        peer = min(behind, key=lambda one: one.step)
        return peer, f"has been in its next step for {peer.still:.0f} s"
    # They may compile, or the network be slow: that takes more patience.
    if own.still < _PATIENCE * limit:
        return None
    what = own.what or "one step"
    if not peers:
        return (
            None,
            f"rank {own.rank} has waited for the other processes in {what} for {own.still:.0f} s",
        )
    return None, f"all processes have been in {what} for {own.still:.0f} s"


class Heartbeat:
    """What this process tells of itself, and hears of the others.

    Args:
        replication: A `Replication` of several processes, all of which make one.
        limit: As for `verdict`.
        failed: Called with a rank and a `Hung` before the job ends, or `None`.
    """

    def __init__(self, replication, limit, failed):
        topology = replication.topology
        self._rank, self._processes = topology.process, topology.processes
        self.follow(limit, failed)
        self._step, self._went_on, self._what = 0, time.monotonic(), None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(_BEAT / 4)
        self._socket.bind(("", 0))
        # The chief accepts messages as soon as the other processes have its token.
        self._word, self._chief = secrets.token_hex(8) if self._rank == 0 else None, []
        self._heard = {}
        self._table, self._answered = [], time.monotonic()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="disttrain-heartbeat")
        self._thread.start()
        with self.waiting("the first exchange of a training"):
            word, chief = _exchanged(replication, self._socket.getsockname()[1], self._word)
        self._answered = time.monotonic()
        self._chief, self._word = chief, word
        # At once: it could stop before its next message, and would never have been heard.
        self._tell()

    def follow(self, limit, failed):
        """Takes another limit, and another function to call."""
        self._limit = limit
        # Not to keep a trainer that nobody else holds.
        bound = hasattr(failed, "__self__")
        self._failed = weakref.WeakMethod(failed) if bound else lambda: failed

    @contextlib.contextmanager
    def waiting(self, what="an exchange between processes"):
        """Around what waits for the other processes.

        Args:
            what: A name for it. Inside of another one the outer name stays.
        """
        outer = self._what
        self._went_on, self._what = time.monotonic(), outer or what
        try:
            yield
        finally:
            self._went_on, self._what = time.monotonic(), outer

    def done(self, step):
        """Notes the last step."""
        self._step = step

    def close(self):
        """Tells and hears no more."""
        self.stop()
        self._thread.join()

    def stop(self):
        """As `close`, without waiting for it."""
        self._ends.set()

    def _run(self):
        next_beat = 0.0
        with self._socket:
            while not self._ends.is_set():
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + _BEAT
                    self._beat()
                with contextlib.suppress(OSError):
                    self._receive(*self._socket.recvfrom(_MOST))

    def _beat(self):
        self._tell()
        found = verdict(Peer(*self._own()), self._peers(), self._limit)
        if found is not None and not self._ends.is_set():
            self._end(*found)

    def _tell(self):
        if self._rank != 0:
            for address in self._chief:
                self._send(self._own(), address)

    def _own(self):
        still = time.monotonic() - self._went_on
        what = self._what
        return [
            self._rank,
            socket.gethostname(),
            self._step,
            still,
            what is not None,
            0.0,
            what or "",
        ]

    def _send(self, content, address):
        with contextlib.suppress(OSError):
            self._socket.sendto(json.dumps([self._word, content]).encode(), address)

    def _receive(self, message, sender):
        """Takes a message, if it is one of this job's: anybody can send to a port."""
        try:
            word, content = json.loads(message)
        except (ValueError, TypeError):
            return
        if self._word is None or not isinstance(word, str):
            return
        if hmac.compare_digest(word.encode(), self._word.encode()):
            self._hear(content, sender)

    def _hear(self, message, sender):
        now = time.monotonic()
        if self._rank == 0:
            self._heard[message[0]] = (message, now)
            self._send(self._known(now), sender)
        else:
            self._table, self._answered = message, now

    def _known(self, now):
        """What the chief knows: the fields of a `Peer` for each process it has heard."""
        heard = sorted(self._heard.values(), key=lambda one: one[0][0])
        others = ([*message[:5], now - at, message[6]] for message, at in heard)
        return [self._own(), *others]

    def _peers(self):
        """The other processes, as far as known."""
        now = time.monotonic()
        if self._rank == 0:
            return [Peer(*row) for row in self._known(now)[1:]]
        silence = now - self._answered
        peers = [Peer(*row) for row in self._table if row[0] != self._rank]
        # What the chief has said of the others grows old with its silence; they may be well.
        return [
            dataclasses.replace(peer, silent=silence)
            if peer.rank == 0
            else dataclasses.replace(peer, silent=0.0 if silence > _QUIET else peer.silent)
            for peer in peers
        ]

    def _end(self, peer, sentence):
        """Ends this process; the launcher then ends the others."""
        well = {self._rank, *(one.rank for one in self._peers())} - {peer.rank if peer else None}
        if self._rank != min(well, default=self._rank):
            # One speaks for all.
            time.sleep(_AFTERWARDS)
            os._exit(1)
        if peer is None:
            text = f"{sentence}; no straggler was identified"
        else:
            text = (
                f"rank {peer.rank} on {peer.host} {sentence}; its last step is {peer.step}, and "
                f"the others wait for it in {self._what or 'a step'}"
            )
        text += f"; the job ends after hang_seconds={self._limit:g}"
        print(f"disttrain: {text}", file=sys.stderr, flush=True)
        failed = self._failed()
        with contextlib.suppress(Exception):
            failed(peer.rank if peer else self._rank, Hung(text))
        os._exit(1)


def listen(replication, limit, failed):
    """Lets the processes of a replication find the one that all wait for, from now on.

    Args:
        replication: A `Replication`; all of its processes come here.
        limit: Seconds that a process may wait for the others, or `None` for ever.
        failed: As for `Heartbeat`.
    """
    if isinstance(replication.pulse, Heartbeat):
        replication.pulse.follow(limit, failed)
    elif limit is not None and replication.topology.processes > 1:
        replication.pulse = Heartbeat(replication, limit, failed)
        weakref.finalize(replication, replication.pulse.stop)


class Hung(RuntimeError):
    """A process did not answer, or did not go on."""


class Nobody:
    """In place of a `Heartbeat` where there is nobody to wait for."""

    def waiting(self, what=None):
        """As `Heartbeat.waiting`."""
        return contextlib.nullcontext()

    def done(self, step):
        """As `Heartbeat.done`."""

    def close(self):
        """As `Heartbeat.close`."""


def _exchanged(replication, port, word):
    """The job's word and the chief's addresses, `(host, port)`; all processes call this."""
    names = {_outer_address(), *_addresses(socket.gethostname()), "127.0.0.1"}
    # Far more than a host has, but what is cut off could not be read.
    names = sorted(names)[:_ADDRESSES]
    text = json.dumps([word, port, *names]).encode()
    room = np.zeros(_ROOM, np.int32)
    room[: len(text)] = np.frombuffer(text, np.uint8)
    told = replication.all_gather(room)[0].astype(np.uint8).tobytes().rstrip(b"\0")
    word, port, *names = json.loads(told)
    return word, [(name, port) for name in names]


def _addresses(name):
    try:
        return socket.gethostbyname_ex(name)[2]
    except OSError:
        return []


def _outer_address():
    """The address by which this host reaches others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"

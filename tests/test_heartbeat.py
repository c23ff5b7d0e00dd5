"""Who is blamed when processes wait for each other, and that processes hear of each other."""

import socket
import time

import pytest

from disttrain import heartbeat
from disttrain.heartbeat import Heartbeat, Peer, verdict
from tests._support.threaded_processes import together
from tests._support.timeouts import TIMEOUT

pytestmark = pytest.mark.unit

LIMIT = 60.0


def peer(rank, step=7, still=0.5, waits=True, silent=0.0):
    return Peer(rank, f"host{rank}", step, still, waits, silent)


WAITING = peer(0, still=61.0)


@pytest.mark.parametrize(
    "own", [peer(0), peer(0, still=59.0), peer(0, still=500.0, waits=False)], ids=repr
)
def test_nobody_is_blamed_while_this_process_goes_on_or_is_busy_itself(own):
    assert verdict(own, [peer(1, silent=400.0), peer(2, waits=False)], LIMIT) is None


def test_a_silent_process_is_blamed_first_and_the_most_silent_of_them():
    peers = [peer(1, silent=30.0), peer(2, silent=50.0), peer(3, waits=False, step=1)]
    blamed, sentence = verdict(WAITING, peers, LIMIT)
    assert (blamed.rank, blamed.step) == (2, 7)
    assert sentence == "does not answer any more, for 50 s now"


def test_a_silent_process_has_done_the_steps_that_others_have():
    blamed, _ = verdict(WAITING, [peer(1, step=9), peer(2, step=3, silent=50.0)], LIMIT)
    assert (blamed.rank, blamed.step) == (2, 9)


def test_a_late_message_is_no_silence():
    assert verdict(WAITING, [peer(1, silent=2.0, still=61.0)], LIMIT) is None


def test_then_who_is_busy_with_something_else():
    peers = [peer(1, still=61.0), peer(2, still=70.0, waits=False, step=6)]
    blamed, sentence = verdict(WAITING, peers, LIMIT)
    assert blamed.rank == 2
    assert sentence == "has been busy with something else than its next step for 70 s"


def test_then_who_is_behind_this_process_too():
    blamed, _ = verdict(WAITING, [peer(1, step=8), peer(2, step=5)], LIMIT)
    assert blamed.rank == 2
    blamed, sentence = verdict(WAITING, [peer(1, step=8), peer(2, step=9)], LIMIT)
    assert blamed.rank == 0
    assert sentence == "has been in its next step for 61 s"


def test_where_all_are_in_one_step_there_is_more_patience():
    assert verdict(peer(0, still=179.0), [peer(1, still=179.0)], LIMIT) is None
    blamed, sentence = verdict(peer(0, still=181.0), [peer(1, still=181.0)], LIMIT)
    assert blamed is None
    assert sentence == "all processes have been in one step for 181 s"


def test_processes_hear_of_each_other(monkeypatch):
    monkeypatch.setattr(heartbeat, "_BEAT", 0.05)

    def run(replication):
        rank = replication.topology.process
        pulse = Heartbeat(replication, LIMIT, None)
        pulse.done(10 + rank)
        until = time.monotonic() + TIMEOUT
        with pulse.waiting() if rank == 1 else heartbeat.Nobody().waiting():
            while time.monotonic() < until:
                found = {one.rank: (one.step, one.waits) for one in pulse._peers()}
                known = {r: (10 + r, r == 1) for r in range(3) if r != rank}
                if found == known:
                    break
                time.sleep(0.02)
            # The others have to hear of this one, too.
            replication.all_gather(0)
        pulse.close()
        return found

    for rank, found in enumerate(together(3, run)):
        assert found == {r: (10 + r, r == 1) for r in range(3) if r != rank}


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe",
        b"7",
        b"null",
        b"[]",
        b'{"a": 1}',
        b'["other", [1, "x", 99, 0.0, true]]',
        b"[1, 2]",
    ],
    ids=repr,
)
def test_messages_of_others_are_passed_over(message):
    def run(replication):
        pulse = Heartbeat(replication, LIMIT, None)
        received, receive = [], pulse._receive

        def noted(message, sender):
            receive(message, sender)
            received.append(message)

        pulse._receive = noted
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for one in (message, b"the last"):
                stranger.sendto(one, ("127.0.0.1", pulse._socket.getsockname()[1]))
        while b"the last" not in received and pulse._thread.is_alive():
            time.sleep(0.01)
        alive, steps = pulse._thread.is_alive(), [one.step for one in pulse._peers()]
        replication.all_gather(0)
        pulse.close()
        return alive, 99 in steps

    assert together(2, run) == [(True, False)] * 2


def test_where_no_message_comes_through_nobody_is_silent(monkeypatch):
    """A firewall must not end a training."""
    monkeypatch.setattr(heartbeat, "_BEAT", 0.05)
    monkeypatch.setattr(heartbeat, "_QUIET", 0.1)
    monkeypatch.setattr(heartbeat, "_exchanged", lambda *args: ("word", []))

    def run(replication):
        pulse = Heartbeat(replication, 0.2, None)
        with pulse.waiting():
            time.sleep(0.5)
            found = verdict(Peer(*pulse._own()), pulse._peers(), 0.2)
        pulse.close()
        return found

    monkeypatch.setattr(Heartbeat, "_end", lambda *args: None)
    assert all(found is None or found[0] is None for found in together(2, run))


def test_alone_there_is_nobody_to_listen_to():
    class Alone:
        pulse = heartbeat.Nobody()
        topology = type("Topology", (), {"processes": 1})

    replication = Alone()
    heartbeat.listen(replication, 1.0, None)
    assert isinstance(replication.pulse, heartbeat.Nobody)


def test_processes_listen_once_and_follow_what_is_asked_for_last():
    class Holder:
        def hung(self, rank, error):
            """Called where a process hangs."""

    def run(replication):
        holder = Holder()
        heartbeat.listen(replication, None, None)
        assert isinstance(replication.pulse, heartbeat.Nobody)
        heartbeat.listen(replication, LIMIT, holder.hung)
        first = replication.pulse
        assert first._failed() == holder.hung
        # The trainer is not kept.
        del holder
        assert first._failed() is None
        heartbeat.listen(replication, None, None)
        assert replication.pulse is first
        replication.all_gather(0)
        first.close()
        return verdict(peer(0, still=1e6), [peer(1, silent=99.0)], first._limit)

    assert together(2, run) == [None, None]


def test_what_is_waited_for_is_named_by_the_outermost():
    def run(replication):
        pulse = Heartbeat(replication, LIMIT, None)
        seen = [Peer(*pulse._own())]
        with pulse.waiting("the broadcast"):
            with pulse.waiting():
                seen.append(Peer(*pulse._own()))
            seen.append(Peer(*pulse._own()))
        with pulse.waiting():
            seen.append(Peer(*pulse._own()))
        replication.all_gather(0)
        pulse.close()
        return [(one.waits, one.what) for one in seen]

    outer, inner = (True, "the broadcast"), (True, "an exchange between processes")
    assert together(2, run) == [[(False, ""), outer, outer, inner]] * 2


def test_the_first_exchange_is_watched_too(monkeypatch):
    """There are no addresses yet, so nobody can be named."""
    monkeypatch.setattr(heartbeat, "_BEAT", 0.05)
    ended = []
    monkeypatch.setattr(Heartbeat, "_end", lambda self, *found: ended.append(found))

    def slow(*args):
        until = time.monotonic() + TIMEOUT
        while not ended and time.monotonic() < until:
            time.sleep(0.02)
        return "word", []

    monkeypatch.setattr(heartbeat, "_exchanged", slow)
    together(2, lambda replication: Heartbeat(replication, 0.05, None).close())
    blamed, sentence = ended[0]
    assert blamed is None
    assert "has waited for the other processes in the first exchange of a training" in sentence


def test_what_all_processes_are_in_is_named():
    own, other = (Peer(rank, "a", 7, 181.0, True, 0.0, "the evaluation") for rank in range(2))
    assert verdict(own, [other], LIMIT) == (
        None,
        "all processes have been in the evaluation for 181 s",
    )

"""disttrain.launching: who is to blame, what is shown, how hosts are written."""

import io
import signal
import socket

import pytest

from disttrain.launching import hosts, output, report, workers
from disttrain.launching.blame import End, culprit, error
from disttrain.launching.processes import Processes

pytestmark = pytest.mark.unit

LOST = [
    "Traceback (most recent call last):",
    "  x",
    "HorovodInternalError: Horovod has been shut down",
]
LOST_ON_HOST = "InternalError: Horovod has lost rank 1 of the 2 that sum together [Op:Sum]"
OWN = ["Traceback (most recent call last):", "  y", "MemoryError: too much"]


@pytest.mark.parametrize(
    ("ends", "rank"),
    [
        ([End(0, 0, []), End(1, 0, [])], None),
        ([End(1, 7, OWN), End(0, 1, LOST)], 1),
        ([End(0, 1, [*LOST[:2], LOST_ON_HOST]), End(1, 7, OWN)], 1),
        ([End(0, 1, LOST), End(1, 7, OWN)], 1),  # the partner may notice first
        ([End(0, 143, []), End(2, 1, LOST), End(1, 7, OWN)], 1),
        ([End(0, 143, []), End(1, 255, []), End(2, 1, LOST)], 1),
        ([End(0, 143, []), End(1, 0, [])], 0),
        ([End(2, 137, []), End(0, 1, LOST)], 2),
    ],
)
def test_the_first_that_failed_by_itself_is_to_blame(ends, rank):
    found = culprit(ends)
    assert (found.rank if found else None) == rank


def test_an_error_is_the_last_traceback_with_its_causes():
    cause = ["Traceback (most recent call last):", "KeyError: 1"]
    joint = ["The above exception was the direct cause of the following exception:"]
    assert error(["noise", *OWN, "between", *cause, *joint, *LOST]) == [*cause, *joint, *LOST]
    assert error(["noise", *cause, "something else", *OWN]) == OWN
    assert error([str(i) for i in range(50)]) == [str(i) for i in range(30, 50)]


def test_only_rank_zero_is_shown_and_all_is_kept(capsysbinary):
    log = io.BytesIO()
    screen = output.Screen(log)
    screen.write(0, "stdout", b"zero half\r")
    screen.write(1, "stdout", b"one\n")
    screen.write(1, "stderr", b"one warns\n")
    screen.write(0, "stderr", b"I0000 00:00:1795148892.636925    7175 port.cc:153] oneDNN is on.\n")
    screen.write(0, "stderr", b"zero warns\n")
    shown = capsysbinary.readouterr()
    assert (shown.out, shown.err) == (b"zero half\r", b"zero warns\n")
    assert b"[1]<stdout>:one\n" in log.getvalue()
    assert b"oneDNN" in log.getvalue()
    assert screen.last_words(0) == ["zero warns"]
    assert screen.last_words(1) == ["one warns"]


@pytest.mark.parametrize(("at_once", "seen"), [(False, [b"a\r", b"bc\n", b"d"]), (True, None)])
def test_lines_are_cut_behind_their_ends(at_once, seen):
    taken = []
    lines = output.Lines(taken.append, at_once)
    for data in (b"a\rb", b"c\nd", b""):
        lines.feed(data)
    assert b"".join(taken) == b"a\rbc\nd"
    assert taken == (seen or [b"a\r", b"b", b"c\n", b"d"])


def test_hosts_are_read():
    assert hosts.parse("a:2,b,10.0.0.1:4") == [
        hosts.Host("a", 2),
        hosts.Host("b", 1),
        hosts.Host("10.0.0.1", 4),
    ]


@pytest.mark.parametrize("text", ["", "a:", "a:0", "a:x", "a b:1", "a:1,,b:1", "a:1,a:2", "-x:1"])
def test_hosts_that_are_none(text):
    with pytest.raises(ValueError, match=r"host1:4|twice"):
        hosts.parse(text)


@pytest.mark.parametrize(("before", "stays"), [(signal.SIG_IGN, True), (signal.SIG_DFL, False)])
def test_under_nohup_a_job_outlives_its_terminal(before, stays):
    handler = signal.signal(signal.SIGHUP, before)
    try:
        with Processes():
            assert (signal.getsignal(signal.SIGHUP) == before) == stays
        assert signal.getsignal(signal.SIGHUP) == before
    finally:
        signal.signal(signal.SIGHUP, handler)


def finished(end, capsys, tmp_path, **options):
    """The exit status, and what the user sees, of a job with a rank that has ended so."""
    with report.Log(tmp_path / "log") as log:
        status = report.finish([end], output.Screen(log.file), None, "x.py", log, **options)
    return status, capsys.readouterr().err.splitlines()


def test_a_host_that_takes_its_name_for_itself_is_explained(capsys, tmp_path):
    words = ["what(): pair.cc:799] connect [127.0.0.1]:15271: Connection refused"]
    status, seen = finished(End(1, 134, words), capsys, tmp_path)
    assert status == 134
    assert seen[0] == words[0]
    assert "takes its own name for 127.*; give it its address" in seen[1]


@pytest.mark.parametrize(("words", "named"), [(LOST, True), (OWN, False)])
def test_hosts_are_looked_at_only_where_ranks_have_lost_each_other(words, named, capsys, tmp_path):
    _, seen = finished(End(1, 1, words), capsys, tmp_path, lost=lambda: ["a", "b"])
    assert ("lost its partners: a, b do not answer" in seen[-1]) == named


def test_localhost_among_other_hosts_is_refused():
    with pytest.raises(ValueError, match="localhost means another machine on each host"):
        workers.Job(["x"], hosts.parse("localhost:1,b:1"))


def test_this_machine_is_known_by_its_addresses():
    assert hosts.is_local("localhost")
    assert hosts.is_local("127.0.0.1")
    assert not hosts.is_local("192.0.2.1")
    assert not hosts.is_local("no.such.host.invalid")


def test_free_ports_are_free_and_never_given_to_outgoing_connections(monkeypatch):
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        outgoing = int(file.read().split()[0])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        ports = [port, port, 12001, 12002]
        monkeypatch.setattr(workers.random, "sample", lambda among, count: ports)
        assert workers.free_ports(2) == [12001, 12002]
        monkeypatch.undo()
    found = workers.free_ports(20)
    assert len(set(found)) == 20
    assert all(1024 <= port < outgoing for port in found)


def test_too_few_free_ports_are_an_error(monkeypatch):
    monkeypatch.setattr(workers.random, "sample", lambda among, count: [12001])
    with pytest.raises(OSError, match="fewer than 2 free ports"):
        workers.free_ports(2)

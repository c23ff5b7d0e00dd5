"""Runs horovodrun, and makes one voice of its ranks'.

horovodrun prefixes every line with its rank, says of each rank how it has ended, and then exits
with 1 whatever happened; the rank's own status is passed on here.
"""

import re
import sys

from disttrain.launching import hosts, report
from disttrain.launching.blame import End
from disttrain.launching.output import Screen
from disttrain.launching.processes import Processes

_RANK = re.compile(rb"^\[(\d+)\]<(stdout|stderr)>:")
_ENDED = re.compile(rb"^Process (\d+) exit with status code (\d+)\.")

#: What horovodrun says before it has started a rank, and what to do about it.
_BEFORE = (
    (
        "Timed out waiting|Unable to find a set of common|common.*interface",
        "the hosts do not reach each other; name the network they share with "
        "--network-interfaces, or give them more time with --start-timeout",
    ),
    ("Requested more processes|Not enough slots|slots", "there are fewer slots than -np asks for"),
)


def run(command, log=None, name="the program", peers="", ssh=()):
    """Runs a job.

    Args:
        command: horovodrun with its options and the program.
        log: Where to keep what all ranks write, or `None`.
        name: What the job is called.
        peers: The hosts, as `host1:4,host2:4`.
        ssh: Port of their ssh servers, and private key; both may be `None`.

    Returns:
        The exit status of the rank to blame; 0 where none has failed, 128 and the signal that has
        stopped the job.
    """
    ends = []
    machines = hosts.parse(peers) if peers else []
    names = [host.name for host in machines]
    # horovodrun tries for minutes and does not say what ssh says.
    gone = hosts.unreached(names, *ssh)
    if gone:
        said = "; ".join(f"{host}: {words}" for host, words in gone.items())
        raise ValueError(
            f"ssh does not reach all hosts ({said}); 'disttrain doctor -H {peers}' tells what "
            "mends it"
        )
    with report.Log(log) as kept:
        screen = Screen(kept.file)

        def take(stream, line):
            found = _RANK.match(line)
            if found:
                screen.write(int(found[1]), found[2].decode(), _unprefixed(line))
                return
            screen.write(None, "stderr", line)
            ended = _ENDED.match(line)
            if ended:
                ends.append((int(ended[1]), int(ended[2])))

        with Processes() as processes:
            processes.start("horovodrun", command, take, report.environment())
            status = next(code for _, code in processes.ended())
        # An elastic job goes on without ranks that have failed.
        failed = [End(rank, code, screen.last_words(rank)) for rank, code in ends if status]
        if status and not failed and processes.stopped is None:
            kept.kept = True
            return _not_started(screen.last_words(None), status, kept.path)
        return report.finish(
            failed,
            screen,
            processes.stopped,
            name,
            kept,
            where=lambda rank: where(rank, machines),
            lost=lambda: list(hosts.unreached(names, *ssh)),
        )


def _unprefixed(line):
    """A rank's words without horovodrun's prefix, which stands behind carriage returns, too."""
    return _RANK.sub(b"", line)


def where(rank, machines):
    """`" on HOST"` for a rank, or nothing where no hosts are known."""
    for host in machines:
        if rank < host.slots:
            return f" on {host.name}"
        rank -= host.slots
    return ""


def _not_started(words, status, path):
    """Tells why horovodrun has started no rank, without its own traceback."""
    text = "\n".join(words)
    plain = [line for line in words if line.strip() and not line.startswith((" ", "Traceback"))]
    print("\n".join(plain[-6:]), file=sys.stderr)
    advice = next((what for said, what in _BEFORE if re.search(said, text)), "see above")
    print(
        f"disttrain: horovodrun started no rank: {advice}; {path} holds all that it wrote.",
        file=sys.stderr,
        flush=True,
    )
    return status

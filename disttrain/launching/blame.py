"""Which of many failed ranks is to blame, and what it said.

When one rank fails the others lose their partner and fail as well, often before it, and the
launcher terminates the rest. The user wants the first that failed by itself, and its error alone.
"""

import dataclasses
import re

#: What ranks say that have only lost another one.
_LOST = re.compile(
    "Horovod has been shut down|HorovodInternalError|Connection reset by peer"
    "|Connection closed by peer|Connect timeout|Timed out waiting"
    "|Read timeout|Write timeout|Broken pipe|Socket closed|failed to connect to all addresses"
    "|Collective ops is aborted|CoordinationService|coordination service|heartbeat"
    "|UnavailableError|Horovod has lost rank"
)

#: Statuses of a process that somebody else has ended: SIGTERM, SIGINT; ssh has lost its host.
_ENDED = (143, 130)
_SSH_LOST = 255


@dataclasses.dataclass(frozen=True)
class End:
    """How a rank has ended.

    Attributes:
        rank: The rank.
        status: Its exit status, 128 and the signal where a signal has ended it.
        words: Its last lines of standard error.
    """

    rank: int
    status: int
    words: list

    @property
    def terminated(self):
        """Whether somebody else has ended it."""
        return self.status in _ENDED

    @property
    def lost_a_partner(self):
        """Whether it failed only because another rank, or the way to it, was gone."""
        last = "\n".join(error(self.words)[-3:])
        return self.status == _SSH_LOST or bool(_LOST.search(last))


def culprit(ends):
    """The `End` of the rank that is to blame.

    Args:
        ends: `End`s in the order of time; successes are passed over.

    Returns:
        The first that failed by itself; else the first that lost a partner; else the first that
        was terminated; `None` where there is no failure.
    """
    failed = [end for end in ends if end.status != 0]
    for fits in (
        lambda end: not end.terminated and not end.lost_a_partner,
        lambda end: not end.terminated,
        lambda end: True,
    ):
        for end in failed:
            if fits(end):
                return end
    return None


def error(words):
    """Of a rank's last lines, those of its error: from the last traceback on, else the last 20."""
    words = [line for line in words if line.strip()]
    starts = [i for i, line in enumerate(words) if line.startswith("Traceback (most recent")]
    if not starts:
        return words[-20:]
    start = starts[-1]
    # Causes stand above, parted by these sentences.
    while True:
        above = [i for i in starts if i < start]
        between = "\n".join(words[above[-1] : start]) if above else ""
        if not re.search("direct cause of the following|another exception occurred", between):
            return words[start:]
        start = above[-1]

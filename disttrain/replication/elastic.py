"""Elastic Horovod jobs: when ranks die or hosts come and go, every process begins anew.

Each process that is left replaces itself by its own program, asks the launcher which rank it has
now, and goes on from the last checkpoint. So old and new processes make the same calls in the same
order, nothing of the old group is left in memory, and what the program computes from the number of
replicas is computed again. Horovod's own way keeps processes and their state instead; its state for
Keras does not work on Keras 3.
"""

import os
import sys
import time
import urllib.error
import urllib.request

#: How often this process has begun anew.
_TIMES = "DISTTRAIN_BEGUN_ANEW"

#: What the launcher answers, in its order.
_PLACE = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")

#: Seconds that the launcher may take to find enough slots, if HOROVOD_ELASTIC_TIMEOUT is not set.
_PATIENCE = 600


class Regroup(BaseException):
    """The hosts of the job have changed, and all processes have saved and are ready to begin anew.

    Not an `Exception`, so that no program takes it for a failure.
    """


def launched():
    """Whether this process was started by horovodrun with a host discovery script."""
    return os.environ.get("HOROVOD_ELASTIC") == "1"


def times_begun_anew():
    """How often this process has begun anew; 0 for one that the launcher has just started."""
    return int(os.environ.get(_TIMES, 0))


def take_place():
    """Asks the launcher which rank a process that has begun anew has now; before Horovod starts.

    It answers once every process that is left has asked, or has ended.

    Raises:
        SystemExit: There is no place for this process any more.
        RuntimeError: The launcher does not answer.
    """
    if not launched() or not times_begun_anew():
        return
    environment = os.environ
    server = "{HOROVOD_GLOO_RENDEZVOUS_ADDR}:{HOROVOD_GLOO_RENDEZVOUS_PORT}".format(**environment)
    slot = "{HOROVOD_HOSTNAME}:{HOROVOD_LOCAL_RANK}".format(**environment)
    answer = _ask(f"http://{server}/rank_and_size/{slot}")
    place = [int(number) for number in answer.split(",")]
    if place[0] < 0:
        print(f"disttrain: the job goes on without {slot}", file=sys.stderr, flush=True)
        raise SystemExit(0)
    environment.update({f"HOROVOD_{n}": str(v) for n, v in zip(_PLACE, place, strict=True)})


def _ask(address):
    until = time.monotonic() + float(os.environ.get("HOROVOD_ELASTIC_TIMEOUT", _PATIENCE))
    while True:
        left = until - time.monotonic()
        try:
            with urllib.request.urlopen(address, timeout=max(1.0, left)) as answer:
                return answer.read().decode("ascii")
        except OSError as error:
            # Not found means not yet; other failures pass, or the launcher is gone.
            gone = not isinstance(error, urllib.error.HTTPError) and left < 0
            if gone or left < 0:
                raise RuntimeError(
                    f"the launcher does not say which rank this process has now ({error}); it has "
                    "probably ended, so start the job again: it goes on from its checkpoint"
                ) from error
            time.sleep(0.2)


def begin_anew(reason):
    """Replaces this process by its program, started as it was started.

    Args:
        reason: Why, for the user.
    """
    count = times_begun_anew() + 1
    print(f"disttrain: {reason}; beginning anew", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os.environ[_TIMES] = str(count)
    # A connection that stayed open would let its other end wait for ever.
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2:
            _close_on_exec(descriptor)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _close_on_exec(descriptor):
    try:
        os.set_inheritable(descriptor, False)
    except OSError:  # The one that listed the others.
        return


class HostWatch:
    """Hears from the launcher when hosts come or go; on the chief.

    Attributes:
        changed: Whether they have since this process began.
    """

    def __init__(self):
        self.changed = False

    def on_hosts_updated(self, timestamp, result):
        """Called by Horovod, on a thread of its own."""
        del timestamp, result
        self.changed = True

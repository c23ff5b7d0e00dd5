"""Two of Horovod's ranks that sum until one of them is gone: `killed`, or `stopped` for good.

The one that stays prints, as JSON, what it heard of that, and how long after the last sum.
"""

import json
import os
import signal
import subprocess
import sys
import time

SUMS = 20

_CHILD = "LOST_CHILD"


def lose(how):
    """Runs the rank that will be gone in a process of its own, for horovodrun ends all with one."""
    child = subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env={**os.environ, _CHILD: "1"})
    if how == "stopped":
        while not _is_stopped(child.pid):
            time.sleep(0.1)
    else:
        child.wait()
    time.sleep(5)  # the other one has heard of it by then
    child.kill()
    child.wait()


def _is_stopped(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


def main():
    how, rank = sys.argv[1], os.environ["HOROVOD_RANK"]
    if rank == "1" and _CHILD not in os.environ:
        lose(how)
        return
    import tensorflow as tf

    from disttrain.replication.horovod import Horovod

    os.environ["HOROVOD_GLOO_TIMEOUT_SECONDS"] = "2"
    replication = Horovod()
    said, last = "", time.monotonic()
    for turn in range(1000):
        if rank == "1" and turn == SUMS:
            os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        try:
            replication.reduce_sum([tf.ones([100_000])], "sum")
        except tf.errors.OpError as error:
            said = str(error)
            break
        last = time.monotonic()
    result = {"turn": turn, "said": said, "seconds": time.monotonic() - last}
    print("RESULT", json.dumps(result), flush=True)
    os._exit(0)  # Horovod would wait for the other one


if __name__ == "__main__":
    main()

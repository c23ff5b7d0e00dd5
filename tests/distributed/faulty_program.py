"""One rank of a job to which something happens: `python -m tests.distributed.faulty_program`.

Arguments are the folder, and `kill` (the last rank is killed at its ninth batch), `wait` (the chief
makes a file `ready` at its fourth batch, and each rank waits for a signal at its fifth), or `none`.
"""

import os
import pathlib
import signal
import sys
import time

import numpy as np

from disttrain.checkpoints.signals import Preempted
from tests._support.timeouts import TIMEOUT
from tests.distributed import checkpoint_checks, program


def wait_for_signal(made):
    end = time.monotonic() + TIMEOUT
    while made._run._stop.number is None and time.monotonic() < end:
        time.sleep(0.01)


def main(folder, fault):
    replication = program.replication_of("horovod")
    directory = os.path.join(folder, "ckpt")
    made = checkpoint_checks.trainer(replication, directory)
    last = replication.topology.process == replication.topology.processes - 1
    callbacks = []
    if fault == "kill" and last:
        kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        callbacks.append(checkpoint_checks.At(9, kill))
    if fault == "wait":
        if replication.is_chief:
            callbacks.append(checkpoint_checks.At(4, pathlib.Path(folder, "ready").touch))
        callbacks.append(checkpoint_checks.At(5, lambda: wait_for_signal(made)))
    try:
        checkpoint_checks.fit(made, *callbacks)
    except Preempted:
        pathlib.Path(folder, f"preempted-{replication.topology.process}").touch()
        raise
    whole = checkpoint_checks.trainer(replication)
    checkpoint_checks.fit(whole)
    name = f"process-{replication.topology.process}.npz"
    np.savez(
        os.path.join(folder, name),
        resumed=checkpoint_checks.everything(made),
        whole=checkpoint_checks.everything(whole),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One rank of a job to which something happens: `python -m tests.distributed.faulty_program`.

Arguments are the folder, and `kill` (the last rank is killed at its ninth batch), `wait` (steps are
slow, and the chief makes a file `ready` at its fourth), or `none`.
"""

import os
import pathlib
import signal
import sys
import time

import numpy as np

from tests.distributed import checkpoint_checks, program


def main(folder, fault):
    program.step_aside()
    replication = program.replication_of("horovod")
    directory = os.path.join(folder, "ckpt")
    made = checkpoint_checks.trainer(replication, directory)
    last = replication.topology.process == replication.topology.processes - 1
    callbacks = []
    if fault == "kill" and last:
        kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        callbacks.append(checkpoint_checks.At(9, kill))
    if fault == "wait":
        slow = [checkpoint_checks.At(n, lambda: time.sleep(0.3)) for n in range(1, 19)]
        callbacks += slow
        if replication.is_chief:
            callbacks.append(checkpoint_checks.At(4, pathlib.Path(folder, "ready").touch))
    checkpoint_checks.fit(made, *callbacks)
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

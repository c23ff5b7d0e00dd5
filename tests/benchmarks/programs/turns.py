"""A program's side of a measurement by turns: it trains when it is told to, and rests in between.

Only Python's own library, for programs run with other packages than disttrain's, too.
"""

import json
import os
import socket
import traceback

#: What `take` adds to the name of a run for the function that returns its weights' checksum.
CHECKSUM = " checksum"

#: Environment variable with the address of who hands out the turns.
ADDRESS = "BENCHMARK_ADDRESS"

#: Environment variable that, if it is set, leaves all cores to each process.
FREE = "BENCHMARK_FREE"


def pin(core):
    """Keeps this process on one core, as `taskset` does; before anything starts threads.

    Where the environment variable `FREE` is set it may use all of them.
    """
    if os.environ.get(FREE):
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})
    os.environ["OMP_NUM_THREADS"] = "1"


def take(rank, runs, **facts):
    """Makes steps as it is asked to, until nobody asks any more; then ends the process.

    Args:
        rank: Number of this process in its job, which says who it is.
        runs: Name to `(steps, checksum)`: a function that makes n steps, and one that returns what
            is equal on all processes where they train together, a JSON value.
        **facts: JSON values that are told in the beginning.
    """
    known = {name: steps for name, (steps, _) in runs.items()}
    known |= {f"{name}{CHECKSUM}": lambda _, of=of: of() for name, (_, of) in runs.items()}
    host, port = os.environ[ADDRESS].rsplit(":", 1)
    with socket.create_connection((host, int(port))) as connection:
        lines = connection.makefile("rw")

        def say(**content):
            lines.write(json.dumps(content) + "\n")
            lines.flush()

        say(rank=rank, pid=os.getpid(), runs=sorted(runs), facts=facts)
        for line in lines:
            name, steps = json.loads(line)
            try:
                say(result=known[name](steps))
            except BaseException:
                say(error=traceback.format_exc())
                break
    # Trainings on other threads would go on to the end of an epoch that does not come.
    os._exit(0)

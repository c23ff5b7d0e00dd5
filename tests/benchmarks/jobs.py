"""Jobs of several processes that take turns, so that they can be measured by slices.

Each job trains in processes of its own, with packages of its own, and rests while another one has
its turn: its processes are stopped, for even idle ones wake up a thousand times a second to ask
each other what there is to do. The other side of it is `programs/turns.py`.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np

from tests.benchmarks import harness
from tests.benchmarks.programs import turns

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: Seconds that the processes of a job have to say that they are there, and for a turn.
STARTING, TURN = 600, 600


class Job:
    """Processes that make steps of a training when they are told to; a context manager.

    Args:
        commands: A list of `(command, environment)`: what starts the processes, each a list of
            strings and a dictionary that is added to this process's environment.
        processes: How many will say that they are there, which is more than there are commands
            where one of them is a launcher.

    Attributes:
        facts: What each process has told in the beginning, a list by rank.
    """

    def __init__(self, commands, processes):
        self._commands = commands
        self._processes = processes
        self._started = []
        self._ranks = []
        self.facts = []

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile("w+"))
            stack.callback(self._end)
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def variant(self, name):
        """A function that makes n steps of what the processes call by this name."""
        return lambda steps: self._turn(name, steps)

    def check(self, name):
        """Checks that the processes have trained together.

        Args:
            name: Of what they have trained.

        Raises:
            RuntimeError: They have other weights.
        """
        found = self._turn(f"{name}{turns.CHECKSUM}", 0)
        if not np.allclose(found, found[0], rtol=1e-5) or not found[0] > 0:
            raise RuntimeError(self._said(f"trained {name!r} to other weights, {found}"))

    def _start(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            for command, environment in self._commands:
                self._started.append(
                    subprocess.Popen(
                        command,
                        cwd=ROOT,
                        env={**_clean(), turns.ADDRESS: address, **environment},
                        stdin=subprocess.DEVNULL,
                        stdout=self._log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
            server.settimeout(1)
            end = time.monotonic() + STARTING
            while len(self._ranks) < self._processes:
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    connection.settimeout(TURN)
                    lines = connection.makefile("rw")
                    self._ranks.append((json.loads(lines.readline()), lines, connection))
                if time.monotonic() > end or any(p.poll() is not None for p in self._started):
                    raise RuntimeError(self._said("did not start"))
        self._ranks.sort(key=lambda rank: rank[0]["rank"])
        self.facts = [hello["facts"] for hello, *_ in self._ranks]
        self._signal(signal.SIGSTOP)

    def _turn(self, name, steps):
        self._signal(signal.SIGCONT)
        for _, lines, _ in self._ranks:
            with contextlib.suppress(ConnectionError):
                lines.write(json.dumps([name, steps]) + "\n")
                lines.flush()
        answers = []
        for hello, lines, _ in self._ranks:
            line = ""
            with contextlib.suppress(ConnectionError):
                line = lines.readline()
            if not line:
                raise RuntimeError(self._said(f"lost rank {hello['rank']}"))
            answers.append(json.loads(line))
            if "error" in answers[-1]:
                raise RuntimeError(f"rank {hello['rank']} failed: {answers[-1]['error']}")
        self._signal(signal.SIGSTOP)
        return [answer["result"] for answer in answers]

    def _signal(self, number):
        for hello, *_ in self._ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(hello["pid"], number)

    def _end(self):
        self._signal(signal.SIGKILL)
        for _, lines, connection in self._ranks:
            with contextlib.suppress(OSError):
                lines.close()
            connection.close()
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _said(self, what):
        self._log.seek(0)
        command = " ".join(self._commands[0][0])
        return f"{command!r} {what}; it has said: ...{self._log.read()[-3000:]}"


def measured(build, settings, unit):
    """What `harness.measure_anew` returns for jobs, where a step of a variant is several steps.

    Args:
        build: As `harness.measure_anew` takes it.
        settings: A `harness.Settings`.
        unit: How many steps of a training one of its variants' is.
    """
    if settings.quick:
        # A job takes seconds to start.
        settings = dataclasses.replace(settings, builds=1)
    timings = harness.measure_anew(build, settings)
    return dataclasses.replace(timings, steps=unit * timings.steps)


def horovod(processes, *program, python=sys.executable, **environment):
    """A `Job` of a module under the horovodrun of an environment.

    Args:
        processes: Their number.
        *program: A module's name, and its arguments.
        python: The environment's Python.
        **environment: Further environment variables.
    """
    folder = pathlib.Path(python).parent
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    run = [python, "-m", *program]
    if processes > 1:
        launcher = [str(folder / "horovodrun"), "-np", str(processes), "--gloo"]
        run = [*launcher, "--network-interfaces", "lo", *run]
    return Job([(run, {"PATH": path, **environment})], processes)


def each(processes, *program, python=sys.executable, **environment):
    """A `Job` of processes that find each other as PyTorch's do, by environment variables."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    common |= {"GLOO_SOCKET_IFNAME": "lo", **environment}
    commands = [
        ([python, "-m", *program], {**common, "RANK": str(rank)}) for rank in range(processes)
    ]
    return Job(commands, processes)


def _clean():
    """This process's environment, without what would place the others in a job or on a GPU."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "DISTTRAIN_SHARED_MEMORY"
        or (name != "TF_CONFIG" and not name.startswith(("HOROVOD_", "DISTTRAIN_")))
    }
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}

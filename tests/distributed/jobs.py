"""Starts real processes, with a time limit, on free ports, and leaves none behind."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from disttrain.launching.workers import free_ports

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: Seconds of all checks, the last resort: `program.LIMIT` is that of each. They take about a
#: minute, and several beside other work.
LIMIT = 3600


def _environment(**extra):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    for name in list(environment):
        if name == "TF_CONFIG" or name.startswith("HOROVOD_"):
            del environment[name]
    # One thread pool for each process would be as large as the machine.
    environment |= {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    environment["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return {**environment, **extra}


@contextlib.contextmanager
def _group(command, log, environment):
    """A process in a group of its own, all of which is killed at the end."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Queue:
    """Runs jobs in the background, one after another."""

    def __init__(self):
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._closed = threading.Event()

    def add(self, kind, command):
        """A future of the `(exit status, output)` of `command` in the processes of a kind.

        Args:
            kind: `"horovod-2"`, `"multi_worker-2"` and so on; any other name is one process.
            command: A list of strings.
        """
        return self._thread.submit(self._run, kind, command)

    def close(self):
        """Kills what runs and forgets the rest."""
        self._closed.set()
        self._thread.shutdown(cancel_futures=True)

    def _run(self, kind, command):
        name, _, count = kind.partition("-")
        commands = {"horovod": horovod, "multi_worker": multi_worker}.get(name, one_process)
        return _run(commands(int(count or 1), command), LIMIT, self._closed)


def horovod(processes, command):
    """`command` under horovodrun, as `[(command, environment)]`.

    Two ranks sum by messages, as those of several hosts do, and more through memory.
    """
    launcher = ["horovodrun", "-np", str(processes), "--gloo", "--network-interfaces", "lo"]
    shared = "0" if processes == 2 else "1"
    return [([*launcher, *command], _environment(DISTTRAIN_SHARED_MEMORY=shared))]


def multi_worker(processes, command):
    """`command` for each worker of a `TF_CONFIG`, as `[(command, environment)]`."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(processes)]
    cluster = {"cluster": {"worker": workers}}
    tasks = [{"type": "worker", "index": index} for index in range(processes)]
    return [
        (command, _environment(TF_CONFIG=json.dumps({**cluster, "task": task}))) for task in tasks
    ]


def one_process(replicas, command):
    """`command` by itself, as `[(command, environment)]`."""
    return [(command, _environment())]


def _run(commands, limit, closed):
    with tempfile.TemporaryFile("w+") as log, contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(_group([*_ends_by_itself(limit), *command], log, environment))
            for command, environment in commands
        ]
        end = time.monotonic() + limit
        while time.monotonic() < end and any(process.poll() is None for process in processes):
            if closed.wait(0.1):
                break
        statuses = [process.poll() for process in processes]
        log.seek(0)
        if None in statuses:
            return f"stopped after {limit} s", log.read()
        failed = [status for status in statuses if status != 0]
        return (failed[0] if failed else 0), log.read()


def _ends_by_itself(limit):
    """A prefix that ends a command if the tests themselves are killed before they could."""
    with_parent = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    # `timeout` hands SIGTERM on to the command.
    return [*with_parent, "timeout", "--kill-after=5", str(limit + 10)]

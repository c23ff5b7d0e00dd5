"""Starts real processes, with a time limit, on free ports, and leaves none behind."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: Seconds. The checks take about one minute; a machine at work on other things needs more.
LIMIT = 420


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


def horovod(processes, command, limit=LIMIT, **environment):
    """Runs `command` under horovodrun; returns `(exit status, output)`."""
    launcher = ["horovodrun", "-np", str(processes), "--gloo", "--network-interfaces", "lo"]
    return _run([[*launcher, *command]], [_environment(**environment)], limit)


def multi_worker(processes, command, limit=LIMIT, **environment):
    """Runs `command` once for each worker of a `TF_CONFIG`; returns `(exit status, output)`."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(processes)]
    environments = [
        _environment(
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            ),
            **environment,
        )
        for index in range(processes)
    ]
    return _run([command] * processes, environments, limit)


def _run(commands, environments, limit):
    with tempfile.TemporaryFile("w+") as log, contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(_group([*_ends_by_itself(limit), *command], log, environment))
            for command, environment in zip(commands, environments, strict=True)
        ]
        try:
            statuses = [process.wait(limit) for process in processes]
        except subprocess.TimeoutExpired:
            statuses = [f"stopped after {limit} s"]
        log.seek(0)
        failed = [status for status in statuses if status != 0]
        return (failed[0] if failed else 0), log.read()


def _ends_by_itself(limit):
    """A prefix that ends a command even if the tests themselves are killed before they could."""
    return ["timeout", "--kill-after=5", str(limit + 10)]


def free_ports(count):
    """Ports of 127.0.0.1 that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]

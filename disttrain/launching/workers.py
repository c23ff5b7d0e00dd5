"""Runs the workers of a `MultiWorkerMirroredStrategy`, each with its own `TF_CONFIG`.

A worker waits for the others for ever if one is missing, so all of them end when one fails.
"""

import contextlib
import json
import os
import random
import re
import shlex
import socket
import subprocess
import sys

from disttrain.launching import hosts, on_host, report
from disttrain.launching.blame import End
from disttrain.launching.output import Screen
from disttrain.launching.processes import GRACE, MARK, Processes
from disttrain.tf_config import is_loopback

#: Seconds in which the others may fail by themselves, so that the right one is blamed.
_AFTERWARDS = 3

#: Variables that go over to other hosts, beside TF_CONFIG.
_CARRIED = re.compile(
    "^(PATH|PYTHON.*|LD_LIBRARY_PATH|VIRTUAL_ENV|TF_(?!CONFIG).*|NCCL_.*|GRPC_.*|KERAS_.*"
    "|XLA_.*|OMP_.*|DISTTRAIN_.*|COLUMNS)$"
)


class Job:
    """A program on the workers of some hosts.

    Args:
        command: The program with its arguments.
        machines: A list of `hosts.Host`; rank 0, the chief, is the first's first.
        port: Port of each host's first worker; its others take the ports that follow. `None` takes
            free ones where all workers run here, and 2222 elsewhere.
        ssh_port: Port of the hosts' ssh servers.
        ssh_identity_file: Private key for them.

    Raises:
        ValueError: `localhost` is mixed with other hosts, or a port is out of range.
    """

    def __init__(self, command, machines, port=None, ssh_port=None, ssh_identity_file=None):
        loopback = [host.name for host in machines if is_loopback(host.name)]
        if loopback and len(machines) > 1:
            raise ValueError(
                f"{loopback[0]} means another machine on each host; give the name or address by "
                "which the others reach it"
            )
        self._command = command
        self._ssh = (ssh_port, ssh_identity_file)
        self._hosts = [host for host in machines for _ in range(host.slots)]
        self._local_ranks = [i for host in machines for i in range(host.slots)]
        if port is None and loopback:
            ports = free_ports(len(self._hosts))
        else:
            ports = [(port or 2222) + local for local in self._local_ranks]
        if not all(0 < one < 2**16 for one in ports):
            raise ValueError(f"port {ports[0]} leaves no room for the workers below 65536")
        self._addresses = [
            f"{host.name}:{one}" for host, one in zip(self._hosts, ports, strict=True)
        ]

    def tf_config(self, index):
        """The `TF_CONFIG` of a worker, as text."""
        task = {"type": "worker", "index": index}
        return json.dumps({"cluster": {"worker": self._addresses}, "task": task})

    def described(self):
        """A line for each worker: what would run, as one would type it."""
        for index in range(len(self._hosts)):
            line = f"TF_CONFIG={shlex.quote(self.tf_config(index))} {shlex.join(self._command)}"
            name = self._hosts[index].name
            yield line if hosts.is_local(name) else f"ssh {name} {shlex.quote(line)}"

    def become(self, index):
        """Replaces this process by a worker.

        Raises:
            ValueError: There is no such worker.
        """
        if not 0 <= index < len(self._hosts):
            raise ValueError(f"--index {index} is outside of 0 to {len(self._hosts) - 1}")
        environment = {**os.environ, **self._own_environment(index)}
        try:
            os.execvpe(self._command[0], self._command, environment)
        except OSError as error:
            raise ValueError(f"{self._command[0]} cannot be run ({error.strerror})") from error

    def run(self, log=None, name="the program"):
        """Runs all workers; as `horovodrun.run`."""
        ends = []
        with report.Log(log) as kept:
            screen = Screen(kept.file)
            with Processes() as processes:
                for index in range(len(self._hosts)):
                    self._start(processes, screen, index)
                for index, status in processes.ended():
                    ends.append(End(index, status, screen.last_words(index)))
                    if status != 0:
                        processes.terminate(GRACE, after=_AFTERWARDS)
            return report.finish(
                ends,
                screen,
                processes.stopped,
                name,
                kept,
                where=lambda rank: f" on {self._hosts[rank].name}",
                lost=lambda: list(hosts.unreached([h.name for h in self._hosts], *self._ssh)),
            )

    def _own_environment(self, index):
        return {
            "TF_CONFIG": self.tf_config(index),
            **_gpu(self._local_ranks[index], self._hosts[index].slots),
        }

    def _start(self, processes, screen, index):
        environment = {**report.environment(), **self._own_environment(index)}
        command = self._command
        name = self._hosts[index].name
        if not hosts.is_local(name):
            carried = {k: v for k, v in environment.items() if _CARRIED.match(k)}
            carried |= {"TF_CONFIG": environment["TF_CONFIG"], MARK: processes.mark}
            there = ["env", *(f"{k}={v}" for k, v in carried.items())]
            there += [sys.executable, on_host.__file__, os.getcwd(), *command]
            command = hosts.ssh(name, shlex.join(there), *self._ssh)
        processes.start(
            index,
            command,
            lambda stream, text: screen.write(index, stream, text),
            environment,
            at_once=index == 0,
        )


def gpus():
    """Number of GPUs that a process on this machine may use."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([one for one in chosen.split(",") if one.strip() not in ("", "-1")])
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in found.stdout.splitlines())


def _gpu(local_rank, slots):
    """Gives each of several workers of a host a GPU of its own; one alone gets all."""
    if slots == 1 or not gpus():
        return {}
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = chosen.split(",") if chosen else [str(i) for i in range(gpus())]
    if local_rank >= len(names):
        raise ValueError(
            f"{slots} workers on one host want a GPU each and there are {len(names)}; start fewer, "
            "or set CUDA_VISIBLE_DEVICES=-1 to train on the CPU"
        )
    return {"CUDA_VISIBLE_DEVICES": names[local_rank]}


def free_ports(count):
    """Free ports of 127.0.0.1 for servers that start in a moment.

    They are below those that the kernel gives to outgoing connections, any of which could otherwise
    take one of them before its server does.

    Raises:
        OSError: There are too few.
    """
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            outgoing = int(file.read().split()[0])
    except OSError:
        outgoing = 32768
    lowest = 10_000 if outgoing > 12_000 else 1024
    with contextlib.ExitStack() as stack:
        found = []
        for port in random.sample(range(lowest, outgoing), outgoing - lowest):
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"There are fewer than {count} free ports from {lowest} to {outgoing - 1}.")

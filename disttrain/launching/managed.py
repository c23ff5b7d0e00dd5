"""Runs a program on the ranks that a resource manager starts: `srun` of Slurm, `jsrun` of LSF.

The manager knows hosts and processes, so neither ssh nor MPI is needed: the ranks are told where
they stand by `task.py`, and where Horovod's ranks find each other by the server that is started
here.
"""

import importlib
import os
import re
import shlex
import socket
import subprocess
import sys

from disttrain.launching import horovodrun, hosts, report, task
from disttrain.launching.blame import End
from disttrain.launching.output import Screen
from disttrain.launching.processes import Processes

#: What srun and jsrun say of a task that has failed.
_ENDED = re.compile(
    rb"srun: error: (?P<host>[^:]+): tasks? (?P<tasks>[\d,-]+): "
    rb"(?P<how>Exited with exit code (?P<code>\d+)|Killed|Terminated|Aborted|Segmentation fault)"
)

_SIGNALS = {b"Killed": 137, b"Terminated": 143, b"Aborted": 134, b"Segmentation fault": 139}


def allocation(kind):
    """The hosts of the job that this process is part of.

    Args:
        kind: `"slurm"` or `"lsf"`.

    Returns:
        A list of `hosts.Host`.

    Raises:
        ValueError: There is no such job.
    """
    return {"slurm": _slurm, "lsf": _lsf}[kind]()


def _slurm():
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if not nodes:
        raise ValueError("there is no Slurm job here; submit one: sbatch launch/slurm.sbatch ...")
    names = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    ).stdout.split()
    slots = []
    # "2(x3),1": three nodes with two tasks each, one with one.
    for tasks, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ["SLURM_TASKS_PER_NODE"]):
        slots += [int(tasks)] * int(times or 1)
    return [hosts.Host(name, count) for name, count in zip(names, slots, strict=True)]


def _lsf():
    words = os.environ.get("LSB_MCPU_HOSTS", "").split()
    if not words:
        raise ValueError("there is no LSF job here; submit one: launch/lsf.sh -n HOSTS ...")
    found = dict(zip(words[::2], words[1::2], strict=True))
    # The first is the launch node, which takes no ranks, where there are others.
    names = list(found)[1:] if len(found) > 1 else list(found)
    each = int(os.environ.get("DISTTRAIN_RANKS_PER_HOST", "1"))
    return [hosts.Host(name, each) for name in names]


def command(kind, machines, program, extra=()):
    """What starts the ranks, a list of strings."""
    count = sum(host.slots for host in machines)
    ranks = [sys.executable, task.__file__, os.getcwd(), *program]
    if kind == "slurm":
        # One failed task ends the others, which would wait for it for ever.
        fixed = ["--label", "--kill-on-bad-exit=1", "--distribution=block", f"--ntasks={count}"]
        return ["srun", *fixed, *extra, *ranks]
    each = machines[0].slots
    fixed = [f"--nrs={count}", f"--rs_per_host={each}", "--tasks_per_rs=1"]
    if not any(word.startswith(("-c", "--cpu_per_rs")) for word in extra):
        fixed.append(f"--cpu_per_rs={'ALL_CPUS' if each == 1 else 1}")
    return ["jsrun", *fixed, "--stdio_mode=prepended", *extra, *ranks]


class Rendezvous:
    """Where Horovod's ranks find each other, used as a context; its `environment` tells them."""

    def __init__(self, machines):
        self._machines = machines

    def __enter__(self):
        server = importlib.import_module("horovod.runner.http.http_server").RendezvousServer(0)
        plan = importlib.import_module("horovod.runner.common.util.hosts")
        port = server.start()
        listed = [plan.HostInfo(host.name, host.slots) for host in self._machines]
        server.init(plan.get_host_assignments(listed, sum(host.slots for host in self._machines)))
        self._server = server
        self.environment = {
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": _own_address(),
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
        }
        return self

    def __exit__(self, *error):
        self._server.stop()


def run(kind, program, replication, settings, extra=(), log=None, name="the program"):
    """Runs a job.

    Args:
        kind: `"slurm"` or `"lsf"`.
        program: The program with its arguments.
        replication: `"horovod"` or `"multi_worker"`.
        settings: Environment variables for Horovod.
        extra: More options for srun or jsrun.
        log: As for `horovodrun.run`.
        name: As for `horovodrun.run`.

    Returns:
        As `horovodrun.run`.
    """
    machines = allocation(kind)
    if replication == "multi_worker":
        return _run(kind, machines, program, {}, extra, log, name)
    with Rendezvous(machines) as rendezvous:
        environment = {**rendezvous.environment, **settings}
        return _run(kind, machines, program, environment, extra, log, name)


def _run(kind, machines, program, environment, extra, log, name):
    ends = []
    with report.Log(log) as kept:
        screen = Screen(kept.file)

        def take(stream, line):
            found = re.match(rb"^ *(\d+): ?", line)
            if found:
                screen.write(int(found[1]), stream, line[found.end() :])
                return
            screen.write(None, "stderr", line)
            ended = _ENDED.search(line)
            if ended:
                status = int(ended["code"]) if ended["code"] else _SIGNALS[ended["how"]]
                ends.extend((rank, status) for rank in _tasks(ended["tasks"].decode()))

        with Processes() as processes:
            processes.start(
                kind,
                command(kind, machines, program, extra),
                take,
                {
                    **report.environment(),
                    **environment,
                    "DISTTRAIN_HOSTS": ",".join(f"{h.name}:{h.slots}" for h in machines),
                },
            )
            status = next(code for _, code in processes.ended())
        if status and not ends and processes.stopped is None:
            # jsrun does not say which task has failed; it passes on the status of one.
            ends.append((0, status))
            print("\n".join(screen.last_words(None)[-6:]), file=sys.stderr)
        failed = [End(rank, code, screen.last_words(rank)) for rank, code in ends]
        return report.finish(
            failed,
            screen,
            processes.stopped,
            name,
            kept,
            where=lambda rank: horovodrun.where(rank, machines),
        )


def _tasks(text):
    """`"0-2,5"` as numbers."""
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _own_address():
    """This host's address as others reach it; its name's, or else that of its default route."""
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = "127.0.0.1"
    if not address.startswith("127."):
        return address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return address
        return probe.getsockname()[0]


#: Horovod's options as the variables that horovodrun makes of them.
_SETTINGS = {
    "--timeline-filename": "HOROVOD_TIMELINE",
    "--autotune-log-file": "HOROVOD_AUTOTUNE_LOG",
    "--stall-check-warning-time-seconds": "HOROVOD_STALL_CHECK_TIME_SECONDS",
    "--stall-check-shutdown-time-seconds": "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS",
    "--gloo-timeout-seconds": "HOROVOD_GLOO_TIMEOUT_SECONDS",
    "--network-interfaces": "HOROVOD_GLOO_IFACE",
    "--cycle-time-ms": "HOROVOD_CYCLE_TIME",
}
_FLAGS = {
    "--autotune": "HOROVOD_AUTOTUNE",
    "--no-stall-check": "HOROVOD_STALL_CHECK_DISABLE",
    "--timeline-mark-cycles": "HOROVOD_TIMELINE_MARK_CYCLES",
}


def add_options(parser):
    """Adds what `main` understands to an `argparse` parser."""
    parser.add_argument("--replication", choices=("horovod", "multi_worker"), default="horovod")
    parser.add_argument("--manager-options", default="", help="more options for srun or jsrun")
    parser.add_argument("--start-timeout", type=int, help="seconds for all ranks to start")
    parser.add_argument("--dry-run", action="store_true")
    for option, variable in _SETTINGS.items():
        parser.add_argument(option, dest=variable)
    for option, variable in _FLAGS.items():
        parser.add_argument(option, dest=variable, action="store_const", const="1")


def main(kind, options, program):
    """Runs what the options say; returns the exit status."""
    variables = [*_SETTINGS.values(), *_FLAGS.values()]
    settings = {name: getattr(options, name) for name in variables if getattr(options, name)}
    if "HOROVOD_GLOO_IFACE" in settings:
        settings["HOROVOD_GLOO_IFACE"] = settings["HOROVOD_GLOO_IFACE"].partition(",")[0]
        settings["NCCL_SOCKET_IFNAME"] = options.HOROVOD_GLOO_IFACE
    if options.start_timeout:
        settings["HOROVOD_START_TIMEOUT"] = str(options.start_timeout)
        settings.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", str(options.start_timeout))
    extra = shlex.split(options.manager_options)
    if options.dry_run:
        words = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
        print(*words, shlex.join(command(kind, allocation(kind), program, extra)))
        return 0
    return run(kind, program, options.replication, settings, extra, options.log, options.name)

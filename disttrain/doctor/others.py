"""Other hosts: does ssh reach them, and do they run the same?"""

import dataclasses
import os
import pathlib
import shlex
import subprocess
import sys

import disttrain
from disttrain.doctor import probe
from disttrain.doctor.findings import Finding
from disttrain.launching import hosts

_CAUSES = (
    ("Permission denied", "ssh-copy-id {name}"),
    ("Connection refused", "start its ssh server: sudo systemctl start ssh"),
    ("Could not resolve", "correct the name, or add it to /etc/hosts: getent hosts {name}"),
    ("timed out", "look whether it is up and reached: ping {name}"),
    ("No route", "look whether it is up and reached: ping {name}"),
    ("Host key verification", "ssh-keygen -R {name}"),
)


@dataclasses.dataclass(frozen=True)
class Reached:
    """What came back from a host.

    Attributes:
        name: Its name.
        problem: Why ssh does not reach it, or `None`.
        probe: What `probe` has told there, where it was reached; `None` is this machine, of which
            that is known.
    """

    name: str
    problem: str | None
    probe: dict | None


def reach(machines, ssh, seconds):
    """Goes to all hosts at once, and runs the probe there. Returns a list of `Reached`."""
    asked = {
        host.name: None if hosts.is_local(host.name) else _start(host.name, ssh)
        for host in machines
    }
    return [_answer(name, process, seconds) for name, process in asked.items()]


def check(own, reached):
    """Makes findings of what came back.

    Args:
        own: What `probe` has told here.
        reached: A list of `Reached`.
    """
    for one in reached:
        if one.probe is None:
            one = dataclasses.replace(one, probe=own)
        subject = f"Host {one.name}"
        if one.problem is not None:
            advice = next((mend for said, mend in _CAUSES if said in one.problem), None)
            mend = (advice or "ssh -v {name} true").format(name=one.name)
            yield Finding(subject, "error", f"ssh does not reach it: {one.problem}", mend)
        elif "failed" in one.probe:
            yield Finding(
                subject,
                "error",
                f"ssh reaches it, and {sys.executable} cannot tell there what it has: "
                f"{one.probe['failed']}",
                _copy(one.name),
            )
        elif "failed" not in own:
            yield _compared(subject, one, own) or _named(subject, one, len(reached))


def _compared(subject, one, own):
    """A finding where a host runs other versions than this one, else `None`."""

    def of(found):
        return {"Python": found["python"], **found["versions"], "disttrain": found.get("code")}

    here, there = of(own), of(one.probe)
    differ = [
        f"{name} {there[name] or 'is missing'} (here {here[name] or 'none'})"
        for name in here
        if there[name] != here[name]
    ]
    if differ:
        return Finding(
            subject, "error", f"runs other versions: {', '.join(differ)}", _copy(one.name)
        )
    return None


def _named(subject, one, hosts):
    """Horovod's process sets go by a machine's own name, unless launch/setup.sh has mended them."""
    address = one.probe["address"]
    mended = "+disttrain" in (one.probe["versions"]["horovod"] or "")
    if hosts > 1 and not mended and (address is None or address.startswith("127.")):
        name = one.probe["host"]
        return Finding(
            subject,
            "error",
            f"takes its own name {name} for {address or 'nothing'}, where the other hosts' ranks "
            "would look for its own",
            f"put its address on the network before {name} in its /etc/hosts, or use the Horovod "
            "that launch/setup.sh builds, which asks the network instead",
        )
    return Finding(subject, "ok", "ssh reaches it, and it runs the same versions")


def _copy(name):
    """The command that makes a host like this one: the environment and the repository."""
    root = pathlib.Path(disttrain.__path__[0]).parent
    folders = (
        {str(root)} if pathlib.Path(sys.prefix).is_relative_to(root) else {str(root), sys.prefix}
    )
    return "; ".join(
        f"rsync -a {shlex.quote(folder + '/')} {name}:{shlex.quote(folder + '/')}"
        for folder in sorted(folders)
    )


def _start(name, ssh):
    carried = {k: v for k, v in os.environ.items() if k in ("PYTHONPATH", "LD_LIBRARY_PATH")}
    there = ["env", "TF_CPP_MIN_LOG_LEVEL=3", *(f"{k}={v}" for k, v in carried.items())]
    there += [sys.executable, "-m", "disttrain.doctor.probe"]
    return subprocess.Popen(
        hosts.ssh(name, shlex.join(there), *ssh),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _answer(name, process, seconds):
    if process is None:
        return Reached(name, None, None)
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Reached(name, None, {"failed": f"no answer within {seconds} s"})
    if process.returncode == 255:  # ssh itself
        said = [line for line in errors.splitlines() if line.strip()]
        return Reached(name, said[-1] if said else "it says nothing", {})
    return Reached(name, None, probe.read(output, errors))

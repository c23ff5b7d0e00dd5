"""Hosts and the processes on each, as `-H host1:4,host2:4` names them."""

import dataclasses
import re
import socket
import subprocess

_HOST = re.compile(r"^\w[\w.-]*$")

#: Seconds that a host has to answer.
_PATIENCE = 5


@dataclasses.dataclass(frozen=True)
class Host:
    """A host.

    Attributes:
        name: Its name or address.
        slots: How many processes run on it.
    """

    name: str
    slots: int = 1


def parse(text):
    """Reads `host1:4,host2:4`; a host without a number has one slot.

    Returns:
        A list of `Host`.

    Raises:
        ValueError: It is something else, or names a host twice.
    """
    found = []
    for entry in text.split(","):
        name, colon, slots = entry.strip().partition(":")
        if not _HOST.match(name) or (colon and not re.fullmatch("[1-9][0-9]*", slots)):
            raise ValueError(f"hosts are written as host1:4,host2:4, and {entry!r} is none of them")
        found.append(Host(name, int(slots or 1)))
    if len({host.name for host in found}) < len(found):
        raise ValueError(f"{text!r} names a host twice; add up its slots")
    return found


def is_local(name):
    """Whether a name or address is this machine's: one can listen on it."""
    try:
        address = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0]
        with socket.socket(address[0], address[1]) as probe:
            probe.bind((address[4][0], 0, *address[4][2:]))
    except OSError:
        return False
    return True


def ssh(name, command, port=None, identity_file=None):
    """The ssh that runs a shell command on a host, a list of strings; it never asks for anything.

    A connection that is cut is noticed within 15 seconds.
    """
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", f"ConnectTimeout={_PATIENCE}"]
    options += ["ServerAliveInterval=5", "ServerAliveCountMax=3"]
    made = ["ssh", *(part for option in options for part in ("-o", option))]
    made += ["-p", str(port)] if port else []
    made += ["-i", identity_file] if identity_file else []
    return [*made, name, command]


def unreached(names, port=None, identity_file=None):
    """Tries ssh to some hosts at once; this machine is passed over.

    Returns:
        Name to what ssh said, of those that it does not reach.
    """
    asked = {
        name: subprocess.Popen(
            ssh(name, "true", port, identity_file),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in dict.fromkeys(names)
        if not is_local(name)
    }
    failed = {}
    for name, process in asked.items():
        try:
            _, said = process.communicate(timeout=2 * _PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
        if process.returncode:
            lines = [line for line in said.splitlines() if line.strip()]
            failed[name] = lines[-1] if lines else f"no answer within {2 * _PATIENCE} s"
    return failed

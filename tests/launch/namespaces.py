"""Several hosts on one machine: network namespaces with addresses of their own and ssh servers.

    host1 10.213.77.1 ─┐
    host2 10.213.77.2 ─┼─ a bridge in a namespace of its own
    host3 10.213.77.3 ─┘

Files are shared, as on hosts with one file system. Networks are not, and processes are not: on each
host, and in each command, nothing else is seen that could be signalled.
"""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests._support.timeouts import TIMEOUT
from tests.launch.conftest import skip_or_fail, write_program

_NET = "10.213.77"

#: A view of its own of processes.
_ALONE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=check)


class Cluster:
    """Hosts that reach each other and nothing else.

    Attributes:
        names: Their addresses, for one needs no resolver then.
        folder: Where keys and logs are.
    """

    _number = itertools.count()

    def __init__(self, folder, count):
        self.folder = folder
        self.names = [f"{_NET}.{i + 1}" for i in range(count)]
        name = f"disttrain-{os.getpid()}-{next(self._number)}"
        self._spaces = [f"{name}-{i + 1}" for i in range(count)]
        self._switch = f"{name}-switch"
        self._servers = []

    def start(self):
        ip("netns", "add", self._switch)
        ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self._switch, "link", "set", "bridge", "up")
        for number, (space, name) in enumerate(zip(self._spaces, self.names, strict=True)):
            # As Debian writes it: a host takes its own name for itself, whatever its network.
            own = Path("/etc/netns") / space
            own.mkdir(parents=True)
            (own / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {socket.gethostname()}\n")
            ip("netns", "add", space)
            port = f"port{number + 1}"
            ip("-n", space, "link", "add", "eth0", "type", "veth")
            ip("-n", space, "link", "set", "veth0", "name", port, "netns", self._switch)
            ip("-n", self._switch, "link", "set", port, "master", "bridge", "up")
            ip("-n", space, "address", "add", f"{name}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", space, "link", "set", link, "up")
        self._start_servers()

    def _start_servers(self):
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it
        for key in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key], check=True
            )
        shutil.copy(self.folder / "user.pub", self.folder / "authorized")
        client = f"IdentityFile {self.folder}/user\nIdentitiesOnly yes\nLogLevel ERROR\n"
        client += "StrictHostKeyChecking no\nBatchMode yes\n"
        client += "UserKnownHostsFile /dev/null\nGlobalKnownHostsFile /dev/null\n"
        (self.folder / "client").write_text(client)
        ssh = shutil.which("ssh")
        write_program(self.folder / "bin" / "ssh", f'exec {ssh} -F "{self.folder}/client" "$@"')
        for space, name in zip(self._spaces, self.names, strict=True):
            config = self.folder / f"sshd-{name}"
            config.write_text(
                f"ListenAddress {name}\nHostKey {self.folder}/host\nPidFile none\n"
                f"AuthorizedKeysFile {self.folder}/authorized\nStrictModes no\nUsePAM no\n"
                "PermitRootLogin yes\nMaxStartups 100\n"
            )
            sshd = [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", config]
            with open(self.folder / f"sshd-{name}.log", "w") as log:
                command = ["ip", "netns", "exec", space, *_ALONE, *sshd]
                self._servers.append(subprocess.Popen(command, stderr=log, start_new_session=True))
        for name in self.names:
            self._wait_for(name)

    def _wait_for(self, name):
        for _ in range(10 * TIMEOUT):
            if self.on(0, "ssh", name, "true").returncode == 0:
                return
            time.sleep(0.1)
        log = (self.folder / f"sshd-{name}.log").read_text()
        raise RuntimeError(f"the ssh server of {name} does not answer: {log}")

    def environment(self, **extra):
        """That of a person on one of the hosts."""
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"], "/usr/sbin"]),
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "PYTHON": sys.executable,
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        return {**environment, **extra}

    def command(self, host, *command):
        """A command on a host, counted from 0, as a list of strings."""
        return ["ip", "netns", "exec", self._spaces[host], *_ALONE, *map(str, command)]

    def on(self, host, *command, timeout=TIMEOUT, **extra):
        """Runs a command on a host, counted from 0; returns the completed process."""
        return subprocess.run(
            self.command(host, *command),
            env=self.environment(**extra),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    @contextlib.contextmanager
    def cut_off(self, host):
        """Pulls a host's cable."""
        port = f"port{host + 1}"
        ip("-n", self._switch, "link", "set", port, "down")
        try:
            yield
        finally:
            ip("-n", self._switch, "link", "set", port, "up")

    def stop(self):
        for server in self._servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        for space in [*self._spaces, self._switch]:
            for pid in ip("netns", "pids", space, check=False).stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            ip("netns", "delete", space, check=False)
            shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)
        with contextlib.suppress(OSError):
            Path("/etc/netns").rmdir()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three hosts."""
    with three_hosts(tmp_path_factory.mktemp("hosts")) as made:
        yield made


@contextlib.contextmanager
def three_hosts(folder):
    """The same for who is no test."""
    for program, package in (
        ("ip", "iproute2"),
        ("ssh", "openssh-client"),
        ("unshare", "util-linux"),
    ):
        if shutil.which(program) is None:
            skip_or_fail(f"{program} is not installed; it is in {package}")
    if not (shutil.which("sshd") or os.path.exists("/usr/sbin/sshd")):
        skip_or_fail("sshd is not installed; it is in openssh-server")
    made = Cluster(folder, 3)
    try:
        try:
            made.start()
        except (subprocess.CalledProcessError, PermissionError) as error:
            said = getattr(error, "stderr", None) or str(error)
            pytest.skip(f"network namespaces are not allowed here: {said.strip()}")
        yield made
    finally:
        made.stop()

"""What each process of a run says of itself before the first step: its host, devices and code.

Processes that run different code wait for each other for ever or drift apart unnoticed, so they
compare what they run while they can still say so.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import socket
import sys
import warnings

import numpy as np
import tensorflow as tf

import disttrain

#: Bytes in which a process describes itself.
_ROOM = 2048

_PACKAGES = ("tensorflow", "keras", "horovod", "numpy")


@dataclasses.dataclass(frozen=True)
class Peer:
    """A process.

    Attributes:
        host: Name of its host.
        devices: What its replicas run on, such as `"CPU"` or a GPU's name, one for each.
        versions: Name to version of what it runs; disttrain with a digest of its files.
        program: Digest of the program's file; `""` where there is none.
    """

    host: str
    devices: tuple
    versions: dict
    program: str


def meet(replication):
    """Lets all processes tell of themselves.

    Args:
        replication: A `Replication`. All processes call this.

    Returns:
        A list with a `Peer` for each process, in order.

    Raises:
        RuntimeError: Processes have different versions of a package, or of disttrain.
    """
    own = Peer(socket.gethostname(), _devices(replication), versions(), _program())
    text = json.dumps(dataclasses.asdict(own)).encode()
    if len(text) > _ROOM:
        # Many devices on one host: the first will do.
        own = dataclasses.replace(own, devices=own.devices[:1])
        text = json.dumps(dataclasses.asdict(own)).encode()[:_ROOM]
    room = np.zeros(_ROOM, np.uint8)
    room[: len(text)] = np.frombuffer(text, np.uint8)
    # Not every collective knows bytes.
    with replication.pulse.waiting("the comparison of hosts and versions"):
        rows = replication.all_gather(room.astype(np.int32)).astype(np.uint8)
    everyone = [json.loads(row.tobytes().rstrip(b"\0")) for row in rows]
    everyone = [Peer(**{**one, "devices": tuple(one["devices"])}) for one in everyone]
    check(everyone)
    return everyone


def check(peers):
    """Compares what processes run.

    Args:
        peers: A list of `Peer`.

    Raises:
        RuntimeError: Two have different versions.
    """
    first = peers[0]
    for rank, peer in enumerate(peers):
        for name, version in first.versions.items():
            other = peer.versions.get(name)
            if other != version:
                raise RuntimeError(
                    f"the processes run different code: rank 0 on {first.host} has {name} "
                    f"{version}, rank {rank} on {peer.host} has {other}; install the same "
                    "everywhere ('disttrain doctor -H HOSTS' compares all hosts)"
                )
        if peer.program != first.program:
            warnings.warn(
                f"rank 0 on {first.host} and rank {rank} on {peer.host} run different programs; "
                "copy the same file to all hosts unless you mean it",
                stacklevel=4,
            )
            return


def _devices(replication):
    gpus = tf.config.list_logical_devices("GPU")
    count = replication.topology.local_replicas
    if not gpus:
        return ("CPU",) * count
    details = tf.config.experimental.get_device_details(tf.config.get_visible_devices("GPU")[0])
    return (details.get("device_name", "GPU"),) * count


def versions():
    """Name to version of what this process runs; disttrain's with a digest of its files."""
    found = {"disttrain": f"{disttrain.__version__} ({_digest_of_package()})"}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _digest_of_package():
    """Tells two states of disttrain's files apart; a development version has but one number."""
    digest = hashlib.sha256()
    root = pathlib.Path(disttrain.__path__[0])
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _program():
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:12] if path else ""
    except OSError:
        return ""

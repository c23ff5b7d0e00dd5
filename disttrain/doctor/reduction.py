"""Can two processes really reduce? It tries: Horovod where it is installed, else two workers."""

import importlib
import importlib.util
import os
import signal
import subprocess
import sys

from disttrain.doctor import probe
from disttrain.doctor.findings import Finding

_SUM = "the sum is 3"


def check(machines, ssh, seconds):
    """Lets two processes add 1 and 2; one on each of the hosts, if there are several.

    Args:
        machines: `disttrain.launching.hosts.Host`s, or none.
        ssh: Port of their ssh servers, and a private key.
        seconds: How long it may take.
    """
    if importlib.util.find_spec("tensorflow") is None:
        return
    launcher = [sys.executable, "-m", "disttrain.launching"]
    with_horovod = importlib.util.find_spec("horovod") is not None
    options = [
        part
        for flag, value in zip(("--ssh-port", "--ssh-identity-file"), ssh, strict=True)
        if value
        for part in (flag, str(value))
    ]
    chosen = machines[:2] if len(machines) > 1 else []
    if with_horovod:
        where = ["--network-interfaces", "lo"]
        if chosen:
            where = ["-H", ",".join(f"{host.name}:1" for host in chosen), *options]
        launcher += ["horovodrun", "--", sys.executable, "-m", "horovod.runner.launch", "-np", "2"]
        launcher += ["--gloo", "--start-timeout", str(seconds), "--disable-cache", *where]
    else:
        where = ",".join(f"{host.name}:1" for host in chosen) or "localhost:2"
        launcher += ["workers", "--hosts", where, *options, "--"]
    command = [*launcher, sys.executable, "-m", "disttrain.doctor.reduction"]
    name = "Horovod" if with_horovod else "TensorFlow"
    between = " on " + " and ".join(host.name for host in chosen) if chosen else ""
    status, output, errors = _run(command, seconds)
    if status == 0 and _SUM in output:
        yield Finding("Reduction", "ok", f"two processes{between} have reduced with {name}")
        return
    said = [line for line in errors.splitlines() if line.strip()]
    reason = f"no answer within {seconds} s" if status is None else "\n".join(said[-3:])
    yield Finding(
        "Reduction",
        "error",
        f"two processes{between} cannot reduce with {name}: {reason}",
        "disttrain doctor -H HOSTS --seconds 120, and look for a firewall between the hosts"
        if chosen
        else "./launch/setup.sh",
    )


def _run(command, seconds):
    """`(exit status or None after the time limit, output, errors)`; leaves no process behind."""
    environment = {**probe.environment(), "CUDA_VISIBLE_DEVICES": "-1"}
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # the launcher ends what it has started
        output, errors = process.communicate()
        return None, output, errors
    return process.returncode, output, errors


def main():
    """One of the two processes."""
    from disttrain import replication

    here = replication.resolve("auto")
    import numpy as np

    gathered = here.all_gather(np.asarray([1.0 + here.topology.process], np.float32))
    print(f"the sum is {gathered.sum():g}", flush=True)


if __name__ == "__main__":
    main()

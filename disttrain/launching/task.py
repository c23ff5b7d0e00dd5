"""Tells a rank that srun or jsrun has started where it stands: `python task.py FOLDER COMMAND...`.

Run by its path, with no package imported. The hosts come in `DISTTRAIN_HOSTS`, as
`host1:4,host2:4`; the rank in the manager's own variable.
"""

import json
import os
import sys

#: Slurm; LSF's jsrun; PMIx, by which other managers number their processes.
_RANK = ("SLURM_PROCID", "JSM_NAMESPACE_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")


def main(arguments):
    """Replaces this process by the command; returns an exit status where that fails."""
    folder, *command = arguments
    hosts = [entry.rpartition(":") for entry in os.environ["DISTTRAIN_HOSTS"].split(",")]
    hosts = [(name, int(slots)) for name, _, slots in hosts]
    rank = next((int(os.environ[name]) for name in _RANK if name in os.environ), None)
    if rank is None:
        print(f"disttrain: no rank in any of {', '.join(_RANK)}", file=sys.stderr)
        return 1
    os.environ.update(placed(rank, hosts))
    try:
        os.chdir(folder)
        os.execvp(command[0], command)
    except OSError as error:
        print(f"disttrain: {error.filename} cannot be used ({error.strerror})", file=sys.stderr)
        return 127


def placed(rank, hosts):
    """The variables of a rank: Horovod's where its ranks are to meet, else `TF_CONFIG`.

    Args:
        rank: The rank; those of a host follow each other.
        hosts: `(name, processes)` of each.
    """
    local, cross = rank, 0
    while local >= hosts[cross][1]:
        local -= hosts[cross][1]
        cross += 1
    name, slots = hosts[cross]
    if "HOROVOD_GLOO_RENDEZVOUS_ADDR" in os.environ:
        # Hosts that have a process of this local rank.
        level = [host for host in hosts if host[1] > local]
        return {
            "HOROVOD_HOSTNAME": name,
            "HOROVOD_RANK": str(rank),
            "HOROVOD_SIZE": str(sum(count for _, count in hosts)),
            "HOROVOD_LOCAL_RANK": str(local),
            "HOROVOD_LOCAL_SIZE": str(slots),
            "HOROVOD_CROSS_RANK": str([host[0] for host in level].index(name)),
            "HOROVOD_CROSS_SIZE": str(len(level)),
        }
    # Jobs of one user may share a host: their numbers keep their ports apart.
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("LSB_JOBID") or "0"
    first = 10000 + int(job) % 1000 * 16
    workers = [f"{host}:{first + i}" for host, count in hosts for i in range(count)]
    task = {"type": "worker", "index": rank}
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task})}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

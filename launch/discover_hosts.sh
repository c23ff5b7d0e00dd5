#!/usr/bin/env bash
# Prints the hosts that are there now, host:slots on a line each, for Horovod's elastic training.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/discover_hosts.sh file FILE          hosts of a file, as 'host:4' or 'host slots=4'
       launch/discover_hosts.sh slurm [SLOTS]      nodes of this Slurm job that are up
       launch/discover_hosts.sh kubernetes [SLOTS] workers of this MPIJob that run

Horovod calls it every second. The file may change while a job runs; '#' begins a comment. SLOTS are the
processes on each host: by default the tasks for each node of the Slurm job, and 1 in Kubernetes.
TEXT
}

die() {
  printf 'disttrain: %s\n' "$*" >&2
  exit 2
}

slots=${2:-}
case ${1:---help} in
  -h | --help) usage ;;
  file)
    [[ -r ${2:-} ]] || die "the file of hosts '${2:-}' cannot be read; see launch/discover_hosts.sh --help."
    sed -E 's/#.*//; s/^[[:space:]]+//; s/[[:space:]]+$//; s/[[:space:]]+slots[[:space:]]*=[[:space:]]*/:/; /^$/d; /:/!s/$/:1/' "$2"
    ;;
  slurm)
    [[ -n ${SLURM_JOB_NODELIST:-} ]] || die "there is no Slurm job here; start launch/elastic.sh within one."
    # "4(x2)" where all nodes have the same number of tasks.
    slots=${slots:-${SLURM_TASKS_PER_NODE%%[(,]*}}
    # A node that fails is down, or drained by its administrator, while the job goes on without it.
    sinfo --noheader --Node --nodes "$SLURM_JOB_NODELIST" --format '%n %T' | sort -u |
      awk -v slots="${slots:-1}" '$2 ~ /^(allocated|mixed|idle|completing)$/ { print $1 ":" slots }'
    ;;
  kubernetes)
    # The operator keeps this file up to date, in the launcher's pod.
    operator=${DISTTRAIN_MPI_FOLDER:-/etc/mpi}/discover_hosts.sh
    [[ -r $operator ]] || die "$operator is not there; this is not the launcher of an MPIJob."
    sh "$operator" | awk -v slots="${slots:-1}" 'NF { if ($0 !~ /:/) $0 = $0 ":" slots; print }'
    ;;
  *) die "unknown source '$1'; choose file, slurm or kubernetes." ;;
esac

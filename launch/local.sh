#!/usr/bin/env bash
# Trains on several replicas of this machine: local.sh -np N program.py ARGS
set -euo pipefail

# The repository's Python where this script lies in it, else the one on the PATH; PYTHON= overrules.
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
python=${PYTHON:-$home/.venv/bin/python}
[[ -x $python ]] || python=$(type -P python3 || true)

usage() {
  cat <<'TEXT'
usage: launch/local.sh -np N [options] program.py ARGS
       launch/local.sh -np N [options] -m package.module ARGS

Runs a training program on N replicas of this machine.

  -np N                  replicas
  --replication NAME     horovod (default): a process for each replica, by horovodrun
                         multi_worker: a process for each replica, with TF_CONFIG
                         mirrored: one process, on N GPUs, or N logical CPU devices
  --log FILE             keep what every process writes
  --dry-run              print what would run
  --help                 this text

The user sees what the first process writes. If one fails, its error comes last, once, and this
script exits with its status.

Horovod's options are passed on, among them:
  --timeline-filename FILE                   record when each tensor was reduced
  --autotune, --autotune-log-file FILE       let Horovod try settings while it trains
  --stall-check-warning-time-seconds S, --stall-check-shutdown-time-seconds S, --no-stall-check
  --start-timeout S                          time for all processes to start
  --network-interfaces NAME,...              by default lo, for nothing leaves this machine
  --gloo-timeout-seconds S, --fusion-threshold-mb MB, --cycle-time-ms MS, --log-level LEVEL
TEXT
}

die() {
  printf 'disttrain: %s\n' "$*" >&2
  exit 2
}

np='' replication=horovod dry_run=no network=(--network-interfaces lo) passed=() log=()
while (($#)); do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --dry-run) dry_run=yes ;;
    --autotune | --no-stall-check | --timeline-mark-cycles | --verbose | --disable-cache)
      passed+=("$1")
      ;;
    -np | --replication | --log | --network-interfaces | --timeline-filename | --start-timeout | \
      --autotune-log-file | --autotune-warmup-samples | --autotune-steps-per-sample | \
      --stall-check-*-time-seconds | --gloo-timeout-seconds | --fusion-threshold-mb | \
      --cycle-time-ms | --log-level | --output-filename)
      (($# > 1)) || die "$1 needs a value; see launch/local.sh --help."
      case $1 in
        -np) np=$2 ;;
        --replication) replication=$2 ;;
        --log) log=(--log "$2") ;;
        --network-interfaces) network=("$1" "$2") ;;
        *) passed+=("$1" "$2") ;;
      esac
      shift
      ;;
    --)
      shift
      break
      ;;
    -m) break ;;
    -*) die "unknown option $1; put launch/local.sh's before the program, and see --help." ;;
    *) break ;;
  esac
  shift
done
[[ $np =~ ^[1-9][0-9]*$ ]] || die "-np takes a number of replicas, not '$np'; see launch/local.sh --help."
(($#)) || die "there is no program to run; see launch/local.sh --help."
[[ -n $python ]] || die "no Python found; run launch/setup.sh, or name one with PYTHON=/path/to/python."

# A file that ends in .py, or -m, is Python's; anything else is a command.
program=("$@") name=$1
[[ $1 != *.py && $1 != -m ]] || program=("$python" "$@")
[[ $1 != -m ]] || name=${2:-}

gpus=$({ nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU ' || true)
if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
  gpus=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -vc -e '^-1$' -e '^ *$' || true)
fi
# Two ranks cannot share a GPU under NCCL, and would fail with words about a duplicate device.
((gpus == 0 || np <= gpus)) ||
  die "-np $np asks for $np replicas and this machine has $gpus GPU(s), one for each; use -np $gpus, or CUDA_VISIBLE_DEVICES=-1 to train on the CPU."

case $replication in
  horovod)
    command=("$python" -m disttrain.launching horovodrun "--name=$name" "${log[@]}" --
      "$python" -m horovod.runner.launch -np "$np" --gloo "${network[@]}" "${passed[@]}" "${program[@]}")
    ;;
  multi_worker)
    ((${#passed[@]} == 0)) || die "${passed[0]} is Horovod's; leave it out with --replication multi_worker."
    command=("$python" -m disttrain.launching workers "--name=$name" "${log[@]}" --hosts "localhost:$np" --
      "${program[@]}")
    ;;
  mirrored)
    ((${#passed[@]} == 0)) || die "${passed[0]} is Horovod's; leave it out with --replication mirrored."
    # One process, whose words and exit status are the user's as they are.
    command=(env DISTTRAIN_REPLICATION=mirrored "DISTTRAIN_REPLICAS=$np" "${program[@]}")
    ;;
  *) die "unknown --replication $replication; choose horovod, multi_worker or mirrored." ;;
esac
if [[ $dry_run == yes ]]; then
  printf '%q ' "${command[@]}"
  echo
  exit
fi
# A TF_CONFIG of another job would be joined by the first process that imports disttrain.
unset TF_CONFIG
exec "${command[@]}"

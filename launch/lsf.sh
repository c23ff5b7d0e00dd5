#!/usr/bin/env bash
# Trains as an LSF job whose ranks jsrun starts: lsf.sh -n HOSTS -r RANKS program.py ARGS
set -euo pipefail

# The repository's Python where this script lies in it, else the one on the PATH; PYTHON= overrules.
script=$(realpath -- "${BASH_SOURCE[0]}")
home=$(dirname -- "$(dirname -- "$script")")
python=${PYTHON:-$home/.venv/bin/python}
[[ -x $python ]] || python=$(type -P python3 || true)

usage() {
  cat <<'TEXT'
usage: launch/lsf.sh -n HOSTS [-r RANKS] [options] program.py ARGS
       launch/lsf.sh -n HOSTS [-r RANKS] [options] -m package.module ARGS

Submits an LSF job that runs a training program on its hosts, started by jsrun: neither ssh nor MPI is
needed. Within a job it runs the program at once.

  -n HOSTS               hosts (bsub -nnodes)
  -r RANKS               processes on each host, as many as it has GPUs (1)
  -W [HOURS:]MINUTES     time limit (2:00)
  --project NAME         account (bsub -P)
  --bsub-options O       more options for bsub
  --replication NAME     horovod (default) or multi_worker, which sets TF_CONFIG
  --manager-options O    more options for jsrun, such as '--gpu_per_rs=1 --cpu_per_rs=7'
  --log FILE             keep what every rank writes
  --dry-run              print what would run
  --help                 this text

Horovod's options: --timeline-filename FILE, --autotune, --autotune-log-file FILE, --network-interfaces
NAME, --start-timeout S, --stall-check-warning-time-seconds S, --stall-check-shutdown-time-seconds S,
--no-stall-check, --gloo-timeout-seconds S, --cycle-time-ms MS
TEXT
}

die() {
  printf 'disttrain: %s\n' "$*" >&2
  exit 2
}

all=("$@") hosts='' ranks=1 limit=2:00 submit=() options=() dry_run=no
while (($#)); do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --dry-run) dry_run=yes ;;
    --autotune | --no-stall-check | --timeline-mark-cycles) options+=("$1") ;;
    -n | -r | -W | --project | --bsub-options | --replication | --manager-options | --log | \
      --timeline-filename | --autotune-log-file | --network-interfaces | --start-timeout | \
      --stall-check-*-time-seconds | --gloo-timeout-seconds | --cycle-time-ms)
      (($# > 1)) || die "$1 needs a value; see launch/lsf.sh --help."
      case $1 in
        -n) hosts=$2 ;;
        -r) ranks=$2 ;;
        -W) limit=$2 ;;
        --project) submit+=(-P "$2") ;;
        --bsub-options)
          read -ra more <<<"$2"
          submit+=("${more[@]}")
          ;;
        *) options+=("$1=$2") ;;
      esac
      shift
      ;;
    --)
      shift
      break
      ;;
    -m) break ;;
    -*) die "unknown option $1; put launch/lsf.sh's before the program, and see --help." ;;
    *) break ;;
  esac
  shift
done
for number in "$ranks" "${hosts:-1}"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || die "-n and -r take whole numbers, not '$number'; see launch/lsf.sh --help."
done
(($#)) || die "there is no program to run; see launch/lsf.sh --help."
[[ -n $python ]] || die "no Python found; name one with PYTHON=/path/to/python."

if [[ -z ${LSB_JOBID:-} ]]; then
  [[ -n $hosts ]] || die "say on how many hosts with -n; see launch/lsf.sh --help."
  # What is printed is what would be submitted, and that runs.
  arguments=()
  for ((i = 0; i < ${#all[@]}; i++)); do
    if [[ ${all[i]} != --dry-run ]] || ((i >= ${#all[@]} - $#)); then arguments+=("${all[i]}"); fi
  done
  # bsub joins its words and hands them to a shell, so they are quoted once more.
  printf -v again '%q ' "$script" "${arguments[@]}"
  command=(bsub -nnodes "$hosts" -W "$limit" -J disttrain -o 'disttrain-%J.out' "${submit[@]}" "$again")
  if [[ $dry_run == yes ]]; then
    printf '%q ' "${command[@]}"
    echo
    exit
  fi
  exec "${command[@]}"
fi

program=("$@") name=$1
[[ $1 != *.py && $1 != -m ]] || program=("$python" "$@")
[[ $1 != -m ]] || name=${2:-}
[[ $dry_run == no ]] || options+=(--dry-run)
unset TF_CONFIG
export DISTTRAIN_RANKS_PER_HOST=$ranks
exec "$python" -m disttrain.launching lsf "--name=$name" "${options[@]}" -- "${program[@]}"

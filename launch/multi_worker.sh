#!/usr/bin/env bash
# Trains under MultiWorkerMirroredStrategy, with TF_CONFIG set for each process:
# multi_worker.sh -np N program.py ARGS, or -H host1:4,host2:4 program.py ARGS
set -euo pipefail

# The repository's Python where this script lies in it, else the one on the PATH; PYTHON= overrules.
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
python=${PYTHON:-$home/.venv/bin/python}
[[ -x $python ]] || python=$(type -P python3 || true)

usage() {
  cat <<'TEXT'
usage: launch/multi_worker.sh (-np N | -H HOSTS) [options] program.py ARGS
       launch/multi_worker.sh (-np N | -H HOSTS) [options] -m package.module ARGS

Runs a training program in several processes, each with its own TF_CONFIG.

  -np N                  processes on this machine
  -H HOST:N,HOST:N       hosts, and processes on each; the first is the chief's
  --port PORT            port of each host's first process, the others follow (2222)
  --index I              be process I alone, for a supervisor that starts one on each host
  --ssh-port PORT        of the hosts' ssh servers
  --ssh-identity-file F  private key for them
  --log FILE             keep what every process writes
  --dry-run              print what would run
  --help                 this text

Several processes on one host get a GPU each; one alone gets all. The hosts need this folder and this
Python at the same paths. The user sees what the first process writes. If one fails all end: its error
comes last, once, and this script exits with its status.
TEXT
}

die() {
  printf 'disttrain: %s\n' "$*" >&2
  exit 2
}

hosts='' passed=() dry_run=()
while (($#)); do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --dry-run) dry_run=(--dry-run) ;;
    -np | -H | --port | --index | --ssh-port | --ssh-identity-file | --log)
      (($# > 1)) || die "$1 needs a value; see launch/multi_worker.sh --help."
      case $1 in
        -np)
          [[ $2 =~ ^[1-9][0-9]*$ ]] || die "-np takes a number of processes, not '$2'; see launch/multi_worker.sh --help."
          hosts=localhost:$2
          ;;
        -H) hosts=$2 ;;
        *) passed+=("$1" "$2") ;;
      esac
      shift
      ;;
    --)
      shift
      break
      ;;
    -m) break ;;
    -*) die "unknown option $1; put launch/multi_worker.sh's before the program, and see --help." ;;
    *) break ;;
  esac
  shift
done
[[ -n $hosts ]] || die "say how many processes with -np N, or which hosts with -H host1:4,host2:4."
(($#)) || die "there is no program to run; see launch/multi_worker.sh --help."
[[ -n $python ]] || die "no Python found; run launch/setup.sh, or name one with PYTHON=/path/to/python."

# A file that ends in .py, or -m, is Python's; anything else is a command.
program=("$@") name=$1
[[ $1 != *.py && $1 != -m ]] || program=("$python" "$@")
[[ $1 != -m ]] || name=${2:-}
# A TF_CONFIG of another job would be joined by the launcher itself.
unset TF_CONFIG
exec "$python" -m disttrain.launching workers "--name=$name" --hosts "$hosts" "${passed[@]}" "${dry_run[@]}" \
  -- "${program[@]}"

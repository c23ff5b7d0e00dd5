#!/usr/bin/env bash
# Trains by Horovod on hosts that come and go: elastic.sh --min-np 2 --max-np 8 --hosts file FILE program.py ARGS
set -euo pipefail

# The repository's Python where this script lies in it, else the one on the PATH; PYTHON= overrules.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
python=${PYTHON:-${here%/*}/.venv/bin/python}
[[ -x $python ]] || python=$(type -P python3 || true)

usage() {
  cat <<'TEXT'
usage: launch/elastic.sh --min-np N [--max-np N] --hosts SOURCE [options] program.py ARGS
       launch/elastic.sh --min-np N [--max-np N] --hosts SOURCE [options] -m package.module ARGS

Runs a training program on as many processes as there are slots, between two numbers, and goes on when
hosts are lost or join.

  --min-np N             processes without which it waits
  --max-np N             processes above which no more are started
  -np N                  processes with which it begins (--min-np)
  --hosts file FILE      hosts of a file, which may change while it runs
  --hosts slurm          nodes of this Slurm job
  --hosts kubernetes     workers of this MPIJob
  --script COMMAND       another command that prints the hosts, host:slots on a line each
  --log FILE             keep what every process writes
  --dry-run              print what would run
  --help                 this text

Horovod's options are passed on, among them:
  --blacklist-cooldown-range MIN MAX         seconds after which a host that failed is tried again; without
                                             it never
  --reset-limit N, --elastic-timeout S, --slots-per-host N, --start-timeout S
  --network-interfaces NAME,..., --ssh-port PORT, --ssh-identity-file FILE
  --timeline-filename FILE, --autotune, --autotune-log-file FILE
  --stall-check-warning-time-seconds S, --stall-check-shutdown-time-seconds S, --no-stall-check
TEXT
}

die() {
  printf 'disttrain: %s\n' "$*" >&2
  exit 2
}

# needs NAME COUNT REST...: dies where an option's values are missing.
needs() { (($# - 2 > $2)) || die "$1 needs ${2/#1/a} value(s); see launch/elastic.sh --help."; }

min='' max='' np='' script='' dry_run=no passed=() log=()
while (($#)); do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --dry-run) dry_run=yes ;;
    --autotune | --no-stall-check | --timeline-mark-cycles | --verbose) passed+=("$1") ;;
    --hosts)
      needs "$1" 1 "$@"
      case $2 in
        file)
          needs "--hosts file" 2 "$@"
          # Horovod runs it in a shell, from wherever it is.
          printf -v script '%q file %q' "$here/discover_hosts.sh" "$(realpath -m -- "$3")"
          shift
          ;;
        slurm | kubernetes) printf -v script '%q %s' "$here/discover_hosts.sh" "$2" ;;
        *) die "unknown --hosts $2; choose 'file FILE', slurm or kubernetes, or give a --script." ;;
      esac
      shift
      ;;
    --blacklist-cooldown-range)
      needs "$1" 2 "$@"
      passed+=("$1" "$2" "$3")
      shift 2
      ;;
    --min-np | --max-np | -np | --script | --log | --reset-limit | --elastic-timeout | \
      --slots-per-host | --start-timeout | --network-interfaces | --ssh-port | \
      --ssh-identity-file | --timeline-filename | --autotune-log-file | \
      --stall-check-*-time-seconds | --gloo-timeout-seconds | --fusion-threshold-mb | \
      --cycle-time-ms | --log-level)
      needs "$1" 1 "$@"
      case $1 in
        --min-np) min=$2 ;;
        --max-np) max=$2 ;;
        -np) np=$2 ;;
        --script) script=$2 ;;
        --log) log=(--log "$2") ;;
        *) passed+=("$1" "$2") ;;
      esac
      shift
      ;;
    --)
      shift
      break
      ;;
    -m) break ;;
    -*) die "unknown option $1; put launch/elastic.sh's before the program, and see --help." ;;
    *) break ;;
  esac
  shift
done
for number in "$min" "${max:-1}" "${np:-1}"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || die "--min-np, --max-np and -np take numbers of processes, not '$number'; see launch/elastic.sh --help."
done
np=${np:-$min}
((min <= np && np <= ${max:-$np})) || die "-np $np does not lie between --min-np $min and --max-np ${max:-none}."
[[ -n $script ]] || die "say where the hosts are, with --hosts or --script; see launch/elastic.sh --help."
(($#)) || die "there is no program to run; see launch/elastic.sh --help."
[[ -n $python ]] || die "no Python found; run launch/setup.sh, or name one with PYTHON=/path/to/python."

# A file that ends in .py, or -m, is Python's; anything else is a command.
program=("$@") name=$1
[[ $1 != *.py && $1 != -m ]] || program=("$python" "$@")
[[ $1 != -m ]] || name=${2:-}
# ssh ends nothing on the other side, and Horovod does not quote the folder: on_host.py does both.
package=$(cd / && "$python" -c 'import disttrain; print(disttrain.__path__[0])' 2>/dev/null || echo "${here%/*}/disttrain")
program=("$python" "$package/launching/on_host.py" "$PWD" "${program[@]}")

command=("$python" -m disttrain.launching horovodrun "--name=$name" "${log[@]}" --
  "$python" -m horovod.runner.launch --gloo -np "$np" --min-np "$min" ${max:+--max-np "$max"}
  --host-discovery-script "$script" "${passed[@]}" "${program[@]}")
if [[ $dry_run == yes ]]; then
  printf '%q ' "${command[@]}"
  echo
  exit
fi
# A TF_CONFIG of another job would be joined by the launcher itself.
unset TF_CONFIG
exec "${command[@]}"

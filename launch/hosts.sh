#!/usr/bin/env bash
# Trains on several hosts by Horovod over ssh: hosts.sh -H host1:4,host2:4 program.py ARGS
set -euo pipefail

# The repository's Python where this script lies in it, else the one on the PATH; PYTHON= overrules.
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
python=${PYTHON:-$home/.venv/bin/python}
[[ -x $python ]] || python=$(type -P python3 || true)

usage() {
  cat <<'TEXT'
usage: launch/hosts.sh (-H HOSTS | --hostfile FILE) [options] program.py ARGS
       launch/hosts.sh (-H HOSTS | --hostfile FILE) [options] -m package.module ARGS

Runs a training program on several hosts, each of which this one reaches by ssh without a password.

  -H HOST:N,HOST:N       hosts, and processes on each (as many as it has GPUs)
  --hostfile FILE        the same, a line for each host: 'host slots=N'
  -np N                  processes altogether, where they are fewer
  --ssh-port PORT        of the hosts' ssh servers
  --ssh-identity-file F  private key for them
  --log FILE             keep what every process writes
  --dry-run              print what would run
  --help                 this text

The hosts need this folder and this Python at the same paths; 'disttrain doctor -H HOSTS' tells whether
they are ready. The user sees what the first process writes. If one fails, its error comes last, once,
with its host, and this script exits with its status.

Horovod's options are passed on, among them:
  --network-interfaces NAME,...              the network that the hosts share; found by default
  --start-timeout S                          time for all hosts to start
  --timeline-filename FILE                   record when each tensor was reduced
  --autotune, --autotune-log-file FILE       let Horovod try settings while it trains
  --stall-check-warning-time-seconds S, --stall-check-shutdown-time-seconds S, --no-stall-check
  --gloo-timeout-seconds S                   how long a lost host is waited for (30)
  --fusion-threshold-mb MB, --cycle-time-ms MS, --hierarchical-allreduce, --log-level LEVEL
TEXT
}

die() {
  printf 'disttrain: %s\n' "$*" >&2
  exit 2
}

hosts='' np='' dry_run=no ssh=() passed=() log=()
while (($#)); do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --dry-run) dry_run=yes ;;
    --autotune | --no-stall-check | --timeline-mark-cycles | --hierarchical-allreduce | \
      --hierarchical-allgather | --verbose | --disable-cache)
      passed+=("$1")
      ;;
    -H | --hostfile | -np | --log | --ssh-port | --ssh-identity-file | --network-interfaces | \
      --timeline-filename | --start-timeout | --autotune-log-file | --autotune-warmup-samples | \
      --autotune-steps-per-sample | --stall-check-*-time-seconds | --gloo-timeout-seconds | \
      --fusion-threshold-mb | --cycle-time-ms | --log-level | --output-filename)
      (($# > 1)) || die "$1 needs a value; see launch/hosts.sh --help."
      case $1 in
        -H) hosts=$2 ;;
        --hostfile)
          [[ -r $2 ]] || die "the hostfile $2 cannot be read."
          # Both 'host slots=4' and 'host:4' are in use, and '#' begins a comment.
          hosts=$(sed -E 's/#.*//; s/[[:space:]]+$//; s/[[:space:]]+slots[[:space:]]*=[[:space:]]*/:/; /^$/d' "$2" | paste -sd, -)
          ;;
        -np) np=$2 ;;
        --log) log=(--log "$2") ;;
        --ssh-port | --ssh-identity-file) ssh+=("$1" "$2") ;;
        *) passed+=("$1" "$2") ;;
      esac
      shift
      ;;
    --)
      shift
      break
      ;;
    -m) break ;;
    -*) die "unknown option $1; put launch/hosts.sh's before the program, and see --help." ;;
    *) break ;;
  esac
  shift
done
[[ $hosts =~ ^[A-Za-z0-9_.-]+(:[1-9][0-9]*)?(,[A-Za-z0-9_.-]+(:[1-9][0-9]*)?)*$ ]] ||
  die "hosts are written as -H host1:4,host2:4, or 'host1 slots=4' in a --hostfile; '$hosts' is neither."
(($#)) || die "there is no program to run; see launch/hosts.sh --help."
[[ -n $python ]] || die "no Python found; run launch/setup.sh, or name one with PYTHON=/path/to/python."

# Horovod wants a number behind each host.
hosts=$(tr ',' '\n' <<<"$hosts" | sed '/:/!s/$/:1/' | paste -sd, -)
slots=$(tr ',' '\n' <<<"$hosts" | awk -F: '{ n += $2 } END { print n }')
[[ ${np:=$slots} =~ ^[1-9][0-9]*$ ]] || die "-np takes a number of processes, not '$np'; see launch/hosts.sh --help."
((np <= slots)) || die "-np $np asks for more processes than the $slots slots of $hosts; add hosts or slots."
if [[ ",$hosts" == *,localhost:* || ",$hosts" == *,127.* ]] && [[ $hosts == *,* ]]; then
  die "localhost means another machine on each host; give the name or address by which the others reach it."
fi

# A file that ends in .py, or -m, is Python's; anything else is a command.
program=("$@") name=$1
[[ $1 != *.py && $1 != -m ]] || program=("$python" "$@")
[[ $1 != -m ]] || name=${2:-}
# ssh ends nothing on the other side, and Horovod does not quote the folder: on_host.py does both.
package=$(cd / && "$python" -c 'import disttrain; print(disttrain.__path__[0])' 2>/dev/null || echo "$home/disttrain")
program=("$python" "$package/launching/on_host.py" "$PWD" "${program[@]}")

command=("$python" -m disttrain.launching horovodrun "--name=$name" --peers "$hosts" "${log[@]}" "${ssh[@]}" --
  "$python" -m horovod.runner.launch -np "$np" -H "$hosts" --gloo "${ssh[@]}" "${passed[@]}" "${program[@]}")
if [[ $dry_run == yes ]]; then
  printf '%q ' "${command[@]}"
  echo
  exit
fi
# A TF_CONFIG of another job would be joined by the launcher itself.
unset TF_CONFIG
exec "${command[@]}"

#!/usr/bin/env bash
# Trains a small network on two Horovod processes of this machine, then opens TensorBoard on the run.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bin=$root/.venv/bin

usage() {
  cat <<'TEXT'
usage: launch/demo.sh [options]

Trains a small image classifier on this machine and shows the run in TensorBoard.

  -np N                 processes to train on (default 2)
  --dataset NAME        digits (default, needs no download), fashion-mnist or cifar10
  --data-dir DIR        where downloaded data is, or is kept
  --epochs N            passes over the data
  --batch N             examples in a step, over all processes
  --logdir DIR          where the run is written (default runs/demo-TIME)
  --no-serve            train only; do not start TensorBoard
  --help                this text

Any other option goes to the example; 'python -m disttrain.examples.images --help' lists them.
TEXT
}

die() {
  printf 'disttrain: %s\n' "$*" >&2
  exit 1
}

processes=2 serve=yes logdir=$root/runs/demo-$(date +%Y%m%d-%H%M%S) pass=()
served=$root/runs # with the runs of other days to compare with
while (($#)); do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --no-serve) serve=no ;;
    -np | --logdir | --data-dir)
      (($# > 1)) || die "$1 needs a value; see launch/demo.sh --help."
      case $1 in
        -np) processes=$2 ;;
        --logdir) logdir=$(realpath -m -- "$2") served=$logdir ;;
        --data-dir) pass+=(--data-dir "$(realpath -m -- "$2")") ;;
      esac
      shift
      ;;
    --logdir=*) logdir=$(realpath -m -- "${1#*=}") served=$logdir ;;
    --data-dir=*) pass+=(--data-dir "$(realpath -m -- "${1#*=}")") ;;
    *) pass+=("$1") ;;
  esac
  shift
done
[[ $processes =~ ^[1-9][0-9]*$ ]] || die "-np takes a number of processes, not '$processes'; see launch/demo.sh --help."

# Whatever ends this script ends what it started. horovodrun passes SIGTERM on to its workers.
child='' shows=()
stop() {
  trap - INT TERM HUP
  if [[ -n $child ]] && kill -TERM "$child" 2>/dev/null; then
    printf '\ndisttrain: stopping\n' >&2
    wait "$child" "${shows[@]}" || true
  fi
  exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM
trap 'stop 129' HUP

"$root/launch/setup.sh"

mkdir -p "$logdir" 2>/dev/null || die "$logdir cannot be made; choose another folder with --logdir."
cd "$root" # Python looks for packages in the current folder first, which may be another clone
log=$logdir/horovodrun.log

# Two processes cannot share one GPU under NCCL.
gpus=$({ nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU ' || true)
if ((gpus > 0 && gpus < processes)); then
  printf 'disttrain: %s processes and %s GPU(s): training on the CPU\n' "$processes" "$gpus"
  export CUDA_VISIBLE_DEVICES=-1
fi

# TensorFlow 2.21 writes these lines before it looks at TF_CPP_MIN_LOG_LEVEL.
noise='^(WARNING: All log messages before absl::|[IWE][0-9]{4} [0-9:.]+ +[0-9]+ [^ ]+\.cc:|To enable the following instructions: )'

# horovodrun reads its workers' output through pipes and prefixes every line with its rank, where no
# progress bar can live. So on a terminal rank 0 writes to the terminal itself. Everything else passes
# through horovodrun's prefixes into the log, and rank 0's part from there to the user.
terminal=
[[ ! -t 1 ]] || terminal=$(readlink "/proc/$$/fd/1")
(: >>"$terminal") 2>/dev/null || terminal=
# The worker takes this shell's place, because horovodrun sends SIGTERM to the shell alone.
# shellcheck disable=SC2016 # expanded by the worker's shell
worker='terminal=$1; shift
  if [ "$HOROVOD_RANK" = 0 ] && [ -n "$terminal" ]; then exec >>"$terminal"; fi
  exec "$@"'

# show STREAM: rank 0's part of horovodrun's output, without TensorFlow's noise and the prefix, which
# horovodrun puts behind carriage returns, too.
show() {
  trap '' INT TERM HUP # outlive the workers, to show what they say last
  tee -a "$log" | sed -un "s/^\[0\]<$1>://; T; s/\r\[0\]<$1>:/\r/g; p" |
    grep --line-buffered -Ev "$noise" || true
}

# last_words LINES RANK
last_words() { sed -n "s/^\[$2\]<stderr>://p" "$log" | grep -Ev "$noise" | tail -n "$1" || true; }

: >"$log"
exec 5> >(show stdout)
shows=($!)
exec 6> >(show stderr >&2)
shows+=($!)
TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3} HOROVOD_LOG_LEVEL=${HOROVOD_LOG_LEVEL:-error} \
  "$bin/horovodrun" -np "$processes" --gloo --network-interfaces lo \
  bash -c "$worker" worker "$terminal" \
  "$bin/python" -m disttrain.examples.images --replication horovod --logdir "$logdir" "${pass[@]}" \
  >&5 2>&6 &
child=$!
exec 5>&- 6>&-
status=0
wait "$child" || status=$?
child=
wait "${shows[@]}" || true

if ((status != 0)); then
  # horovodrun itself always exits with 1. To blame is the first process that failed by itself, not
  # one that lost its partner or was terminated for it.
  rank='' code=$status
  while read -r failed how; do
    if [[ $how != 143 && $(last_words 3 "$failed") != *'Horovod has been shut down'* ]]; then
      rank=$failed code=$how
      break
    fi
  done < <(sed -n 's/^Process \([0-9]*\) exit with status code \([0-9]*\)\.$/\1 \2/p' "$log")
  # Often all fail alike; rank 0's words are on the screen already.
  if [[ $(last_words 1 "${rank:-0}") != "$(last_words 1 0)" ]]; then
    last_words 20 "$rank" >&2
  fi
  printf 'disttrain: the training failed%s; %s holds what every process wrote.\n' \
    "${rank:+ in process $rank}" "$log" >&2
  exit "$code"
fi

[[ $serve == yes ]] || exit 0

# TensorBoard chooses a free port and says which when it answers.
"$bin/tensorboard" --logdir "$served" --host 127.0.0.1 --port 0 >"$logdir/tensorboard.log" 2>&1 &
child=$!
port=
while [[ -z $port ]]; do
  kill -0 "$child" 2>/dev/null || {
    tail -n 20 "$logdir/tensorboard.log" >&2
    child=
    die "TensorBoard did not start; $logdir/tensorboard.log says why."
  }
  sleep 0.2
  port=$(sed -n 's|.* at http://[^ ]*:\([0-9]*\)/.*|\1|p' "$logdir/tensorboard.log")
done
# Stopping TensorBoard is the ordinary end, after a training that went well.
trap 'stop 0' INT
printf '\nTensorBoard: http://localhost:%s/#disttrain\nPress Ctrl-C to stop it.\n' "$port"
wait "$child"

#!/usr/bin/env bash
# Makes the environments of the peers that `python -m tests.benchmarks peers` compares with:
#   horovod  TensorFlow 2.15.1, Keras 2.15.0 and Horovod 0.28.1 built for them, the last stack on
#            which Horovod's own Keras wrapper works
#   torch    PyTorch without CUDA, for DistributedDataParallel over Gloo
# They lie below ~/.cache/disttrain (or $XDG_CACHE_HOME/disttrain), never in the repository.
#
#   tests/benchmarks/old_horovod.sh            makes what is missing (6 to 9 minutes, 4 GB)
#   tests/benchmarks/old_horovod.sh horovod    only that one
#   tests/benchmarks/old_horovod.sh --where    prints the folder
#   PYTHON=/path/to/python3.11                 chooses the interpreter (3.10 or 3.11)
set -euo pipefail

readonly tensorflow=2.15.1 keras=2.15.0 horovod=0.28.1 torch=2.13.0
readonly home=${XDG_CACHE_HOME:-${HOME:-~}/.cache}/disttrain/peers

say() { printf 'peers: %s\n' "$*"; }
die() {
  printf 'peers: %s\n' "$*" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.10 python3; do
    # A pyenv shim is found on the PATH and yet does not run: only an answer counts.
    case $("$candidate" -c 'import ensurepip, sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true) in
      3.10 | 3.11)
        python=$candidate
        return
        ;;
    esac
  done
  die "no Python 3.10 or 3.11 with the venv module found; name one with PYTHON=/path/to/python3.11."
}

pip() { "$new/bin/python" -m pip --disable-pip-version-check --no-input --timeout 180 --retries 5 "$@"; }

make_horovod() {
  pip install "tensorflow==$tensorflow" "keras==$keras" 'numpy<2' 'setuptools<81' wheel \
    cmake==3.31.6 cffi cloudpickle psutil pyyaml packaging
  local source=$new/source
  mkdir "$source"
  pip download --no-deps --no-binary :all: --no-build-isolation --dest "$new" "horovod==$horovod"
  tar -xzf "$new/horovod-$horovod.tar.gz" -C "$source" --strip-components 1
  # This file includes XLA headers that TensorFlow's wheel does not carry; see launch/setup.sh.
  sed -i '/xla_mpi_ops\.cc/d' "$source/horovod/tensorflow/CMakeLists.txt"
  HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_WITHOUT_PYTORCH=1 \
    HOROVOD_WITHOUT_MXNET=1 HOROVOD_CMAKE=$new/bin/cmake MAKEFLAGS=-j$(nproc) \
    pip install --no-deps --no-build-isolation "$source"
  rm -rf "$source" "$new/horovod-$horovod.tar.gz"
  (cd "$new" && bin/python -c 'import horovod.tensorflow.keras as hvd; hvd.init(); assert hvd.gloo_built()')
}

make_torch() {
  # This index has wheels without the CUDA libraries; pip goes on where it cannot be reached.
  pip install numpy "torch==$torch+cpu" --extra-index-url https://download.pytorch.org/whl/cpu
  "$new/bin/python" -c 'import torch.distributed as d; assert d.is_gloo_available()'
}

make() { # NAME
  local name=$1
  new=$home/$name
  if [[ -f $new/ready ]]; then
    say "$new is there"
    return
  fi
  find_python
  type -P "${CXX:-c++}" >/dev/null || die "no C++ compiler found; install g++."
  say "making $new; $new.log has the output"
  rm -rf "$new"
  "$python" -m venv "$new"
  # On its own: behind `||` bash would go on after a command that fails.
  (
    set -e
    "make_$name"
  ) >"$new.log" 2>&1 </dev/null &
  if ! wait $!; then
    tail -n 15 "$new.log" >&2
    die "$name failed; the end of $new.log says why."
  fi
  touch "$new/ready"
  say "$new is ready"
}

main() {
  case ${1:-} in
    --where)
      echo "$home"
      exit
      ;;
    '') set -- horovod torch ;;
  esac
  mkdir -p "$home"
  exec 9>>"$home/lock"
  flock 9
  for name in "$@"; do
    case $name in
      horovod | torch) make "$name" ;;
      *) die "unknown peer $name; there are horovod and torch." ;;
    esac
  done
}

main "$@"

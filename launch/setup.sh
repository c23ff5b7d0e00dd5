#!/usr/bin/env bash
# Makes .venv in the repository, installs disttrain into it and builds Horovod for its TensorFlow.
# Run again it changes nothing. It touches no system package: what is missing it names, and stops.
#
#   launch/setup.sh              make or bring up to date
#   launch/setup.sh --check      exit with 1 if that would change anything
#   launch/setup.sh --print-key  the name under which the built Horovod is cached
#   PYTHON=/path/to/python3.10   choose the interpreter
#   DISTTRAIN_NCCL=0             build Horovod without NCCL although nvcc is there
set -euo pipefail

readonly horovod=0.28.1 pythons=(3.11 3.10) # the best first
# Measured: .venv takes 2.7 GB, pip's downloads 0.7 GB on their way into it, the build 0.3 GB.
# TensorFlow's CUDA libraries: about 5 GB more, downloaded as 3 GB.
readonly venv_mb=4000 download_mb=1500 build_mb=500 cuda_mb=5000 cuda_download_mb=3000

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly root venv=$root/.venv
readonly log=$venv/setup.log stamp=$venv/setup.stamp
readonly cache=${XDG_CACHE_HOME:-${HOME:-~}/.cache}/disttrain

say() { printf 'disttrain: %s\n' "$*"; }
die() {
  printf 'disttrain: %s\n' "$*" >&2
  exit 1
}

# stage NAME COMMAND...: the output goes to the log; a failure is explained and ends the script.
stage() {
  local name=$1 status=0
  shift
  printf '\n== %s\n' "$name" >>"$log"
  : >"$work/pip.log"
  "$@" 2>&1 </dev/null | tee "$work/stage.log" >>"$log" || status=$?
  ((status == 0)) || explain "$name"
}

explain() {
  # pip says why it could not reach an index in its own log alone.
  local unreachable='NewConnectionError|Max retries exceeded|ConnectTimeout|ReadTimeoutError|ProxyError'
  unreachable+='|Temporary failure in name resolution|Network is unreachable|Connection refused'
  if grep -qsE 'No space left on device|Errno 28' "$work/stage.log" "$work/pip.log"; then
    die "the disk is full; free some gigabytes under $root or ${TMPDIR:-/tmp} and run this again."
  elif grep -qsE "$unreachable" "$work/stage.log" "$work/pip.log"; then
    die "pip cannot reach its package index; connect this machine to the network, or set PIP_INDEX_URL to an index that it can reach, and run this again."
  fi
  tail -n 25 "$work/stage.log"
  die "$1 failed; mend what the end of $log names and run this again."
}

# By the environment, not --log: the pip that pip starts for build requirements writes there too.
pip() { PIP_LOG=$work/pip.log "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

# --- What this machine has ---------------------------------------------------------------------

# A pyenv shim is found on the PATH and yet does not run: only an answer counts.
python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

suits() { [[ " ${pythons[*]} " == *" $1 "* ]]; }

find_python() {
  local candidate version without_venv='' choice=${pythons[*]}
  choice=${choice// / or }
  for candidate in ${PYTHON:+"$PYTHON"} "${pythons[@]/#/python}" python3; do
    version=$(python_version "$candidate")
    if suits "$version"; then
      if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        python=$candidate
        return
      fi
      without_venv=${without_venv:-$version}
    fi
    [[ -z ${PYTHON:-} ]] ||
      die "PYTHON=$PYTHON is no Python $choice with the venv module; set PYTHON to one that is and run this again."
  done
  [[ -z $without_venv ]] ||
    die "Python $without_venv lacks the venv module; install it, for example 'sudo apt-get install python$without_venv-venv', and run this again."
  die "no Python $choice found; install one, for example 'sudo apt-get install python${pythons[0]} python${pythons[0]}-venv', or name it with PYTHON=/path/to/python${pythons[0]}, and run this again."
}

find_gpu() {
  gpu=no nvcc='' without_nccl='no nvcc was found'
  [[ $(nvidia-smi -L 2>/dev/null) == GPU* ]] || return 0
  gpu=yes
  [[ ${DISTTRAIN_NCCL:-1} == 0 ]] || nvcc=$(PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin type -P nvcc || true)
}

# Horovod's TensorFlow part includes no Python header, so none is asked for.
check_build_tools() {
  [[ -n $(type -P "${CXX:-c++}" g++ clang++) ]] ||
    die "no C++ compiler found; install one, for example 'sudo apt-get install g++', and run this again."
  type -P make >/dev/null ||
    die "make not found; install it, for example 'sudo apt-get install make', and run this again."
}

# check_disk FOLDER MEGABYTES
check_disk() {
  local free
  free=$(df -Pk -- "$1" | awk 'NR == 2 { print int($4 / 1024) }')
  ((free >= $2)) ||
    die "$1 has $free MB free and $2 MB are needed; free some disk space and run this again."
}

# --- Names -------------------------------------------------------------------------------------

# "cp311 2.21.0 0.28.1 12": the interpreter's tag, the installed TensorFlow and Horovod, and the CUDA
# that TensorFlow was built for.
installed() {
  "$venv/bin/python" - 2>/dev/null <<'PYTHON'
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version

def of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"

needs = "" if of("tensorflow") == "none" else " ".join(requires("tensorflow"))
cuda = re.search(r"nvidia-cuda-runtime-cu(\d+)", needs)
print("cp%d%d" % sys.version_info[:2], of("tensorflow"), of("horovod"), cuda[1] if cuda else "none")
PYTHON
}

nvcc_release() { "$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p'; }

# Horovod's CUDA calls go to the CUDA runtime that TensorFlow loads: another nvcc does not fit it.
settle_nvcc() {
  local cuda
  [[ -n $nvcc ]] || return 0
  cuda=$(installed | cut -d ' ' -f 4) || return 0
  [[ -n $cuda && $(nvcc_release) != "$cuda".* ]] || return 0
  without_nccl="nvcc is of CUDA $(nvcc_release), TensorFlow of CUDA $cuda" nvcc=
}

# Ranks must have been mended alike, or they do not understand each other: the version tells.
mended() { echo "disttrain.m$(sha256sum <"$root/launch/mend_horovod.py" | cut -c 1-8)"; }

# wheel_key PYTHON_TAG TENSORFLOW
wheel_key() {
  local support=gloo
  [[ -z $nvcc ]] || support=nccl-cuda$(nvcc_release)
  echo "horovod-$horovod+$(mended)-$1-tensorflow-$2-$support-$(uname -m)"
}

# What the finished .venv came from; equal to the stamp, there is nothing to do.
fingerprint() {
  local versions
  versions=$(installed) || return 1
  # shellcheck disable=SC2086 # three words
  set -- $versions
  echo "$versions" gpu="$gpu" "$(wheel_key "$1" "$2")"
  cat "$root/setup.cfg" "$root/pyproject.toml" "$root/launch/setup.sh" | sha256sum
}

up_to_date() { [[ -f $stamp && $(<"$stamp") == "$(fingerprint)" ]]; }

# --- The work ----------------------------------------------------------------------------------

# Programs in .venv/bin name its Python by its full path, so that a moved .venv is of no use.
venv_is_sound() {
  local version
  version=$(python_version "$venv/bin/python")
  suits "$version" || return 1
  [[ -z ${PYTHON:-} || $version == "$(python_version "$PYTHON")" ]] || return 1
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 || return 1
  [[ $(head -n 3 "$venv/bin/pip" 2>/dev/null) == *[\!\"\']"$venv/bin/python"* ]]
}

make_venv() {
  find_python
  local need=$venv_mb download=$download_mb
  [[ $gpu == no ]] || need=$((need + cuda_mb)) download=$((download + cuda_download_mb))
  check_disk "$root" "$need"
  check_disk "${TMPDIR:-/tmp}" "$download"
  compgen -G "$cache/horovod-$horovod+disttrain.*-cp$(python_version "$python" | tr -d .)-*/*.whl" >/dev/null ||
    check_build_tools
  if [[ -e $venv ]]; then
    say ".venv does not run, was moved or has another Python; making it anew"
    rm -rf "$venv"
  fi
  say "making .venv with Python $("$python" -c 'import platform; print(platform.python_version())') (10 seconds)"
  mkdir "$venv"
  stage "making .venv" "$python" -m venv "$venv"
}

install_packages() {
  local cuda=() and='' tensorflow
  read -r _ tensorflow _ <<<"$(installed)"
  if [[ $gpu == yes ]]; then
    # The extra brings the CUDA libraries of the TensorFlow that setup.cfg chooses.
    cuda=("tensorflow[and-cuda]") and=' and its CUDA libraries'
  fi
  if [[ $tensorflow == none ]]; then
    say "installing TensorFlow$and and the rest (about 2 minutes; downloads 1 GB or more)"
  else
    say "bringing the packages up to date (10 seconds, more if there are new ones)"
  fi
  stage "installing the packages" pip install -e "${root}[examples,test,horovod-build]" "${cuda[@]}"
}

# What matters of a build: it loads, it has the controller, and a collective runs.
horovod_works() {
  "$venv/bin/python" - "$nvcc" <<'PYTHON' && "$venv/bin/horovodrun" --version
import sys
import tensorflow as tf
import horovod.tensorflow as hvd

assert hvd.gloo_built(), "built without Gloo"
assert not sys.argv[1] or hvd.nccl_built(), "built without NCCL"
hvd.init()
assert hvd.allreduce(tf.constant([2.0]), op=hvd.Sum).numpy() == [2.0]
PYTHON
}

install_wheel() { pip install --no-deps --force-reinstall "$1"/*.whl && horovod_works; }

build_wheel() { # into the folder $1
  local cores tag tensorflow cuda source=$work/source site=$work/site
  local options=(HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1
    HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 "HOROVOD_LOCAL_VERSION=$(mended)")
  check_build_tools
  check_disk "${TMPDIR:-/tmp}" "$build_mb"
  cores=$(nproc)
  read -r tag tensorflow _ <<<"$(installed)"
  say "building Horovod $horovod for TensorFlow $tensorflow on $cores cores (about $((1 + 3 / cores)) minutes, kept for next time)"
  mkdir "$source"
  stage "downloading Horovod" pip download --no-deps --no-binary :all: --no-build-isolation \
    --dest "$work" "horovod==$horovod"
  stage "unpacking Horovod" tar -xzf "$work/horovod-$horovod.tar.gz" -C "$source" --strip-components 1
  stage "mending Horovod" "$venv/bin/python" "$root/launch/mend_horovod.py" "$source"
  # Horovod's CMake files split TensorFlow's paths at spaces: reach it by a path that has none.
  ln -s "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')" "$site"
  options+=("PYTHONPATH=$site" "HOROVOD_CMAKE=$venv/bin/cmake" "MAKEFLAGS=-j$cores")
  if [[ -n $nvcc ]]; then
    # TensorFlow no longer has this function, but what it did is still at hand.
    sed -i '\|compiler/xla/stream_executor/stream.h|a \
namespace stream_executor { namespace gpu { GpuStreamHandle AsGpuStreamValue(Stream* stream) { \
return static_cast<GpuStreamHandle>(stream->platform_specific_handle().stream); } } }' \
      "$source/horovod/tensorflow/mpi_ops.cc"
    # nvcc on the PATH may be a wrapper far from its headers; it knows where it lives.
    cuda=$("$nvcc" --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')
    # NCCL comes with TensorFlow's CUDA libraries, without the name that a linker looks for.
    mkdir "$work/nccl"
    ln -s "$site/nvidia/nccl/lib/libnccl.so.2" "$work/nccl/libnccl.so"
    # shellcheck disable=SC2016 # $ORIGIN is for the loader
    options+=(HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK=SHARED "HOROVOD_NCCL_LIB=$work/nccl"
      "HOROVOD_NCCL_INCLUDE=$site/nvidia/nccl/include" "HOROVOD_CUDA_HOME=$cuda"
      "CUDAToolkit_ROOT=$cuda"
      'LDFLAGS=-Wl,-rpath,$ORIGIN/../../nvidia/nccl/lib')
  fi
  stage "building Horovod" env "${options[@]}" "$venv/bin/python" -m pip --disable-pip-version-check \
    wheel -v --no-deps --no-build-isolation --wheel-dir "$1" "$source"
}

install_horovod() {
  local tag tensorflow key new
  read -r tag tensorflow _ <<<"$(installed)"
  key=$(wheel_key "$tag" "$tensorflow")
  exec 8>>"$cache/lock" # somebody else may be building the same wheel
  flock -n 8 || say "another setup is building Horovod; waiting for it"
  flock 8
  if compgen -G "$cache/$key/*.whl" >/dev/null; then
    say "installing Horovod $horovod from the cache (10 seconds)"
    install_wheel "$cache/$key" >>"$log" 2>&1 && return
    say "the cached Horovod does not work here; building it anew"
  fi
  new=$work/wheel
  build_wheel "$new"
  stage "trying Horovod" install_wheel "$new"
  # Copied beside its place and renamed: a wheel in the cache is whole and has run.
  rm -rf "${cache:?}/$key" "${cache:?}/.$key"
  cp -r "$new" "$cache/.$key"
  mv -T "$cache/.$key" "$cache/$key"
}

main() {
  [[ $(uname -s) == Linux ]] || die "this is no Linux; run it on Linux, which Horovod's build needs."
  local tag tensorflow tool before now
  for tool in awk df flock sha256sum tar; do
    type -P "$tool" >/dev/null || die "$tool not found; install it with your system's package manager and run this again."
  done
  find_gpu
  settle_nvcc
  case ${1:-} in
    '') ;;
    --check)
      if venv_is_sound && up_to_date; then exit; fi
      die ".venv is not up to date; run launch/setup.sh."
      ;;
    --print-key)
      read -r tag tensorflow _ <<<"$(installed)"
      [[ -n $tag ]] || die ".venv does not run; make it with launch/setup.sh first."
      wheel_key "$tag" "$tensorflow"
      exit
      ;;
    *) die "unknown option $1; use none, --check or --print-key." ;;
  esac

  [[ -w $root && -w $root/setup.cfg ]] ||
    die "$root cannot be written; put the repository where you may write and run this again."
  # A lock file that is there anyway: opened for appending (NFS locks no other), never written.
  exec 9>>"$root/setup.cfg"
  flock -n 9 || {
    say "another setup is at work here; waiting for it"
    flock 9
  }
  if venv_is_sound && up_to_date; then
    say ".venv is up to date"
    exit
  fi

  work=$(mktemp -d "${TMPDIR:-/tmp}/disttrain.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT # a stage that Ctrl-C ended is no failure to explain
  mkdir -p "$cache" 2>/dev/null || die "$cache cannot be made; set XDG_CACHE_HOME to a folder that can be written and run this again."
  venv_is_sound || make_venv
  before=$(head -n 1 "$stamp" 2>/dev/null || true)
  rm -f "$stamp"
  : >"$log"
  install_packages
  settle_nvcc
  [[ $gpu == no || -n $nvcc || ${DISTTRAIN_NCCL:-1} == 0 ]] ||
    say "$without_nccl: Horovod will communicate with Gloo alone, not NCCL"
  now=$(fingerprint)
  [[ ${now%%$'\n'*} == "$before" ]] || install_horovod
  # Without them telemetry takes TensorFlow's own operations, which cost more.
  say "compiling disttrain's operations (10 seconds)"
  "$venv/bin/python" -m disttrain.kernels >>"$log" 2>&1 ||
    say "they cannot be compiled, which makes telemetry slower; the end of $log says why"
  fingerprint >"$stamp"
  say "ready; 'source .venv/bin/activate' lets you use it"
}

main "$@"

#!/usr/bin/env bash
# Checks the repository. It makes or updates .venv first where that is needed.
#
#   launch/test.sh              lint, and all tests but the exhaustive ones
#   launch/test.sh unit         lint, and the tests of one layer: unit, graph, processes or browser
#   launch/test.sh --all        lint, and all tests
#   launch/test.sh exhaustive   the exhaustive tests alone; --slice=2/3 runs the second third of them
#   launch/test.sh ARGS...      pytest with these arguments, in one process
#
# The tests run in a worker for each core, and one more for tests that wait; WORKERS=4 sets another number.
# DISTTRAIN_STRICT=1 makes a check whose program is missing a failure.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
./launch/setup.sh --check >/dev/null 2>&1 || ./launch/setup.sh
# Many containers set it; each process of a test would then compile all modules again.
unset PYTHONDONTWRITEBYTECODE
bin=$root/.venv/bin

lint() {
  local scripts
  "$bin/ruff" check .
  "$bin/ruff" format --check .
  mapfile -t scripts < <(find launch -name '*.sh' -o -name '*.sbatch' | sort)
  if type -P shellcheck >/dev/null; then
    shellcheck "${scripts[@]}" .ci/run
  elif [[ ${DISTTRAIN_STRICT:-0} == 1 ]]; then
    echo "disttrain: shellcheck not found; install it, for example 'sudo apt-get install shellcheck', and run this again." >&2
    exit 1
  else
    echo "disttrain: skipping shellcheck, which is not installed"
  fi
}

tests() { exec "$bin/python" -m pytest -n "${WORKERS:-auto}" "$@"; }

case ${1:-} in
  '')
    lint
    tests
    ;;
  --all)
    lint
    tests "$@"
    ;;
  unit | graph | processes | browser)
    lint
    tests -m "$@"
    ;;
  exhaustive)
    tests -m "$@"
    ;;
  *)
    exec "$bin/python" -m pytest "$@"
    ;;
esac

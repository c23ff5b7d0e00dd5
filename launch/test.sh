#!/usr/bin/env bash
# Checks everything: layout and lint, the scripts, the tests. Arguments go to pytest, and then only
# pytest runs. DISTTRAIN_STRICT=1 makes a check whose program is missing a failure.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
"$root/launch/setup.sh"
cd "$root"
bin=$root/.venv/bin

if (($# == 0)); then
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
fi

exec "$bin/python" -m pytest "$@"

#!/usr/bin/env bash
# Checks everything: layout and lint, the scripts, the tests, in two processes. Arguments go to pytest,
# and then only pytest runs. DISTTRAIN_STRICT=1 makes a check whose program is missing a failure.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
"$root/launch/setup.sh"
cd "$root"
# Many containers set it; each process of a test would then compile all modules for itself.
unset PYTHONDONTWRITEBYTECODE
bin=$root/.venv/bin

if (($#)); then
  exec "$bin/python" -m pytest "$@"
fi

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

second_log=$(mktemp)
"$bin/python" -m pytest --half=2 >"$second_log" 2>&1 &
second=$!
trap 'kill "$second" 2>/dev/null || true; rm -f "$second_log"' EXIT
echo "disttrain: two halves of the tests run at once; what the second has to say comes last"
status=0
"$bin/python" -m pytest --half=1 || status=$?
# Pytest's status after Ctrl-C.
((status != 2)) || exit 2
wait "$second" || status=$?
cat "$second_log"
exit "$status"

#!/usr/bin/env bash
# All checks, one line each; of those that fail, what they say. `make check` runs it, after `make format` has done what a program can.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
bin=.venv/bin
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
failed=()

check() { # what it is about, then the command
  local about=$1 began=$SECONDS
  shift
  printf '  %-18s ' "$about"
  if "$@" >"$state/said" 2>&1; then
    printf 'ok (%d s)\n' $((SECONDS - began))
  else
    printf 'FAILED\n'
    cat "$state/said"
    failed+=("$about")
  fi
}

migrations() { # the tables that the migrations make are those that the classes say; on PostgreSQL, tests/deploy/test_tables.py
  export TUINKOEPEL_HUB_STATE=$state/hub TUINKOEPEL_NODE_STATE=$state/node
  "$bin/hub" db upgrade && "$bin/hub" db check && "$bin/town-node" db upgrade && "$bin/town-node" db check
}

template_format() { "$bin/djlint" --quiet --check shared services >/dev/null || { echo "run: make format"; return 1; }; }

scripts() { deploy/test_needs.sh shellcheck && shellcheck deploy/*.sh .ci/run; }

check format "$bin/ruff" format --check .
check lint "$bin/ruff" check .
check types "$bin/mypy"
check "import contracts" "$bin/lint-imports"
check templates "$bin/djlint" --quiet --lint shared services
check "template format" template_format
check scripts scripts
check translations "$bin/python" deploy/translations.py --check
check migrations migrations

[ ${#failed[@]} -eq 0 ] || { echo "Failed: ${failed[*]}" >&2; exit 1; }

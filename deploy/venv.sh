#!/usr/bin/env bash
# Makes the Python environment .venv beside this folder's parent, or brings it up to date, or finds that nothing is to be done.
#
#   deploy/venv.sh        what the services need
#   deploy/venv.sh dev    and what tests and checks need
#
# Needs python3 (3.11 or newer) and a package registry; neither python3-venv, pip nor Node. PYTHON=… chooses another Python.
# Every package is checked against the hashes in requirements*.txt. A run that was interrupted is repaired by the next one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kind=${1:-run}
case $kind in
  run) requirements=requirements.txt megabytes=700 ;;
  dev) requirements=requirements-dev.txt megabytes=1100 ;;
  *) echo "Usage: deploy/venv.sh [run|dev]" >&2; exit 2 ;;
esac

say() { echo "$*" >&2; }
fail() { say "Cannot make the Python environment: $*"; exit 1; }

# One at a time: two terminals may start at once.
exec 9<deploy/venv.sh
if ! flock --nonblock 9; then
  say "Waiting for another run of deploy/venv.sh …"
  flock 9
fi

# What an installation was made from, Python and place included: .venv cannot be moved.
fingerprint() { { echo "$PWD"; readlink -f "$(command -v "$python")"; "$python" -V; cat "$@"; } | sha256sum | cut -d' ' -f1; }
stamped() { [ "$(cat ".venv/stamp-$1" 2>/dev/null)" = "$2" ]; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      python=$candidate
      return
    fi
  done
  fail "Python 3.11 or newer is needed; found: $("${PYTHON:-python3}" -V 2>/dev/null || echo none)."
}

# Made here, by a run that was not interrupted, and for the Python that starts now.
is_sound() {
  [ ! -e .venv/unfinished ] && grep -qsF "$PWD/.venv" .venv/bin/activate \
    && .venv/bin/python -c 'import os, sysconfig; assert os.path.isdir(sysconfig.get_path("purelib"))' 2>/dev/null
}

make_environment() {
  if [ -e .venv ]; then
    say "Replacing .venv, which is unfinished or was made elsewhere"
    rm -rf .venv
  fi
  mkdir -p .venv
  touch .venv/unfinished
  "$python" -m venv .venv >/dev/null 2>&1 && return
  # Debian without python3-venv: everything is there but the pip to put in.
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "Installing python3-venv"
    { apt-get install -y --no-install-recommends python3-venv || { apt-get update && apt-get install -y --no-install-recommends python3-venv; }; } \
      </dev/null >/dev/null 2>&1 || true
    "$python" -m venv .venv >/dev/null 2>&1 && return
  fi
  local error
  error=$("$python" -m venv --without-pip .venv 2>&1) || fail "$python -m venv says: $(tail -n 1 <<<"$error")"
}

debian_pip() { find "$1" -name 'pip-*.whl' 2>/dev/null | sort | tail -n 1 || true; }

# Sets pip=(…) to the first that works: in the environment, of this Python, uv, or Debian's wheel.
find_pip() {
  local target=.venv/bin/python wheel
  pip=("$target" -m pip)
  "${pip[@]}" --version >/dev/null 2>&1 && return
  pip=("$python" -m pip --python "$target")
  "${pip[@]}" --version >/dev/null 2>&1 && return
  if command -v uv >/dev/null; then
    pip=(uv pip)
    export VIRTUAL_ENV=$PWD/.venv
    return
  fi
  wheel=$(debian_pip /usr/share/python-wheels)
  if [ -z "$wheel" ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
    say "Fetching pip (package python3-pip-whl)"
    mkdir -p .venv/pip
    (cd .venv/pip && apt-get download python3-pip-whl && dpkg-deb -x python3-pip-whl_*.deb .) </dev/null >/dev/null 2>&1 || true
    wheel=$(debian_pip "$PWD/.venv/pip")
  fi
  [ -n "$wheel" ] || fail "neither pip nor uv was found. As root: apt-get install python3-venv"
  pip=("$target" "$wheel/pip")
}

# pip … : quietly, into a log; when it fails, one line that says why.
install() {
  local log=.venv/install.log
  "${pip[@]}" install "${quiet[@]}" "$@" </dev/null >"$log" 2>&1 && return
  if grep -qs 'cancelled by user' "$log"; then
    fail "interrupted. The next run begins anew."
  elif grep -qsi 'no space left\|disk quota' "$log"; then
    fail "the disk is full."
  elif grep -qsi 'HASHES\|hash mismatch' "$log"; then
    rm -f .venv/unfinished # pip refused before it touched anything
    fail "a package is not the one that was locked; see $log."
  elif grep -qsi 'connection\|name resolution\|timed out\|unreachable\|could not find a version\|no matching distribution\|failed to fetch\|npm could not' "$log"; then
    rm -f .venv/unfinished # the same
    fail "no package registry could be reached, or it lacks a package; see $log."
  fi
  fail "see $log, which ends: $(grep -v '^ *$' "$log" | tail -n 1)"
}

find_python
is_sound || make_environment

packages=$(fingerprint "$requirements")
project=$(fingerprint pyproject.toml shared/assets/package-lock.json shared/assets/build.py)
vendor=shared/static/vendor/stamp

if ! stamped "$kind" "$packages" || ! stamped project "$project" || [ ! -e "$vendor" ]; then
  free=$(df -Pm . | awk 'NR == 2 { print $4 }')
  [ "$free" -ge "$megabytes" ] || fail "the disk is nearly full: $free MB free, $megabytes MB needed."
  touch .venv/unfinished
  find_pip
  quiet=(--quiet --disable-pip-version-check --no-input --retries 2)
  [ "${pip[0]}" != uv ] || quiet=(--quiet)
  if ! stamped "$kind" "$packages"; then
    [ "$kind" = run ] && what="the packages" || what="the packages for tests and checks"
    say "Installing $what (about a minute, first time only)"
    install --require-hashes -r "$requirements"
    echo "$packages" >".venv/stamp-$kind"
    # The larger set holds the smaller one, in the same versions.
    [ "$kind" = run ] || fingerprint requirements.txt >.venv/stamp-run
  fi
  if ! stamped project "$project" || [ ! -e "$vendor" ]; then
    say "Fetching icons and map, preparing Tuinkoepel"
    install --no-deps -e .
    echo "$project" >.venv/stamp-project
  fi
  rm .venv/unfinished
  say "The Python environment is ready."
fi

# New translations, mostly; a twentieth of a second when there is nothing to do.
.venv/bin/python shared/assets/build.py

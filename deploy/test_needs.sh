#!/usr/bin/env bash
# Finds the programs that the tests need, and installs those that are missing where that is allowed (Debian, root).
# Otherwise it says in one line what is missing.
set -euo pipefail

missing=()
need() { # package, then paths or commands of which one must exist
  local package=$1 candidate
  shift
  for candidate in "$@"; do
    if command -v "$candidate" >/dev/null || compgen -G "$candidate" >/dev/null; then return; fi
  done
  missing+=("$package")
}
if [ $# -eq 0 ]; then set -- postgresql rabbitmq-server chromium nginx curl systemd; fi
for wanted in "$@"; do
  case $wanted in
    postgresql) need postgresql '/usr/lib/postgresql/*/bin/initdb' ;;
    rabbitmq-server) need rabbitmq-server /usr/lib/rabbitmq/bin/rabbitmq-server ;;
    chromium) need chromium chromium ;;
    nginx) need nginx nginx /usr/sbin/nginx ;;
    curl) need curl curl ;;
    systemd) need systemd systemd-analyze ;;
    shellcheck) need shellcheck shellcheck ;;
    *) echo "deploy/test_needs.sh does not know $wanted" >&2; exit 2 ;;
  esac
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "Missing for the tests: ${missing[*]}. As root: apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "Installing ${missing[*]} (a few minutes, first time only)" >&2
log=$(mktemp)
# The tests start servers of their own; this says to Debian: do not start yours now.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } </dev/null >"$log" 2>&1 ||
  { echo "Could not install ${missing[*]}: $(tail -n 1 "$log")" >&2; exit 1; }
if command -v systemctl >/dev/null; then # nor at the machine's next start: nginx would take port 80
  for package in "${missing[@]}"; do systemctl disable "$package" >>"$log" 2>&1 || true; done # not all are services
fi

#!/usr/bin/env bash
# The command line of a site that runs under systemd, with its settings and as its user, as root or with sudo:
#   sudo /opt/tuinkoepel/deploy/as-service.sh node login-link fenna@almere.example.org
#   sudo /opt/tuinkoepel/deploy/as-service.sh hub town add almere "Almere"
set -euo pipefail

site=${1-}
case $site in
  node) program=town-node prefix=TUINKOEPEL_NODE ;;
  hub) program=hub prefix=TUINKOEPEL_HUB ;;
  *) echo "Which site? as-service.sh node … or as-service.sh hub …" >&2; exit 2 ;;
esac
shift
settings=/etc/tuinkoepel/$site.env
[ -r "$settings" ] || { echo "$settings cannot be read: call this with sudo" >&2; exit 1; }

# As systemd reads the file: line by line, and nothing in a line is for a shell.
while IFS= read -r line || [ -n "$line" ]; do
  [[ $line =~ ^[[:space:]]*([A-Z_][A-Z0-9_]*)=(.*)$ ]] || continue
  name=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
  [[ $value =~ ^\"(.*)\"[[:space:]]*$ || $value =~ ^\'(.*)\'[[:space:]]*$ ]] && value=${BASH_REMATCH[1]}
  export "$name=$value"
done <"$settings"
export "${prefix}_STATE=/var/lib/tuinkoepel-$site"

umask 0077
cd "/var/lib/tuinkoepel-$site"
user=()
[ "$(id -u)" -ne 0 ] || user=(setpriv --reuid=tuinkoepel --regid=tuinkoepel --init-groups)
exec "${user[@]}" "/opt/tuinkoepel/.venv/bin/$program" "$@"

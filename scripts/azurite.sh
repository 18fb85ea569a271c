#!/usr/bin/env bash
# Installs a server that speaks the protocol of Azure's blobs (Azurite, from npm, 190 MB) into $CAIRN_CACHE/azurite, for the tests
# of snapshots. `make test` does not call it, as nothing else here needs node: it uses what is there. Does nothing, quickly, then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

dir=${CAIRN_CACHE:-${HOME:-/root}/.cache/cairn}/azurite
wanted="azurite@3.35.0"

[ -f "$dir/complete" ] && [ "$(cat "$dir/complete")" = "$wanted" ] && exit
command -v npm >/dev/null || die "npm is needed (on Debian: apt-get install npm)"
say "installing the tests' Azure server into $dir"
rm -rf "$dir"
mkdir -p "$dir"
npm install --prefix "$dir" --ignore-scripts --omit=dev --no-audit --no-fund --silent "$wanted" ||
    die "Azurite could not be installed (is npm's registry reachable?)"
echo "$wanted" >"$dir/complete"

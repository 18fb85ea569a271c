#!/usr/bin/env bash
# Installs a server that speaks S3's protocol (moto, from PyPI) into $CAIRN_CACHE/s3-venv, for the tests of snapshots. Does
# nothing, quickly, when it is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

venv=${CAIRN_CACHE:-${HOME:-/root}/.cache/cairn}/s3-venv
wanted="moto[s3]==5.2.5 flask==3.1.3 flask-cors==6.0.5"

[ -f "$venv/complete" ] && [ "$(cat "$venv/complete")" = "$wanted" ] && exit
say "installing the tests' S3 server into $venv"
rm -rf "$venv"
python3 -m venv "$venv" >/dev/null || die "python3 -m venv failed: please install python3-venv"
# shellcheck disable=SC2086 # a list of words on purpose
"$venv/bin/pip" --quiet --disable-pip-version-check install $wanted || die "the S3 server could not be installed (is PyPI reachable?)"
echo "$wanted" >"$venv/complete"

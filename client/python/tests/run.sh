#!/usr/bin/env bash
# Tests the Python client: builds the wheel, installs it, and runs pytest against a real `cairn` process on loopback.
#
# Needs Python and, the first time, PyPI: pinned tools go into a virtual environment in the cache, named by the hash of
# what it holds (about 600 MB). A machine that cannot reach PyPI then says so loudly and skips; with CI=true it fails.
# The binary is $CAIRN_BIN, or what cargo built last. Arguments are passed to pytest.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../../.."
source scripts/lib.sh

CAIRN_CACHE=${CAIRN_CACHE:-${HOME:-/root}/.cache/cairn}
export CAIRN_BIN=${CAIRN_BIN:-${CARGO_TARGET_DIR:-$CAIRN_CACHE/target}/debug/cairn}
python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv=$CAIRN_CACHE/python-venv-$python-$(sha256sum <"$here/requirements.txt" | cut -c1-12)

# Not tested is no success where somebody relies on the answer.
skip() {
    [ "${CI:-}" = true ] && die "$1; THE PYTHON CLIENT IS NOT TESTED"
    warn "$1; THE PYTHON CLIENT IS NOT TESTED"
    exit 0
}

[ -x "$CAIRN_BIN" ] || die "there is no $CAIRN_BIN: build it first (make build)"
# One at a time: two would install into, or test, the same environment.
mkdir -p "$CAIRN_CACHE"
exec 9>"$CAIRN_CACHE/python-tests.lock"
flock 9
if [ ! -e "$venv/complete" ]; then
    say "installing the Python client's tools into $venv (once, about two minutes)"
    rm -rf "$venv"
    if ! python3 -m venv "$venv" >/dev/null 2>&1; then
        # Debian's own Python comes without ensurepip.
        [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || skip "python3 -m venv failed: please install python3-venv"
        DEBIAN_FRONTEND=noninteractive apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null ||
            skip "python3 -m venv failed, and python3-venv could not be installed"
        rm -rf "$venv"
        python3 -m venv "$venv"
    fi
    "$venv/bin/pip" --quiet --disable-pip-version-check install --only-binary :all: -r "$here/requirements.txt" ||
        skip "the Python client's tools could not be installed (is PyPI reachable?)"
    touch "$venv/complete"
fi

# The wheel is what users get, so it is what is tested: a file that is not in it fails here.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$venv/bin/pip" --quiet --disable-pip-version-check wheel --no-deps --no-build-isolation --no-index -w "$scratch" client/python
"$venv/bin/pip" --quiet --disable-pip-version-check install --no-deps --no-index --force-reinstall "$scratch"/cairn-*.whl
# The lock is held by this shell alone: a test's server or kernel that outlives it must not keep others waiting.
cd client/python
PYTHONDONTWRITEBYTECODE=1 JUPYTER_PLATFORM_DIRS=1 "$venv/bin/python" -m pytest -p no:cacheprovider -q "$@" 9>&-

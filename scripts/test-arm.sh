#!/usr/bin/env bash
# Runs the tests of the inner loops (engine/src/vector/kernels) for 64-bit ARM: on such a machine as they are, elsewhere under qemu, with SDOT and
# without. They need nothing from outside of their folder, so they are compiled by themselves, in seconds. As root on Debian it installs a compiler
# that has the standard library of that target, a linker and qemu (300 MB); otherwise it says what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

TARGET=aarch64-unknown-linux-gnu
LINKER=aarch64-linux-gnu-gcc
KERNELS=engine/src/vector/kernels/mod.rs
OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT

main() {
    if [ "$(uname -m)" = aarch64 ]; then
        rustc --edition 2024 --test -O "$KERNELS" -o "$OUT/tests"
        "$OUT/tests"
        return
    fi
    local compiler
    { compiler=$(with_target) && command -v qemu-aarch64 "$LINKER" >/dev/null; } || install
    compiler=$(with_target) || { warn "no rustc here has the standard library of $TARGET"; return 1; }
    # Linked as a whole: threads of a program that loads the C library hang under some versions of qemu.
    "$compiler" --edition 2024 --test -O --target "$TARGET" -C linker="$LINKER" -C target-feature=+crt-static "$KERNELS" -o "$OUT/tests"
    for cpu in max cortex-a57; do
        say "as $cpu"
        qemu-aarch64 -cpu "$cpu" "$OUT/tests"
    done
}

# A compiler that has the standard library of the target.
with_target() {
    local compiler
    for compiler in rustc /usr/bin/rustc; do
        command -v "$compiler" >/dev/null || continue
        [ -d "$("$compiler" --print target-libdir --target "$TARGET")" ] && echo "$compiler" && return
    done
    return 1
}

install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        warn "please install qemu-user, $LINKER, and the target $TARGET (rustup target add $TARGET)"
        return 1
    fi
    say "installing a compiler for $TARGET, and qemu"
    dpkg --add-architecture arm64
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends rustc-web libstd-rust-web-dev:arm64 qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross >/dev/null
}

main

#!/usr/bin/env bash
# Runs the tests of the inner loops (engine/src/vector/kernels) for 64-bit ARM: on such a machine as they are, elsewhere under qemu, with SDOT and
# without. They need nothing from outside of their folder, so they are compiled by themselves, in seconds. As root on Debian it installs a compiler
# that has the standard library of that target, a linker and qemu (300 MB), for which it adds arm64 as a foreign architecture of packages;
# otherwise it says what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

TARGET=aarch64-unknown-linux-gnu
LINKER=aarch64-linux-gnu-gcc
KERNELS=engine/src/vector/kernels/mod.rs
OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT

main() {
    if [[ $(uname -m) =~ ^(aarch64|arm64)$ ]]; then
        rustc --edition 2024 --test -O "$KERNELS" -o "$OUT/tests"
        "$OUT/tests"
        return
    fi
    local compiler
    { with_target && linker_and_qemu; } >/dev/null || install_tools
    compiler=$(with_target) || { warn "no rustc here has the standard library of $TARGET"; return 1; }
    linker_and_qemu >/dev/null || { warn "there is no $LINKER, or no qemu-aarch64"; return 1; }
    # Linked as a whole: threads of a program that loads the C library hang under some versions of qemu.
    "$compiler" --edition 2024 --test -O -C overflow-checks=on -C debug-assertions=on --target "$TARGET" -C linker="$LINKER" -C target-feature=+crt-static "$KERNELS" -o "$OUT/tests"
    say "a CPU with SDOT"
    KERNELS_EXPECTED="neon neon-dotprod" qemu-aarch64 -cpu max "$OUT/tests"
    say "one without"
    KERNELS_EXPECTED="neon neon" qemu-aarch64 -cpu cortex-a57 "$OUT/tests"
}

linker_and_qemu() {
    command -v "$LINKER" && command -v qemu-aarch64
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

install_tools() {
    if [ "$(id -u)" != 0 ] || ! grep -qx ID=debian /etc/os-release; then
        warn "please install qemu-user, $LINKER, and the target $TARGET (rustup target add $TARGET)"
        return 1
    fi
    say "installing a compiler for $TARGET, and qemu"
    dpkg --add-architecture arm64
    apt-get update -qq
    # Nothing that is here goes for it: Debian's rustc and rustup cannot be beside rustc-web.
    apt-get install -y -qq --no-remove --no-install-recommends rustc-web libstd-rust-web-dev:arm64 qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross >/dev/null
}

main

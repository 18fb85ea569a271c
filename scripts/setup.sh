#!/usr/bin/env bash
# Brings a machine with git, a Rust toolchain, gcc, make and Python to where `cargo build` works, and does nothing,
# quickly, when it is there already.
#
#   1. libclang (bindgen reads RocksDB's C header with it) and g++, from apt when missing; with SETUP_FOR=faiss also cmake
#      and OpenBLAS, which the feature `faiss` is compiled with.
#   2. The crates of Cargo.lock.
#   3. RocksDB's C++, compiled once into $CAIRN_CACHE/rocksdb/librocksdb.a. Cargo would compile it again for every
#      profile, feature change and clean checkout, 12 minutes each on two cores; librocksdb-sys links a library it is
#      given (ROCKSDB_LIB_DIR) instead. A stamp beside the file says what it was made of; another version, feature
#      set, compiler or target makes a new one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

CAIRN_CACHE=${CAIRN_CACHE:-${HOME:-/root}/.cache/cairn}
ROCKSDB_LIB_DIR=${ROCKSDB_LIB_DIR:-$CAIRN_CACHE/rocksdb}

main() {
    command -v cargo >/dev/null || die "cargo not found: install a Rust toolchain (https://rustup.rs)"
    command -v python3 >/dev/null || die "python3 not found: install Python 3.11 or newer"
    mkdir -p "$CAIRN_CACHE" "$ROCKSDB_LIB_DIR"
    system_packages
    # One setup at a time: two would compile the same library twice, on the same cores.
    exec 9>"$CAIRN_CACHE/setup.lock"
    flock -n 9 || { say "another setup is running, waiting for it"; flock 9; }
    cargo fetch --locked --quiet --target "$(rustc -vV | sed -n 's/^host: //p')" || die "cargo could not fetch the crates of Cargo.lock (is crates.io reachable?)"
    rocksdb
}

# --- system packages ---------------------------------------------------------------------------------------------

system_packages() {
    local missing=()
    command -v g++ >/dev/null || missing+=(g++)
    has_libclang || missing+=(clang libclang-dev)
    if [ "${SETUP_FOR:-}" = faiss ]; then
        command -v cmake >/dev/null || missing+=(cmake)
        [ -n "$(find /usr/lib /usr/local/lib -maxdepth 3 -name 'libopenblas.so' -print -quit 2>/dev/null)" ] || missing+=(libopenblas-dev)
    fi
    [ ${#missing[@]} -eq 0 ] && return
    local by_hand="please install these packages (Debian names): ${missing[*]}"
    command -v apt-get >/dev/null || die "this is no Debian: $by_hand"
    [ "$(id -u)" -eq 0 ] || die "not root: $by_hand"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || die "apt-get update failed; $by_hand"
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || die "apt-get install failed; $by_hand"
    has_libclang || die "libclang is still not found after installing it; set LIBCLANG_PATH to its directory"
}

# What bindgen needs is the C library (libclang.so or libclang-NN.so; libclang-cpp is another thing) and the
# compiler's own headers beside it, which only the -dev package brings.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    local found
    found=$(find /usr/lib /usr/lib64 /usr/local/lib -maxdepth 3 \
        \( -name 'libclang.so*' -o -name 'libclang-[0-9]*.so*' \) -print -quit 2>/dev/null)
    [ -n "$found" ] || return 1
    found=$(find /usr/lib /usr/lib64 /usr/local/lib -maxdepth 6 -path '*clang/*/include/stddef.h' -print -quit 2>/dev/null)
    [ -n "$found" ]
}

# --- RocksDB -----------------------------------------------------------------------------------------------------

rocksdb() {
    local package version features target
    package=$(cargo tree --locked -p librocksdb-sys --depth 0 -f '{p}|{f}' 2>/dev/null | sed -n 1p)
    version=$(sed -E 's/^librocksdb-sys v([^ |]+).*/\1/' <<<"$package")
    features=${package#*|}
    [ -n "$version" ] && [ "$version" != "$package" ] || die "no librocksdb-sys in Cargo.lock? cargo tree said: '$package'"
    target=$(rustc -vV | sed -n 's/^host: //p')

    local stamp=$ROCKSDB_LIB_DIR/librocksdb.stamp library=$ROCKSDB_LIB_DIR/librocksdb.a wanted
    wanted="librocksdb-sys $version
features $features
target $target
compiler $("${CXX:-g++}" --version | sed -n 1p)
flags ${CXXFLAGS:-} -O3"
    if [ -f "$library" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    if [ -f "$stamp" ]; then
        say "the cached RocksDB was made of something else:"
        diff "$stamp" - <<<"$wanted" >&2 || true
    fi
    compile_rocksdb "$version" "$features"
    rm -f "$stamp"
    mv "$BUILT" "$library"
    echo "$wanted" >"$stamp"
    rm -rf "$CAIRN_CACHE/rocksdb-build"
    say "RocksDB is ready: $library ($(du -h "$library" | cut -f1))"
}

# A package of nothing but librocksdb-sys, pinned to our Cargo.lock: cargo then runs exactly the build script that it
# would run for us. Leaves the path of the library in BUILT.
compile_rocksdb() {
    local version=$1 features=$2 dir=$CAIRN_CACHE/rocksdb-build
    say "compiling RocksDB's C++ ($version), once: about 12 minutes on two cores"
    rm -rf "$dir"
    mkdir -p "$dir/src"
    cp Cargo.lock "$dir/"
    touch "$dir/src/lib.rs"
    cat >"$dir/Cargo.toml" <<TOML
[workspace]

[package]
name = "rocksdb-once"
version = "0.0.0"
edition = "2024"

[dependencies.librocksdb-sys]
version = "=${version%%+*}"
default-features = false
features = [$(sed -E 's/([^,]+)/"\1"/g' <<<"$features")]

[profile.release]
opt-level = 3
debug = false
TOML

    local sources total log=$dir/build.log
    sources=$(find "${CARGO_HOME:-${HOME:-/root}/.cargo}/registry/src" -maxdepth 3 \
        -path "*/librocksdb-sys-$version/rocksdb_lib_sources.txt" -print -quit 2>/dev/null)
    total=$([ -n "$sources" ] && grep -c . "$sources" || echo '?')

    # RUSTFLAGS must not leak in: -Ctarget-cpu would make the library unusable on an older machine of the same cache.
    # In the background only to count, in its own process group (set -m), so that ending this script ends the compilers.
    set -m
    (
        cd "$dir"
        exec 9>&-
        exec env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC -u ROCKSDB_COMPILE -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS \
            -u CARGO_BUILD_TARGET CARGO_TARGET_DIR="$dir/target" cargo build --release >"$log" 2>&1
    ) &
    set +m
    local cargo=$! began=$SECONDS shown=-1 objects every=20
    [ -t 2 ] && every=2
    trap "kill -- -$cargo 2>/dev/null || true" EXIT
    while kill -0 "$cargo" 2>/dev/null; do
        objects=$(find "$dir/target/release/build" -path '*librocksdb-sys-*' -name '*.o' 2>/dev/null | wc -l || true)
        if [ -t 2 ]; then
            printf '\r    %s of %s files, %s ' "$objects" "$total" "$(clock $((SECONDS - began)))" >&2
        elif [ "$objects" != "$shown" ]; then
            printf '    %s of %s files, %s\n' "$objects" "$total" "$(clock $((SECONDS - began)))" >&2
        fi
        shown=$objects
        sleep "$every"
    done
    [ -t 2 ] && echo >&2
    wait "$cargo" || { tail -40 "$log" >&2; die "RocksDB did not compile; the whole log is $log"; }
    trap - EXIT

    BUILT=$(find "$dir/target/release/build" -path '*librocksdb-sys-*/out/librocksdb.a' -print -quit)
    [ -n "$BUILT" ] || die "RocksDB compiled, but there is no librocksdb.a below $dir/target"
}

main "$@"

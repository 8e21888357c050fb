# Everything that a person or CI does with this repository. `make` lists the targets.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR
bin := $(CARGO_TARGET_DIR)/release

# Seconds for each fuzz target, and rounds of the soak.
FUZZ_SECONDS ?= 600
SOAK_ROUNDS ?= 100
# Options for the comparison, for example: make bench-smoke ARGS='--only h1-small --rounds 12'
ARGS ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the proxy and the bench programs, optimised
	cargo build --locked --release -p ringway -p ringway-bench

.PHONY: run
run: build ## Run the demo: three origins, the proxy, and a file to edit
	@$(bin)/ringway-bench demo

.PHONY: tools
tools: ## Install what tests and benches need and is missing (Debian)
	.ci/install-tools

.PHONY: test
test: tools build ## Run all tests and check the dependencies
	RINGWAY_BIN=$(abspath $(bin))/ringway cargo test --locked --workspace
	cargo fetch --locked
	cargo deny --offline check bans licenses sources

.PHONY: bench-smoke
bench-smoke: build ## Compare CPU, memory, start and reload with nginx and HAProxy
	.ci/install-tools packages
	$(bin)/ringway-bench smoke $(ARGS)

.PHONY: soak
soak: build ## Load both backends in turn for a long time; any failed request fails it
	.ci/install-tools packages
	RINGWAY_BIN=$(abspath $(bin))/ringway RINGWAY_RELOADS=5000 \
		cargo test --locked -p ringway --test e2e reloads_under_load -- --nocapture
	$(bin)/ringway-bench smoke --no-record --rounds $(SOAK_ROUNDS) --seconds 10 \
		--peers ringway-epoll --only h1-small,h1-16m,tcp-16m,idle-9000,routes-100k

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZ_SECONDS
	.ci/fuzz $(FUZZ_SECONDS)

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: lint
lint: ## Check format and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: docs
docs: ## Build the documentation
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

.PHONY: clean
clean: ## Remove what was built and what the demo left
	cargo clean
	rm -rf bench-out

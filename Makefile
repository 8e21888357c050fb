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
# Seconds for which the soak rotates certificates under load, on each backend.
SOAK_ROTATION_SECONDS ?= 600
# Seconds for which the soak opens and gives up HTTP/2 streams, on both backends at once.
SOAK_STREAMS_SECONDS ?= 3600
# Scenarios of `make bench`, for example SCENARIO=h1-small,tcp-16m; none means all.
SCENARIO ?=
# Options for the comparisons, for example: make bench-smoke ARGS='--rounds 12'
ARGS ?=
# Peers that no Debian package brings.
tools := $(abspath $(CARGO_TARGET_DIR))/tools
# Whether bench-instructions writes the ratchet.
UPDATE ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the proxy, the pusher and the bench programs, optimised
	cargo build --locked --release -p ringway -p ringway-bench -p ringway-push

.PHONY: run
run: build ## Run the demo: three origins, the proxy, and a file to edit
	@$(bin)/ringway-bench demo

.PHONY: demo-certs
demo-certs: build ## Make a throw-away authority and certificates in bench-out/certs; again: rotate them
	@$(bin)/ringway-bench certs

.PHONY: tools
tools: ## Install what tests and benches need and is missing (Debian)
	.ci/install-tools

.PHONY: test
test: tools build ## Run all tests, check the dependencies, count instructions
	RINGWAY_BIN=$(abspath $(bin))/ringway RINGWAY_PUSH_BIN=$(abspath $(bin))/ringway-push \
		cargo test --locked --workspace
	cargo fetch --locked
	for crate in proxy deploy; do cargo fetch --locked --manifest-path $$crate/fuzz/Cargo.toml; done
	cargo deny --offline check bans licenses sources
	$(bin)/ringway-bench instructions

.PHONY: bench
bench: build ## Compare with all peers, or go on where it was ended, and write the report
	.ci/install-tools packages
	.ci/install-tools envoy $(tools)
	PATH="$(tools)/bin:$$PATH" $(bin)/ringway-bench compare \
		$(if $(SCENARIO),--only $(SCENARIO),--resume) $(ARGS)
	$(bin)/ringway-bench report --readme README.md

.PHONY: bench-smoke
bench-smoke: build ## Compare the main figures with nginx and HAProxy in three minutes
	.ci/install-tools packages
	$(bin)/ringway-bench compare --rounds 6 --seconds 1 --peers haproxy,nginx \
		--only start,h1-small,h1-16m,tcp-16m,idle-0 $(ARGS)

.PHONY: bench-micro
bench-micro: ## Time each step of a request; with ARGS=route only those so named
	cargo bench --locked -p ringway-bench --bench time -- $(ARGS)

.PHONY: bench-instructions
bench-instructions: build ## Count the instructions of each step; UPDATE=1 accepts what is counted
	.ci/install-tools packages
	$(bin)/ringway-bench instructions $(if $(UPDATE),--update) $(ARGS)

.PHONY: soak
soak: build ## Load both backends in turn for a long time; any failed request fails it
	.ci/install-tools packages
	RINGWAY_BIN=$(abspath $(bin))/ringway RINGWAY_RELOADS=5000 \
		cargo test --locked -p ringway --test e2e reloads_under_load -- --nocapture
	RINGWAY_BIN=$(abspath $(bin))/ringway RINGWAY_ROTATION_SECONDS=$(SOAK_ROTATION_SECONDS) \
		cargo test --locked -p ringway --test e2e leaves_and_roots_rotate -- --nocapture
	RINGWAY_BIN=$(abspath $(bin))/ringway RINGWAY_STREAMS_SECONDS=$(SOAK_STREAMS_SECONDS) \
		cargo test --locked -p ringway --test e2e streams_that_are_given_up -- --nocapture
	RINGWAY_PUSH_BIN=$(abspath $(bin))/ringway-push RINGWAY_FLEET_SIDECARS=500 \
		cargo test --locked -p ringway-bench --test fleet -- --nocapture
	$(bin)/ringway-bench compare --no-record --rounds $(SOAK_ROUNDS) --seconds 10 \
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

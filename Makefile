# The project's commands. Each sets up what it needs: as root, on Debian 12 with a Rust toolchain, nothing else is needed.
#
#   make demo        two hubs and a trunk, two tenants with the same addresses, real clients: what reaches what
#   make test        every test
#   make test-long   what takes minutes of real time (rekeys, expiry, millions of packets through the lanes) and hours (each fuzz target for one)
#   make bench       every bench, by stage (as root, tens of minutes); make bench-quick: each stage in a moment
#   make compare     Ekiden, other hubs and the limits of this machine in one lab; writes docs/bench/compare.md (as root, a quarter of an hour)
#   make targets     what is promised of speed, measured: sum of parts, loss, latency, sites, routes, trunks, changes, memory (as root, half an hour)
#   make build       target/release/ekiden
#   make clean       what was built here; not the clients in the cache

target := $(or $(CARGO_TARGET_DIR),target)

.PHONY: demo test test-long bench bench-quick compare targets lab build setup tools clean

demo: setup
	@echo "Building the hub and the demo; the first time takes some minutes."
	@cargo build --release --quiet -p ekiden-dataplane -p ekiden-testbed --bins
	@EKIDEN_BIN=$(target)/release/ekiden $(target)/release/demo

test: setup tools
	scripts/test.sh

test-long: setup tools
	EKIDEN_FUZZ_SECONDS=3600 scripts/test.sh fuzz
	cargo test -p ekiden-crypto --features long --lib random_batches -- --nocapture
	cargo test -p ekiden-testbed --features long --test long -- --nocapture

bench: setup
	cargo bench -p ekiden-bench

stages := parse steer classify aead replay rings stats handshake journey
bench-quick: setup
	cargo bench --quiet -p ekiden-bench $(stages:%=--bench %) -- --noplot --warm-up-time 0.05 --measurement-time 0.2 --sample-size 10

lab: setup tools
	@cargo build --release --quiet -p ekiden-dataplane -p ekiden-bench --bin ekiden --bin lab

compare: lab
	$(target)/release/lab compare

targets: lab
	$(target)/release/lab sum
	$(target)/release/lab soak
	$(target)/release/lab latency
	$(target)/release/lab sites
	$(target)/release/lab routes
	$(target)/release/lab trunk
	$(target)/release/lab changes
	$(target)/release/lab memory

build: setup
	cargo build --release -p ekiden-dataplane

setup:
	@scripts/setup.sh

tools: setup
	@scripts/tools.sh

clean:
	cargo clean

# The index of all checks. `make demo` shows the main job, `make test` is what has to pass.

cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/shadowmesh
export CARGO_TARGET_DIR ?= $(cache)/target
export SHADOWMESH_TOOLS ?= $(cache)/tools
export CARGO_TERM_COLOR ?= auto

# Tests that make namespaces and TUN devices are run by scripts/as-root; everything is built as the caller.
as_root := $(CURDIR)/scripts/as-root
rooted := --config 'target."cfg(unix)".runner = "$(as_root)"'

prefix ?= /usr/local
# Below DESTDIR whoever packages needs no privilege.
to_system := $(if $(DESTDIR),,$(shell [ "$$(id -u)" = 0 ] || echo sudo -E))

.PHONY: help demo test fmt lint doc deny unit sanitize sim scenarios mutants e2e faults interop floor fuzz coverage bench microbench install tools

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

demo: ## a whole network on this machine, without root; ends by itself when the output is not a terminal
	cargo build --release --workspace --locked --bin shadowmesh
	@if [ -t 1 ]; then $(CARGO_TARGET_DIR)/release/shadowmesh demo; else $(CARGO_TARGET_DIR)/release/shadowmesh demo --once; fi

test: tools fmt lint doc deny unit sanitize mutants e2e faults interop floor ## everything that has to pass
	@echo "all checks passed"

# Licences and edges are read of dependencies for other systems, too.
tools: ## install the peers and instruments that the tests use
	scripts/install-test-tools boringtun gotatun deny
	cargo fetch --locked

fmt: ## formatting
	cargo fmt --all --check

# Every call names the whole workspace, so that dependencies are built once, with one set of features.

# The fuzzer's runtime is C++, which nothing is linked with here: its place is named, and it need not be there.
lint: ## clippy, warnings are errors
	CUSTOM_LIBFUZZER_PATH=/not-linked/libfuzzer.a \
	  cargo clippy --workspace --all-targets --features testlab/namespaces,testlab/fuzz --locked -- -D warnings

doc: ## documentation builds without warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

deny: ## licences, sources and bans of every dependency
	$(SHADOWMESH_TOOLS)/bin/cargo-deny --locked --offline check licenses bans sources

unit: ## units, properties, vectors, and roles in process or on loopback (some make namespaces)
	cargo test --workspace --locked $(rooted)

# All of `platform`, where `unsafe` is, and of `packet`, which reads what comes from outside byte by byte.
# The sanitizer brings an allocator of its own, so what the system's does is nothing to be seen there.
sanitized := $(filter-out %/memory.rs,$(wildcard crates/platform/tests/*.rs crates/packet/tests/*.rs))

sanitize: ## what is next to the system, under AddressSanitizer
	scripts/sanitizer-works
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/scripts/rustc-sanitized \
	  cargo test --workspace --locked $(rooted) $(foreach test,$(sanitized),--test $(basename $(notdir $(test))))

sim: ## the shipped machines on a virtual clock (a part of unit)
	cargo test --workspace --locked --test sim --test traversal --test scenarios --test snapshots

scenarios: ## COUNT random scenarios for the shipped machines, 50,000 unless said otherwise, from SEED on
	SHADOWMESH_SCENARIOS=$(or $(COUNT),50000) SHADOWMESH_SEED=$(or $(SEED),1) cargo test --workspace --locked --test scenarios random

mutants: ## whether the tests notice faults that are seeded in a copy of the sources
	cargo build --workspace --locked --bin mutants
	$(CARGO_TARGET_DIR)/debug/mutants $(cache)/mutants $(FAULTS)

e2e: ## real binaries and TUN devices in network namespaces; SHADOWMESH_FILE=1000 sends files of so many MB
	cargo build --workspace --locked --bin shadowmesh
	cargo test --workspace --locked $(rooted) --features testlab/namespaces --test e2e -- --test-threads=2

# Floods one after the other: each is meant to have the machine for itself.
faults: ## what users feel while parts fail or are flooded; SHADOWMESH_ROUNDS and SHADOWMESH_ASLEEP make it longer
	cargo build --workspace --locked --bin shadowmesh
	cargo test --workspace --locked $(rooted) --features testlab/namespaces --test faults -- --test-threads=2
	cargo test --workspace --locked $(rooted) --features testlab/namespaces --test floods -- --test-threads=1

interop: ## other implementations of WireGuard as the other end
	cargo build --workspace --locked --bin shadowmesh
	cargo test --workspace --locked $(rooted) --features testlab/namespaces --test interop_wireguard -- --test-threads=2

# What is shipped is measured, as the demo builds it; what measures is built like the tests.
floor: ## the shipped program has 3 times the throughput of gotatun-cli, and through a relay 0.4 times that of the direct path, each in one run
	cargo build --workspace --locked --bin bench
	cargo build --release --workspace --locked --bin shadowmesh
	SHADOWMESH_BIN=$(CARGO_TARGET_DIR)/release/shadowmesh $(as_root) $(CARGO_TARGET_DIR)/debug/bench floor

TARGET ?= frame
SECONDS ?= 60

fuzz: ## one TARGET of testlab/src/fuzz for SECONDS under coverage guidance (needs a C++ compiler); what it finds goes into its corpus
	cargo build --workspace --locked --example corpus
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/scripts/rustc-fuzzing CARGO_PROFILE_DEV_OPT_LEVEL=2 \
	  cargo build --workspace --locked --features testlab/fuzz --example fuzz
	$(CARGO_TARGET_DIR)/debug/examples/corpus unpack $(TARGET) $(cache)/fuzz/$(TARGET)
	SHADOWMESH_FUZZ=$(TARGET) $(CARGO_TARGET_DIR)/debug/examples/fuzz -max_total_time=$(SECONDS) -max_len=4096 \
	  -artifact_prefix=$(cache)/fuzz/$(TARGET)- $(cache)/fuzz/$(TARGET)
	rm -rf $(cache)/fuzz/$(TARGET)-least && mkdir $(cache)/fuzz/$(TARGET)-least
	SHADOWMESH_FUZZ=$(TARGET) $(CARGO_TARGET_DIR)/debug/examples/fuzz -merge=1 -max_len=2048 $(cache)/fuzz/$(TARGET)-least $(cache)/fuzz/$(TARGET)
	$(CARGO_TARGET_DIR)/debug/examples/corpus pack $(TARGET) $(cache)/fuzz/$(TARGET)-least

coverage: ## line coverage of what is shipped, by the tests of `unit` (needs llvm-22)
	scripts/coverage $(cache)/coverage

bench: ## throughput, latency and memory beside peers, in one run
	scripts/install-test-tools gotatun boringtun wireguard-go nebula iroh-relay
	cargo build --release --workspace --locked --bins
	SHADOWMESH_PAGE=docs/benchmarks.md $(as_root) $(CARGO_TARGET_DIR)/release/bench $(TABLES)

microbench: ## single steps of the data plane, each function by itself; FILTER="coalesce" takes some
	cargo bench --workspace --locked --bench hot_paths -- $(if $(FILTER),'$(FILTER)')

install: ## the program, its manual, completions and systemd units below $(DESTDIR)$(prefix)
	cargo build --release --workspace --locked --bin shadowmesh
	$(to_system) install -Dm755 $(CARGO_TARGET_DIR)/release/shadowmesh "$(DESTDIR)$(prefix)/bin/shadowmesh"
	$(to_system) scripts/install-files "$(DESTDIR)$(prefix)" "$(DESTDIR)"

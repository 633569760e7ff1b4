# The commands of README.md. Everything needs a Debian machine with Rust; what
# else is needed is installed from Debian's packages, by name.

PREFIX ?= /usr/local
# Where cargo puts the host's release binaries (see .cargo/config.toml).
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := target/$(HOST)/release
PROGRAMS := containerd-shim-teu-v2 teu teu-build teu-runtime teu-shim teu-store
# The programs without the benchmarks and the harness.
BUILD := cargo build --release $(addprefix -p ,teu-runtime teu-shim teu-store teu-builder)

# How long `make fuzz` runs each target, in seconds.
FUZZ ?= 600

# Boots a cgroup-v2 host and runs a command in it (see integration-tests/run-in-vm).
VM ?= ../shared/tools/vm

BUILD_PACKAGES := gcc libc6-dev
DEMO_PACKAGES := $(BUILD_PACKAGES) busybox-static containernetworking-plugins curl iptables iproute2
TEST_PACKAGES := $(DEMO_PACKAGES) apache2-utils attr buildah containerd crun docker-compose docker-registry docker.io \
	e2fsprogs erofs-utils git jq mmdebstrap openssh-client openssl podman python3 python3-grpcio runc skopeo strace uidmap umoci xz-utils zstd

# Another processor to compile the runtime for, and to run its unit tests on in
# an emulator. What the emulator lacks: clone3(2) for hooks, bpf(2).
OTHER := aarch64-unknown-linux-gnu
OTHER_LINKER ?= aarch64-linux-gnu-gcc
OTHER_RUNNER ?= qemu-aarch64-static
OTHER_SKIPS := --skip hook::tests --skip the_kernel_runs_the_device_program

.PHONY: all help demo test test-net test-peers lint bench soak soak-store soak-build fuzz install test-vm check-aarch64 clean

all: ## build the release binaries
	$(BUILD)

help: ## say what there is to make
	@sed -n 's/^\([a-z0-9-]*\):.* ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 15

demo: ## build everything and run the main job on real input
	@.ci/packages $(DEMO_PACKAGES)
	@echo "building the programs (once, a few minutes)"
	@$(BUILD) --quiet
	@$(MAKE) --quiet examples
	@PATH="$(CURDIR)/$(RELEASE):$$PATH" builder/examples/demo

test: ## pass every test
	@.ci/packages $(TEST_PACKAGES)
	@$(MAKE) --quiet examples
	@integration-tests/run-suites $(SUITES)

test-net: ## what needs the package servers of distributions
	@.ci/packages $(TEST_PACKAGES)
	@integration-tests/run-suites $(notdir $(basename $(wildcard integration-tests/tests/net_*.rs)))

test-peers: ## the suites of orchestrators under the containerd, docker and podman of later Debians
	@.ci/packages $(TEST_PACKAGES) patchelf
	@integration-tests/run-with-peers

test-vm: ## the runtime's and the shim's tests on a cgroup-v2 host with systemd, in a virtual machine: as root, then as an ordinary user
	@VM=$(VM) integration-tests/run-in-vm $(SUITES)

lint: ## what the gate asks of the style
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet

check-aarch64: ## compile the runtime for aarch64, and run its unit tests, where both can be
	@if ! test -d "$$(rustc --print sysroot)/lib/rustlib/$(OTHER)/lib"; then \
		echo "SKIPPED check-aarch64: no standard library for $(OTHER) (rustup target add $(OTHER))"; \
	elif ! cargo clippy -p teu-runtime --target $(OTHER) --all-targets --quiet -- -D warnings; then exit 1; \
	elif ! command -v $(OTHER_LINKER) $(OTHER_RUNNER) >/dev/null; then \
		echo "SKIPPED unit tests on aarch64: no $(OTHER_LINKER) or no $(OTHER_RUNNER) (packages gcc-aarch64-linux-gnu, qemu-user-static)"; \
	else CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$(OTHER_LINKER) \
		CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$(OTHER_RUNNER) \
		cargo test -p teu-runtime --target $(OTHER) --quiet -- --test-threads=1 $(OTHER_SKIPS); fi

bench: ## measure against the peers; tables and charts are written to target/bench
	@.ci/packages $(TEST_PACKAGES)
	cargo build --release --quiet
	@$(RELEASE)/bench $(BENCH)

soak: ## what takes too long for the tests: floods of output, many containers, killed shims; figures are printed
	@.ci/packages $(TEST_PACKAGES)
	cargo build --release --quiet
	@$(RELEASE)/soak $(SOAK)
	@[ -n "$(SOAK)" ] || $(MAKE) soak-store soak-build

soak-store: ## the store's part of it: kill -9 and a full disk at every system call, a thousand power cuts, 64 hands for a minute
	@.ci/packages $(TEST_PACKAGES)
	@TEU_KILL_STRIDE=1 TEU_POWER_POINTS=500 TEU_BESIDE=64,60 integration-tests/run-suites store_kill store_power

soak-build: ## the builder's part of it: 100 builds killed at random moments, 64 at once beside a collector
	@.ci/packages $(TEST_PACKAGES)
	@TEU_BUILD_KILLS=100 TEU_BUILDS=64 integration-tests/run-suites build_kill

fuzz: ## feed the store's and the builder's readers with noise for FUZZ seconds each (cargo-fuzz and a nightly compiler)
	@cargo fuzz --version >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz"; exit 1; }
	@for target in store/layer store/documents builder/dockerfile builder/patterns; do \
		name=$${target#*/}; \
		(cd $${target%/*} && mkdir -p fuzz/target/corpus/$$name && \
			cargo +nightly fuzz run $$name fuzz/target/corpus/$$name fuzz/corpus/$$name -- \
				-max_total_time=$(FUZZ) -max_len=65536) || exit 1; done

install: all ## put the binaries in PREFIX/bin
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 0755 $(addprefix $(RELEASE)/,$(PROGRAMS)) $(DESTDIR)$(PREFIX)/bin

clean:
	cargo clean

# What the examples need beside their sources: a static program and busybox.
.PHONY: examples
examples: builder/examples/hello/hello builder/examples/web/busybox

builder/examples/hello/hello: builder/examples/hello/hello.c
	gcc -Os -s -static -o $@ $<

builder/examples/web/busybox: /bin/busybox
	cp $< $@

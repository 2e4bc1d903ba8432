# The commands that anyone must know:
#   make up      build what is missing and run the stack          make test    pass the tests
#   make down    stop the stack; its data stays                   make bench   ratios against the peers, into docs/
#   make dist    release binaries in dist/, twice the same bytes  make lint    formatting and clippy
#   make clean   forget what was built here (data stays)
.PHONY: up down test bench lint dist clean init bench-init bench-vm matrix fuzz companion runtime-packages test-packages

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
INCEPTION := $(TARGET)/release/inception

up: runtime-packages init companion
	Dockerfiles/setup
	$(INCEPTION) up --detach --build --file Dockerfiles/compose.yaml
	@Dockerfiles/summary

down: companion
	$(INCEPTION) down --file Dockerfiles/compose.yaml

# The init as it ships; the companion with debug assertions, in half of the time that a release build takes. The tests press
# Ctrl-C: a shell's background job has SIGINT ignored, and its children inherit that.
test: runtime-packages test-packages init
	INCEPTION=$(abspath $(TARGET))/debug/inception env --default-signal=INT,QUIT $(CARGO) test --workspace --no-fail-fast

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	shellcheck scripts/need scripts/build-init scripts/build-dist scripts/vm-kernel .ci/run Dockerfiles/setup Dockerfiles/summary Dockerfiles/*/*.sh Dockerfiles/mariadb/docker_process_sql

dist: init
	scripts/build-dist

clean:
	$(CARGO) clean
	rm -rf dist

init:
	scripts/build-init

# Nothing else should run meanwhile: some 15 minutes.
bench: runtime-packages test-packages init bench-init bench-vm
	@scripts/need dpkg-scanpackages=dpkg-dev
	$(CARGO) bench --package inception

bench-init: init
	@scripts/need tini=tini dumb-init=dumb-init catatonit=catatonit strace=strace
	$(CARGO) build --quiet --release --package init-tests
	$(TARGET)/release/init-tests --bench --write docs/benchmarks.md

# The init as PID 1 of virtual machines, beside busybox: a minute; two where it is emulated. The init without the feature is for its size only.
bench-vm: init
	@scripts/need qemu-system-x86_64=qemu-system-x86 /bin/busybox=busybox-static
	CARGO_TARGET_DIR=$(abspath $(TARGET))/without-vm INIT_FEATURES=--no-default-features scripts/build-init
	$(CARGO) build --quiet --release --package init-tests
	$(TARGET)/release/init-tests --bench-vm $(TARGET)/without-vm/init/inception-init --write docs/benchmarks.md

# The cases against this init and its peers, into the pages that show them.
matrix: init
	@scripts/need tini=tini dumb-init=dumb-init catatonit=catatonit
	$(CARGO) build --quiet --release --package init-tests
	$(TARGET)/release/init-tests --write README.md --write docs/init.md

# Coverage-guided, with any toolchain; SECONDS a parser.
SECONDS ?= 10
fuzz:
	RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
	    $(CARGO) build --quiet --release --manifest-path fuzz/Cargo.toml --target-dir $(TARGET)/fuzz --target $(shell rustc -vV | sed -n 's/host: //p')
	for target in fuzz/fuzz_targets/*.rs; do \
	    $(TARGET)/fuzz/*/release/$$(basename $$target .rs) -max_total_time=$(SECONDS) -rss_limit_mb=4096 -verbosity=0 || exit 1; done

companion:
	$(CARGO) build --release --package inception

runtime-packages:
	@scripts/need runc=runc nft=nftables mmdebstrap=mmdebstrap ip=iproute2

test-packages:
	@scripts/need dockerd=docker.io docker-compose=docker-compose podman=podman /usr/lib/podman/netavark=netavark /usr/lib/podman/aardvark-dns=aardvark-dns \
	    tini=tini dumb-init=dumb-init catatonit=catatonit docker-registry=docker-registry chromium=chromium chromedriver=chromium-driver /usr/lib/python3/dist-packages/html5lib/__init__.py=python3-html5lib \
	    qemu-system-x86_64=qemu-system-x86 /usr/lib/qemu/virtiofsd=qemu-system-common depmod=kmod mke2fs=e2fsprogs \
	    /usr/lib/grub/i386-pc/boot.img=grub-pc-bin qemu-aarch64=qemu-user aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu \
	    /bin/busybox=busybox-static strace=strace curl=curl openssl=openssl shellcheck=shellcheck tmux=tmux

# GNU make. `make` builds every program as a static executable into target/bin.

PREFIX ?= /usr/local
bindir := $(DESTDIR)$(PREFIX)/bin
sharedir := $(DESTDIR)$(PREFIX)/share
mandir := $(sharedir)/man
# The package of Debian has its completions in another directory, so that local ones are found first.
zshdir ?= site-functions
completions := $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	$(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d

# The shell of root or of a CI job often lacks rustup's directory. The directory comes before that of Debian's cargo,
# which lint may have installed to check for another system.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
target := $(abspath $(or $(CARGO_TARGET_DIR),target))
bin := $(target)/bin

# The triple of the host, the version of the compiler, and whether that version is new enough.
rustc := $(shell PATH='$(PATH)' rustc -vV 2>/dev/null | sed -n 's/^host: //p; s/^release: //p')
triple := $(word 1,$(rustc))
version := $(word 2,$(rustc))
needed := $(shell sed -n 's/^rust-version = "\(.*\)"$$/\1/p' Cargo.toml)
usable := $(and $(version),$(shell printf '%s\n' $(needed) $(version) | sort -C -V && echo yes))

# The variable is expanded only by recipes that need cargo, so that all others work without.
cargo = $(if $(usable),cargo,$(error jc needs cargo $(needed) or newer, $(if $(version),this is \
$(version) (Debian 12 has no newer one),there is none here): install it with rustup))

# Position-dependent code, since a static PIE relocates itself at each start.
ifneq (,$(findstring -linux-,$(triple)))
static := -C target-feature=+crt-static -C relocation-model=static
few_segments := -C link-arg=-Wl,-z,noseparate-code
endif

pages := $(wildcard man/*.[1-9])

.PHONY: all musl install uninstall deb dist test test-faults test-egress test-engines test-vm demo session lint bench-egress bench-limits bench-pull bench-push bench-scale bench-start bench-trace clean

# glibc executes cpuid dozens of times at its start, and each is an exit to the hypervisor in a virtual machine: 0.7
# ms for each program of a chain. musl executes none, so the programs of chains are linked with musl if rustup has or
# gets it. They are built for size and with few segments, since a start executes nearly all code once, and the number
# of mapped pages counts. jc-pull is in no chain, moves bytes, and has parts in C.
musl := $(if $(findstring -linux-gnu,$(triple)),$(subst -linux-gnu,-linux-musl,$(triple)))
has_musl = $(and $(musl),$(shell PATH='$(PATH)'; \
	[ ! -d "$$(rustc --print target-libdir --target $(musl))" ] || echo yes))
chain = $(if $(has_musl),$(musl),$(triple))

# --target is given also for the host, so that RUSTFLAGS reach no build script and no proc macro.
build = RUSTFLAGS='$(strip $(RUSTFLAGS) $(static) $(1))' $(cargo) build --locked --release --bins

# The programs are copied and not linked: the kernel keeps a file that is written at once in larger pieces in the page
# cache, and maps it in fewer steps at each start.
all: musl
	CARGO_PROFILE_RELEASE_OPT_LEVEL=s \
	$(call build,$(few_segments)) --target $(chain) --workspace --exclude jc-pull
	$(call build) --target $(triple) --package jc-pull
	@rm -rf '$(bin)' && install -d '$(bin)'
	@cargo metadata --locked --no-deps --format-version 1 | tr '{' '\n' | \
	sed -n 's/.*"kind":\["bin"\].*"name":"\([^"]*\)".*/\1/p' | while read -r name; do \
		built='$(target)/$(chain)/release/'"$$name"; \
		[ -e "$$built" ] || built='$(target)/$(triple)/release/'"$$name"; \
		install -m 755 "$$built" '$(bin)/' || exit; \
	done

musl:
	@$(if $(or $(has_musl),$(if $(musl),,none)),:,rustup target add $(musl) || \
	echo 'make: rustup has no $(musl): programs with glibc start later in virtual machines' >&2)

completions := jc-run/completions
drivers := $(addprefix jc-run/ci/,gitlab-executor github-hooks step bazel-run-under)

# Root without cargo can install programs that are already built.
install: $(if $(usable)$(if $(wildcard $(bin)/*),,unbuilt),all)
	install -d '$(bindir)'
	install '$(bin)'/* '$(bindir)'
	@for page in $(pages); do \
		install -d '$(mandir)'/man$${page##*.} && \
		install -m 644 $$page '$(mandir)'/man$${page##*.} || exit; \
	done
	install -d '$(sharedir)'/bash-completion/completions \
		'$(sharedir)'/zsh/$(zshdir) '$(sharedir)'/fish/vendor_completions.d
	install -m 644 $(completions)/jc.bash '$(sharedir)'/bash-completion/completions/jc-run
	install -m 644 $(completions)/_jc '$(sharedir)'/zsh/$(zshdir)
	install -d '$(sharedir)'/jc
	install -m 644 jc-net/jc-net-repair.service jc-unshare/apparmor '$(sharedir)'/jc
	install -d '$(sharedir)'/jc/ci/github-action
	install -m 755 $(drivers) '$(sharedir)'/jc/ci
	install -m 644 jc-run/ci/github-action/action.yml '$(sharedir)'/jc/ci/github-action
	@# bash and fish look for a file of the command's name.
	@for name in '$(bin)'/*; do name=$${name##*/}; \
		[ $$name = jc-run ] || \
		ln -sf jc-run '$(sharedir)'/bash-completion/completions/$$name || exit; \
		install -m 644 $(completions)/jc.fish \
			'$(sharedir)'/fish/vendor_completions.d/$$name.fish || exit; \
	done

uninstall:
	@for name in $(notdir $(wildcard $(bin)/*) $(basename $(filter %.1 %.8,$(pages)))); do \
		rm -f '$(bindir)'/$$name '$(sharedir)'/bash-completion/completions/$$name \
			'$(sharedir)'/fish/vendor_completions.d/$$name.fish || exit; \
	done
	rm -f '$(sharedir)'/zsh/$(zshdir)/_jc '$(sharedir)'/jc/jc-net-repair.service '$(sharedir)'/jc/apparmor
	rm -f $(patsubst jc-run/%,'$(sharedir)'/jc/%,$(drivers)) '$(sharedir)'/jc/ci/github-action/action.yml
	rmdir '$(sharedir)'/jc/ci/github-action '$(sharedir)'/jc/ci '$(sharedir)'/jc 2>/dev/null || :
	@for page in $(notdir $(pages)); do rm -f '$(mandir)'/man$${page##*.}/$$page || exit; done

# Makes a Debian package of the built programs, in target/.
deb: $(if $(usable)$(if $(wildcard $(bin)/*),,unbuilt),all)
	tests/deb.sh '$(target)'

# Makes a release in target/dist: sources, programs, the Debian package, and checksums.
machine := $(shell uname -m)-$(shell uname -s | tr A-Z a-z)
release := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml)
dist: deb
	rm -rf '$(target)/dist' && mkdir -p '$(target)/dist/jc-$(release)-$(machine)'
	git archive --prefix=jc-$(release)/ -o '$(target)/dist/jc-$(release).tar.gz' HEAD
	$(MAKE) --no-print-directory -s install DESTDIR='$(target)/dist/jc-$(release)-$(machine)' PREFIX=
	tar -C '$(target)/dist' --sort=name --owner=0 --group=0 --numeric-owner \
		--mtime="@$$(git log -1 --format=%ct)" -czf '$(target)/dist/jc-$(release)-$(machine).tar.gz' \
		'jc-$(release)-$(machine)'
	rm -r '$(target)/dist/jc-$(release)-$(machine)'
	cp '$(target)'/jc_$(release)_*.deb '$(target)/dist/'
	cd '$(target)/dist' && sha256sum -- * >SHA256SUMS

# Records the terminal session of README.md again. As root.
session: all
	tests/session.sh '$(bin)'

test demo:
	@tests/packages.sh $@
	@$(MAKE) --no-print-directory all
	@tests/$@.sh '$(bin)'

# Tests a signal or an error at each system call of 41 command lines, which takes hours, and kills at random instants,
# which take 15 minutes. As root. RELIABILITY.md has the results.
test-faults: all
	JC_BIN_DIR='$(bin)' JC_TEST_FAULTS=all $(cargo) test --locked -p jc-tests --test faults --test faults_images --test faults_oci -- --nocapture
	JC_BIN_DIR='$(bin)' $(cargo) test --locked -p jc-tests --features peers \
		--test faults_peers -- --nocapture
	JC_BIN_DIR='$(bin)' JC_TEST_VOLUME=40 $(cargo) test --locked -p jc-tests --test early_kills -- --nocapture

# Checks the limits of time and memory that the design promises. As root, on an idle machine.
bench-limits: all
	JC_BIN_DIR='$(bin)' $(cargo) test --locked -p jc-tests --features bench --test bench -- --nocapture --test-threads=1

# Tests the programs in virtual machines: the kernel of this release, one that is too old, 64-bit ARM, and systemd. As
# root, on x86_64.
test-vm: all
	@tests/packages.sh vm
	tests/vm.sh '$(target)/fixtures'
	JC_BIN_DIR='$(bin)' JC_FIXTURES='$(target)/fixtures' JC_MUST_RUN=1 $(cargo) test --locked -p jc-tests \
		--features vm --test vm -- --test-threads 2

# Tests jc-oci, and runc for comparison, with engines of Debian: podman, buildah, containerd, Docker, Slurm. As root.
test-engines: all
	@tests/packages.sh engines
	JC_BIN_DIR='$(bin)' JC_MUST_RUN=1 $(cargo) test --locked -p jc-tests --features engines --test engines -- --test-threads 2

# Tests all attempts to bypass jc-egress. As root.
test-egress: all
	JC_BIN_DIR='$(bin)' $(cargo) test --locked -p jc-tests --test egress --test egress_learn --test egress_log --test egress_programs --test egress_bypass -- --nocapture

# Measures the time that jc-egress adds to a start, and its throughput, compared with pasta and slirp4netns. As root.
bench-egress: all
	tests/bench-egress.sh '$(bin)'

# Measures jc-pull and all other installed programs that pull images. Takes minutes and some gigabytes.
bench-pull: all
	tests/bench-pull.sh '$(bin)'

bench-push: all
	tests/bench-push.sh '$(bin)'

# Measures starts as a function of the containers that start beside them and that run, compared with the C program of
# bench-start, and draws target/bench-scale.svg. As root.
bench-scale: all
	@tests/packages.sh bench
	tests/bench-scale.sh '$(bin)'

# Measures the start of a sandbox compared with a C program that makes the same system calls, and a container from
# start to end compared with other programs, and draws target/bench-start.svg. As root.
bench-start: all
	@tests/packages.sh bench
	tests/bench-start.sh '$(bin)'
	tests/bench-run.sh '$(bin)'
	tests/bench-oci.sh '$(bin)'

# Measures a parallel build of C files under jc-trace, strace and perf trace.
bench-trace: all
	@tests/packages.sh bench
	tests/bench-trace.sh '$(bin)'

# CI lints while it builds the tests.
clippy = cargo clippy --locked --workspace --all-targets --features jc-tests/bench,jc-tests/peers -- -D warnings
lint:
	@tests/packages.sh lint
	$(cargo) fmt --all --check
	tests/lint-absence.sh
	tests/lint-prose.sh
	tests/lint-modules.sh
	$(clippy)
	tests/macos.sh
ifneq (,$(pages))
	mandoc -T lint -W warning $(pages)
endif

clean:
	cargo clean

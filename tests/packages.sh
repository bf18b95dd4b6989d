#!/bin/sh
# Installs the Debian packages that the build and then `test`, `demo`, `lint` or a bench need, and that this
# machine lacks.
# Usage: tests/packages.sh test|demo|lint|bench|vm|engines
set -eu

missing=

# need PROGRAM PACKAGE
need() {
	PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing="$missing $2"
}

need_compiler() {
	need cc gcc
	# cc prints a path only if the library exists. A static link needs the library.
	case $(cc -print-file-name=libc.a 2>/dev/null) in
	/*) ;;
	*) [ "$(uname -s)" != Linux ] || missing="$missing libc6-dev" ;;
	esac
}

# The dynamic busybox has the same name, and cannot be the only file of an image.
need_busybox() {
	if ! busybox true 2>/dev/null || ldd "$(command -v busybox)" >/dev/null 2>&1; then
		missing="$missing busybox-static"
	fi
}

need_compiler
case ${1-} in
demo)
	need_busybox
	;;
lint)
	need mandoc mandoc
	;;
bench)
	need ip iproute2
	need jq jq
	need /usr/bin/python3 python3
	need gnuplot gnuplot-nox
	need bwrap bubblewrap
	need crun crun
	need strace strace
	need perf linux-perf
	;;
test)
	need_busybox
	need mandoc mandoc
	need curl curl
	need /usr/bin/python3 python3
	need ip iproute2
	need nft nftables
	need pasta passt
	need iperf3 iperf3
	need perl perl-base
	need readelf binutils
	need script bsdutils
	need flock util-linux
	need setpriv util-linux
	need strace strace
	need mkfs.ext4 e2fsprogs
	need bwrap bubblewrap
	need runc runc
	need crun crun
	need newuidmap uidmap
	need tmux tmux
	need vi vim-tiny
	need pidof sysvinit-utils
	need ps procps
	need docker-registry docker-registry
	need skopeo skopeo
	need umoci umoci
	need buildah buildah
	need podman podman
	need catatonit catatonit
	need mmdebstrap mmdebstrap
	need jq jq
	need zsh zsh
	need fish fish
	need lintian lintian
	need apparmor_parser apparmor
	need parallel parallel
	need openssl openssl
	need git git
	need node nodejs
	need npm npm
	need /usr/bin/pip3 python3-pip
	need ssh openssh-client
	need sshd openssh-server
	[ "$(uname -m)" != x86_64 ] || need qemu-system-x86_64 qemu-system-x86
	;;
vm)
	need_busybox
	need mmdebstrap mmdebstrap
	need qemu-system-x86_64 qemu-system-x86
	need qemu-system-aarch64 qemu-system-arm
	need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
	need mke2fs e2fsprogs
	for package in rustc-web cargo-web libc6-dev-arm64-cross; do
		dpkg-query -W "$package" >/dev/null 2>&1 || missing="$missing $package"
	done
	;;
engines)
	need_busybox
	need ip iproute2
	need jq jq
	need script bsdutils
	need pgrep procps
	need runc runc
	need podman podman
	need catatonit catatonit
	need buildah buildah
	need containerd containerd
	need /usr/lib/cni/ptp containernetworking-plugins
	need /usr/bin/python3 python3
	need dockerd docker.io
	need docker-init tini
	need munged munge
	need srun slurm-client
	need slurmd slurmd
	need slurmctld slurmctld
	dpkg-query -W python3-grpcio >/dev/null 2>&1 || missing="$missing python3-grpcio"
	;;
*)
	echo "usage: ${0##*/} test|demo|lint|bench|vm|engines" >&2
	exit 2
	;;
esac

[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
	echo "${0##*/}: please install:$missing" >&2
	exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
	as_root='env'
elif command -v sudo >/dev/null; then
	as_root='sudo env'
else
	echo "${0##*/}: please install, as root: apt-get install$missing" >&2
	exit 1
fi
echo "installing:$missing"
# No package may ask a question, since CI has no terminal. Another apt-get may hold the lock of dpkg for a while.
$as_root apt-get -q update </dev/null
# The list is split on purpose.
# shellcheck disable=SC2086
$as_root DEBIAN_FRONTEND=noninteractive \
	apt-get -q install -y --no-install-recommends -o DPkg::Lock::Timeout=300 $missing </dev/null

# The tests start their own daemons, so services of the packages need not run.
[ -d /run/systemd/system ] || exit 0
for package in $missing; do
	case $package in
	docker-registry | containerd | munge | slurmd | slurmctld) $as_root systemctl disable --now "$package" ;;
	docker.io) $as_root systemctl disable --now docker.socket docker ;;
	esac
done

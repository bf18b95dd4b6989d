#!/bin/bash
# Makes what the virtual machines of `make test-vm` need in DIR: kernels, programs for 64-bit ARM, a disk with systemd.
# As root. Usage: tests/vm.sh DIR
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "$1"
fixtures=$(realpath "$1")
dir=$(mktemp -d "${TMPDIR:-/tmp}/jc-vm.XXXXXX")
trap 'rm -rf "$dir"' EXIT
tests/kernel.sh "$fixtures/kernel"
tests/kernel.sh "$fixtures/kernel-oldest" bullseye amd64
tests/kernel.sh "$fixtures/kernel-arm64" bookworm arm64

# Debian's compiler has the standard library of other architectures in packages of its own release. They are unpacked
# beside that of this machine, in a system root of links.
target=aarch64-unknown-linux-gnu
packages=$fixtures/packages-arm64
version=$(dpkg-query -f '${Version}' -W rustc-web)
if [ "$(cat "$packages/version" 2>/dev/null)" != "$version" ]; then
	rm -rf "$packages"
	mmdebstrap --quiet --variant=extract --arch=arm64 "--include=busybox-static,libstd-rust-web-dev=$version" bookworm \
		"$packages" 'deb http://deb.debian.org/debian bookworm main' \
		'deb http://deb.debian.org/debian-security bookworm-security main'
	echo "$version" >"$packages/version"
fi
sysroot=$dir/sysroot/lib/rustlib
mkdir -p "$sysroot"
ln -s "$(/usr/bin/rustc --print sysroot)"/lib/rustlib/x86_64-unknown-linux-gnu "$packages/usr/lib/rustlib/$target" "$sysroot/"
printf '#!/bin/sh\nexec /usr/bin/rustc --sysroot "%s" "$@"\n' "$dir/sysroot" >"$dir/rustc"
chmod +x "$dir/rustc"
RUSTC=$dir/rustc RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static' \
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
	CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/arm64 \
	/usr/share/cargo/bin/cargo build --quiet --locked --release --bins --workspace --target $target
rm -rf "$fixtures/programs-arm64"
mkdir "$fixtures/programs-arm64"
find "${CARGO_TARGET_DIR:-target}/arm64/$target/release" -maxdepth 1 -type f -perm -100 -name 'jc-*' \
	-exec cp -t "$fixtures/programs-arm64" {} +
cp "$packages/bin/busybox" "$fixtures/programs-arm64/"

# A Debian system with systemd. Its service `script` runs the script of the machine.
if [ ! -e "$fixtures/systemd.img" ]; then
	mmdebstrap --quiet --variant=minbase \
		--include=systemd-sysv,dbus,dbus-user-session,libpam-systemd,busybox-static,iproute2,uidmap bookworm "$dir/root"
	cat >"$dir/root/etc/systemd/system/script.service" <<-'END'
		[Unit]
		After=dbus.service systemd-logind.service
		[Service]
		Type=oneshot
		ExecStart=/prelude.sh
		StandardOutput=tty
		StandardError=tty
		TTYPath=/dev/console
	END
	ln -s ../script.service "$dir/root/etc/systemd/system/multi-user.target.wants/"
	printf '[Manager]\nShowStatus=no\n' >"$dir/root/etc/systemd/system.conf"
	ln -sf /dev/null "$dir/root/etc/systemd/system/serial-getty@ttyS0.service"
	chroot "$dir/root" useradd -m -u 1000 -s /bin/sh user
	mke2fs -q -t ext4 -d "$dir/root" "$fixtures/systemd.img.new" 1G
	mv "$fixtures/systemd.img.new" "$fixtures/systemd.img"
fi

#!/bin/bash
# Gets Debian's kernel for the small virtual machine of the tests, which has cgroup v2 whatever this
# machine has: unpacked, not installed. Usage: tests/kernel.sh DIR
set -euo pipefail
[ "$(uname -m)" = x86_64 ] || { echo "${0##*/}: only for x86_64" >&2; exit 1; }
[ ! -e "$1/vmlinuz" ] || exit 0
mkdir -p "$1"
dir=$(mktemp -d "${TMPDIR:-/tmp}/jc-kernel.XXXXXX")
trap 'rm -rf "$dir"' EXIT
meta=linux-image-cloud-amd64
package() { apt-cache depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1; }
[ -n "$(package)" ] || apt-get -q update </dev/null
(cd "$dir" && apt-get -q -o APT::Sandbox::User=root download "$(package)" </dev/null)
dpkg-deb -x "$dir"/*.deb "$dir/root"
modules=$(echo "$dir"/root/lib/modules/*/kernel)
cp "$modules"/fs/overlayfs/overlay.ko "$1/"
cp "$modules"/drivers/block/brd.ko "$1/"
cp "$dir"/root/boot/vmlinuz-* "$1/vmlinuz.new"
mv "$1/vmlinuz.new" "$1/vmlinuz"

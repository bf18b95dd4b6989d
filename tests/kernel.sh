#!/bin/bash
# Unpacks a Debian kernel for the virtual machines of the tests: the image, and the modules that the scripts in
# tests/vm load. Usage: tests/kernel.sh DIR [SUITE ARCH]. Without SUITE the kernel is that of this machine's release.
set -euo pipefail
if [ -z "${2-}" ] && [ "$(uname -m)" != x86_64 ]; then
	echo "${0##*/}: only for x86_64" >&2
	exit 1
fi
out=$1 suite=${2-} arch=${3-amd64}
self=$(sha256sum <"$0")
[ "$(cat "$out/made-by" 2>/dev/null)" != "$self" ] || exit 0
mkdir -p "$out"
dir=$(mktemp -d "${TMPDIR:-/tmp}/jc-kernel.XXXXXX")
trap 'rm -rf "$dir"' EXIT

# The package lists of another release or architecture stay apart from those of this machine.
options=(-q -o APT::Sandbox::User=root)
if [ -n "$suite" ]; then
	echo "deb http://deb.debian.org/debian $suite main" >"$dir/sources.list"
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	options+=(-o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o Dir::State::status=/dev/null
		-o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o Acquire::Check-Valid-Until=false)
fi
package() {
	apt-cache "${options[@]}" depends "linux-image-cloud-$arch" 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1
}
[ -n "$(package)" ] || apt-get "${options[@]}" update </dev/null
(cd "$dir" && apt-get "${options[@]}" download "$(package)" </dev/null)
dpkg-deb -x "$dir"/*.deb "$dir/root"
modules=$(echo "$dir"/root/lib/modules/*/kernel)

# add MODULE: copies it behind those that it depends on. A module without a file is built into the kernel.
list=
add() {
	local file dependency
	file=$(find "$modules" -name "$1.ko" | head -1)
	case " $list " in *" $1 "*) return ;; esac
	[ -n "$file" ] || return 0
	for dependency in $(tr '\0' '\n' <"$file" | sed -n 's/^depends=//p' | tr ',' ' '); do
		add "$dependency"
	done
	cp "$file" "$out/$1.ko"
	list="$list $1"
}
for module in virtio_pci virtio_blk ext4 overlay brd; do add "$module"; done
echo "$list" >"$out/base.list"
list=
for module in nfnetlink bridge nf_tables nft_ct nft_chain_nat nft_nat nft_masq nft_fib_inet veth nf_conntrack_netlink; do
	add "$module"
done
echo "$list" >"$out/net.list"
cp "$dir"/root/boot/vmlinuz-* "$out/vmlinuz"
echo "$self" >"$out/made-by"

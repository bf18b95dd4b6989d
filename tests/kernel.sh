#!/bin/bash
# Gets Debian's kernel for the small virtual machine of the tests, which has cgroup v2 whatever this
# machine has: unpacked, not installed. Usage: tests/kernel.sh DIR
set -euo pipefail
[ "$(uname -m)" = x86_64 ] || { echo "${0##*/}: only for x86_64" >&2; exit 1; }
[ ! -e "$1/vmlinuz" ] || ! grep -qs nf_conntrack_netlink "$1/net.list" || exit 0
mkdir -p "$1"
dir=$(mktemp -d "${TMPDIR:-/tmp}/jc-kernel.XXXXXX")
trap 'rm -rf "$dir"' EXIT
meta=linux-image-cloud-amd64
package() { apt-cache depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1; }
[ -n "$(package)" ] || apt-get -q update </dev/null
(cd "$dir" && apt-get -q -o APT::Sandbox::User=root download "$(package)" </dev/null)
dpkg-deb -x "$dir"/*.deb "$dir/root"
modules=$(echo "$dir"/root/lib/modules/*/kernel)
# What jc-net needs, each behind those that it depends on.
list=
add() {
	local file dependency
	file=$(find "$modules" -name "$1.ko")
	case " $list " in *" $1 "*) return ;; esac
	# Not there: built in.
	[ -n "$file" ] || return 0
	for dependency in $(tr '\0' '\n' <"$file" | sed -n 's/^depends=//p' | tr ',' ' '); do
		add "$dependency"
	done
	cp "$file" "$out/$1.ko"
	list="$list $1"
}
out=$1
for module in nfnetlink bridge nf_tables nft_ct nft_chain_nat nft_nat nft_masq nft_fib_inet veth \
	nf_conntrack_netlink; do
	add "$module"
done
echo "$list" >"$1/net.list"
cp "$modules"/fs/overlayfs/overlay.ko "$1/"
cp "$modules"/drivers/block/brd.ko "$1/"
cp "$dir"/root/boot/vmlinuz-* "$1/vmlinuz.new"
mv "$1/vmlinuz.new" "$1/vmlinuz"

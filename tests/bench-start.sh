#!/bin/sh
# Measures the time of a sandbox from start to end, compared with a C program that makes the same system calls (the
# first line), and with bubblewrap if it is installed. Usage: tests/bench-start.sh BIN_DIR (root)
set -eu
PATH=$(realpath "$1"):$PATH
cd "$(dirname "$0")"
dir=$(mktemp -d "${TMPDIR:-/tmp}/jc-bench.XXXXXX")
trap 'rm -rf "$dir"' EXIT
cc -static -O2 -o "$dir/bench" bench-start.c
mkdir -p "$dir/root/bin" "$dir/root/proc" "$dir/root/dev" "$dir/root/sys"
echo 'int main(void) { return 0; }' >"$dir/true.c"
cc -static -O2 -o "$dir/root/bin/true" "$dir/true.c"

set -- "$dir/bench floor $dir/root" \
	"jc-unshare -puiC -- jc-rootfs --sys none $dir/root -- /bin/true" \
	"jc-unshare -puiC -- jc-rootfs $dir/root -- /bin/true" \
	"jc-unshare -puiC -- jc-rootfs --layer $dir/root -- /bin/true"
if command -v bwrap >/dev/null; then
	bwrap="bwrap --unshare-pid --as-pid-1 --unshare-uts --unshare-ipc --unshare-cgroup --bind $dir/root /"
	set -- "$@" "$bwrap --proc /proc --dev /dev -- /bin/true" \
		"$bwrap --proc /proc --dev /dev --ro-bind /sys /sys -- /bin/true"
fi
"$dir/bench" time "${ROUNDS:-500}" "$@"

#!/bin/bash
# Records a terminal session of real runs as a picture, man/session.svg, which README.md shows. As root.
# Usage: tests/session.sh BIN_DIR
set -euo pipefail
export LC_ALL=C
here=$(dirname "$(realpath "$0")")

# The script runs in its own namespaces, without other processes, and leaves nothing behind.
if [ -z "${JC_SESSION-}" ]; then
	export JC_SESSION=1
	exec unshare --mount --net --pid --fork --mount-proc --kill-child "$(realpath "$0")" "$(realpath "$1")"
fi
# The descriptor stays open, since the directory may lie below a hidden one.
exec 3<"$1"
mount -t tmpfs -o mode=755 bin /mnt
cp /dev/fd/3/* /mnt
exec 3<&-
out=$here/../man/session.svg
exec 4>"$out.new"
. "$here/busybox-image.sh"
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
ip link set lo up
export PATH=/mnt:$PATH JC_STORE=/tmp/store
cd /tmp
make_image
mkdir -p root/bin
cp "$(command -v busybox)" root/bin/
for name in sh ps; do ln -s busybox "root/bin/$name"; done

# record COMMAND: writes the command line and its output.
record() {
	printf '$ %s\n' "$1"
	bash -c "$1" </dev/null 2>&1 || true
}
{
	record 'jc-pull -q oci:busybox >image; cut -c 1-70 image'
	record "jc-run <image -- sh -c 'echo hello from process \$\$ of \$(hostname)'"
	record 'jc-cgroup -m 64M -- jc-unshare -puiC -- jc-rootfs --upper tmpfs root -- ps'
	record 'jc-cgroup -m 64M -- dd if=/dev/zero of=/dev/null bs=200M count=1; echo $?'
	record "jc-run -d --name web -p 127.0.0.1:8080:80 <image -- sh -c 'echo it works >index.html; httpd -f'"
	until busybox wget -qO /dev/null http://127.0.0.1:8080/; do sleep 0.05; done 2>/dev/null
	record 'busybox wget -qO- http://127.0.0.1:8080/'
	record 'jc-list'
	record 'jc-stop -t 1 web && jc-rm web && jc-list -aq | wc -l'
} >session
cat session

# A line of text is 17 units high, a character of it 7.8 wide.
awk '
	length > longest { longest = length }
	{ gsub(/&/, "\\&amp;"); gsub(/</, "\\&lt;"); gsub(/>/, "\\&gt;"); line[NR] = $0 }
	END {
		height = NR * 17 + 30
		width = longest * 7.85 + 32
		printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"monospace\" font-size=\"13\">\n", width, height
		printf "  <title>A terminal session with jc</title>\n"
		printf "  <rect width=\"%d\" height=\"%d\" rx=\"8\" fill=\"#0d1117\"/>\n  <g xml:space=\"preserve\" fill=\"#c9d1d9\">\n", width, height
		for (i = 1; i <= NR; i++)
			printf "    <text x=\"16\" y=\"%d\"%s>%s</text>\n", i * 17 + 12, line[i] ~ /^\$ / ? " fill=\"#7ee787\"" : "", line[i]
		print "  </g>\n</svg>"
	}' session >&4
mv "$out.new" "$out"

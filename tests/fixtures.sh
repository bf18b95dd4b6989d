#!/bin/bash
# Makes the fixtures that take long, once: a real Debian tree as an image, in the storage of a real registry. Usage:
# tests/fixtures.sh DIR
set -euo pipefail
export LC_ALL=C
umask 022
self=$(realpath "$0")
made_by=$(sha256sum <"$self")

# The script runs in its own namespaces: its registry is unreachable from elsewhere, its files are in memory, and
# programs that write to directories of the host write to its mounts.
if [ -z "${JC_FIXTURES_INSIDE-}" ]; then
	mkdir -p "$1"
	out=$(realpath "$1")
	[ "$(cat "$out/made-by" 2>/dev/null)" != "$made_by" ] || exit 0
	rm -rf "${out:?}"/*
	echo 'making a Debian image, which takes a while once'
	# The mirror of this machine's sources.list.
	mirror() {
		# shellcheck disable=SC2016 # apt's variables
		apt-get indextargets --format '$(ORIGIN)/$(LABEL)/$(COMPONENT) $(REPO_URI) $(CODENAME)' \
			'Created-By: Packages' | sed -n 's,^Debian/Debian/main ,,p' | head -1
	}
	read -r uri suite <<<"$(mirror)"
	if [ -z "$suite" ]; then
		apt-get -q update </dev/null
		read -r uri suite <<<"$(mirror)"
	fi
	[ -n "$suite" ] || { echo "${0##*/}: apt knows no mirror of Debian" >&2; exit 1; }
	mmdebstrap --quiet --variant=minbase "$suite" "$out/root.tar" "$uri"
	JC_FIXTURES_INSIDE=1 unshare --mount-proc --net --pid --fork --kill-child "$self" "$out"
	rm "$out/root.tar"
	echo "$made_by" >"$out/made-by"
	exit
fi

# The descriptor stays open, since the directory may lie below a hidden one.
exec 3<"$1"
mount -t tmpfs none /tmp
mount -t tmpfs none /var/tmp
[ ! -d /var/lib/containers ] || mount -t tmpfs none /var/lib/containers
ip link set lo up
cd /tmp

# Two layers: the tree, and a change that removes a file.
umoci init --layout debian
umoci new --image debian:latest
umoci raw add-layer --image debian:latest /dev/fd/3/root.tar
umoci config --image debian:latest --config.cmd bash --config.env DEBIAN_FRONTEND=noninteractive \
	--config.workingdir /root
umoci unpack --image debian:latest bundle
rm -r bundle/rootfs/usr/share/doc bundle/rootfs/etc/issue
echo changed >bundle/rootfs/etc/motd
umoci repack --refresh-bundle --image debian:latest bundle

mkdir -p root/bin
cp "$(command -v busybox)" root/bin/
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "root/bin/$applet"
done
tar --numeric-owner --owner=0 --group=0 -C root -cf busybox.tar .
umoci init --layout busybox
umoci new --image busybox:latest
umoci raw add-layer --image busybox:latest busybox.tar
umoci config --image busybox:latest --config.cmd sh --config.env PATH=/bin

mkdir registry
cat >registry.yml <<END
version: 0.1
log: {accesslog: {disabled: true}, level: error}
storage: {filesystem: {rootdirectory: $PWD/registry}}
http: {addr: 127.0.0.1:5000}
END
docker-registry serve registry.yml 2>registry.log &
trap 'cat registry.log' ERR
until (: </dev/tcp/127.0.0.1/5000) 2>/dev/null; do
	kill -0 $!
	sleep 0.1
done
for image in debian busybox; do
	for format in oci v2s2; do
		tag=latest
		[ "$format" = oci ] || tag=docker
		skopeo copy --quiet --insecure-policy --dest-tls-verify=false --format "$format" \
			"oci:$image:latest" "docker://127.0.0.1:5000/$image:$tag"
	done
done
kill $!
wait $! || true
cp -r registry /dev/fd/3/

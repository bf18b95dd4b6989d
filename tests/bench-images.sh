# The common part of bench-pull.sh and bench-push.sh: a namespace of their own, images and registries. They source this
# file with their arguments.
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C
die() { echo "${0##*/}: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die 'needs root, for mounts and true owners'

# need PROGRAM...
need() {
	local needed
	for needed; do
		command -v "$needed" >/dev/null || die "$needed is missing"
	done
}
need docker-registry skopeo umoci openssl

# The mounts and the ports of the registries belong to the script, and end with it.
if [ -z "${JC_BENCH_INSIDE-}" ]; then
	JC_BENCH_INSIDE=1 exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$@"
fi
ip link set lo up
bin=$(realpath "$1")
work=$(mktemp -d "${TMPDIR:-/var/tmp}/${0##*/}.XXXXXX")

# Bytes that gzip compresses to a quarter. stream BYTES SEED
stream() {
	set +o pipefail
	paste -d '' <(openssl enc -aes-128-ctr -nosalt -pass "pass:$2" -pbkdf2 -in /dev/zero 2>/dev/null |
		base64 -w 68) <(yes "$(seq -s ' ' "$2" $(($2 + 48)))") | head -c "$1"
	set -o pipefail
}

# Files of KB kilobytes in several directories, so that one process can make each directory. make_tree DIR MB KB SEED
make_tree() {
	mkdir -p "$1"
	(cd "$1" && export kb="$3" && stream $(($2 << 20)) "$4" | split -a 4 -b $(($3 * 200))k \
		--filter 'mkdir "$FILE" && split -a 3 -b "${kb}k" - "$FILE/f"' - d)
}

# An image in the layout `oci`: for each layer its size in MB and the size of its files in KB. make_image TAG MB:KB...
make_image() {
	echo "making the image $1" >&2
	[ -e oci ] || umoci init --layout oci
	local n=0 layer
	umoci new --image "oci:$1"
	for layer in "${@:2}"; do
		n=$((n + 1))
		make_tree "tree/l$n" "${layer%:*}" "${layer#*:}" $n
		tar --numeric-owner --owner=0 --group=0 --sort=name -C tree -cf layer.tar .
		umoci raw add-layer --image "oci:$1" layer.tar
		rm -r "tree/l$n" layer.tar
	done
	rmdir tree
}

# Starts a registry, with a directory of its own, and sets $registry to its PID. serve PORT
serve() {
	printf '%s\n' 'version: 0.1' 'log: {accesslog: {disabled: true}, level: error}' \
		"storage: {filesystem: {rootdirectory: $work/registry-$1}}" "http: {addr: 127.0.0.1:$1}" >"$1.yml"
	docker-registry serve "$1.yml" 2>"$1.log" &
	registry=$!
	until (: </dev/tcp/127.0.0.1/"$1") 2>/dev/null; do sleep 0.1; done
}

# upload TAG REPOSITORY:TAG
upload() { skopeo copy -q --insecure-policy --dest-tls-verify=false "oci:oci:$1" "docker://$2"; }

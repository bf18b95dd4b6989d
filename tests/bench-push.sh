#!/bin/bash
# Compares jc-commit and jc-push with buildah, and jc-pull | jc-push with skopeo copy, between registries on loopback. The
# new layer has 300 MB in 30,000 files. Each run pushes to a new repository, the programs run in turn, and the results are
# medians in seconds. Usage: tests/bench-push.sh BIN_DIR [ROUNDS] (root; some 8 GB in TMPDIR)
set -euo pipefail
export LC_ALL=C
bin=$(realpath "$1")
rounds=${2:-5}
die() { echo "${0##*/}: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die 'needs root, for true owners'
for needed in docker-registry skopeo buildah openssl umoci; do
	command -v "$needed" >/dev/null || die "$needed is missing"
done

# The mounts and the ports of the registries belong to this script, and end with it.
if [ -z "${JC_BENCH_INSIDE-}" ]; then
	JC_BENCH_INSIDE=1 exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$@"
fi
ip link set lo up
work=$(mktemp -d "${TMPDIR:-/var/tmp}/bench-push.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
# The kernel splits the page cache of a program that is used for long.
mkdir programs && cp "$bin"/jc-{pull,commit,push,rmi,unshare} programs/
PATH=$work/programs:$PATH
export JC_STORE=$work/store
here=127.0.0.1:5000 there=127.0.0.1:5001
buildah=(buildah --root "$work/containers" --runroot "$work/run" --storage-driver overlay)

# Bytes that gzip compresses to a quarter.
stream() {
	set +o pipefail
	paste -d '' <(openssl enc -aes-128-ctr -nosalt -pass "pass:$2" -pbkdf2 -in /dev/zero 2>/dev/null |
		base64 -w 68) <(yes "$(seq -s ' ' "$2" $(($2 + 48)))") | head -c "$1"
	set -o pipefail
}

# make_tree DIR MB FILES SEED
make_tree() {
	local kb=$(($2 * 1024 / $3))
	mkdir -p "$1"
	(cd "$1" && export kb && stream $(($2 << 20)) "$4" | split -a 4 -b $((kb * 300))k \
		--filter 'mkdir "$FILE" && split -a 3 -b "${kb}k" - "$FILE/f"' - d)
}

serve() {
	printf '%s\n' 'version: 0.1' 'log: {accesslog: {disabled: true}, level: error}' \
		"storage: {filesystem: {rootdirectory: $work/registry-$1}}" "http: {addr: 127.0.0.1:$1}" >"$1.yml"
	docker-registry serve "$1.yml" 2>"$1.log" &
	until (: </dev/tcp/127.0.0.1/"$1") 2>/dev/null; do sleep 0.1; done
}

echo 'making the images' >&2
serve 5000
serve 5001
make_tree tree 300 30000 1
umoci init --layout oci && umoci new --image oci:base
for n in 2 3 4 5 6 7; do
	make_tree "layer/d$n" 40 3000 "$n"
	umoci insert --image oci:base layer /
	[ "$n" != 2 ] || skopeo copy -q --insecure-policy --dest-tls-verify=false oci:oci:base "docker://$here/base:small"
	rm -r layer
done
skopeo copy -q --insecure-policy --dest-tls-verify=false oci:oci:base "docker://$here/base:many"
jc-pull -q "$here/base:small" >base
"${buildah[@]}" pull -q --tls-verify=false "docker://$here/base:small" >/dev/null

# timed NAME COMMAND...
timed() {
	local start end
	start=$(date +%s.%N)
	"${@:2}"
	end=$(date +%s.%N)
	echo "$1 $(echo "$end - $start" | bc)" >>times
}
number=0
jc_commit() { jc-commit "$@" --dir tree <base >new; }
jc_both() { jc_commit "$@" && jc-push -q "$there/jc/x$number" <new; }
buildah_both() {
	"${buildah[@]}" commit -q "$container" "out$number" >/dev/null
	"${buildah[@]}" push -q --tls-verify=false "out$number" "docker://$there/buildah/x$number"
}
copy_jc() { jc-pull -q "$@" "$here/base:many" | jc-push -q "$there/copy-jc/x$number"; }
copy_skopeo() {
	skopeo copy -q --insecure-policy --src-tls-verify=false --dest-tls-verify=false \
		"docker://$here/base:many" "docker://$there/copy-skopeo/x$number"
}
settle() { jc-rmi --unused >/dev/null; sync; }

for number in $(seq "$rounds"); do
	container=$("${buildah[@]}" from --pull=never "$here/base:small")
	"${buildah[@]}" copy -q "$container" tree / >/dev/null
	settle; timed 'commit and push: jc' jc_both
	settle; timed 'commit and push: jc --no-sync' jc_both --no-sync
	settle; timed 'commit and push: buildah' buildah_both
	"${buildah[@]}" rm "$container" >/dev/null
	"${buildah[@]}" rmi "out$number" >/dev/null
	jc-rmi "$here/base:many" >/dev/null 2>&1 || true
	settle; timed 'copy: jc-pull | jc-push, new store' copy_jc
	number=$number-again
	settle; timed 'copy: jc-pull | jc-push, layers in the store' copy_jc
	settle; timed 'copy: skopeo copy' copy_skopeo
done
for name in 'commit and push: jc' 'commit and push: jc --no-sync' 'commit and push: buildah' \
	'copy: jc-pull | jc-push, new store' 'copy: jc-pull | jc-push, layers in the store' 'copy: skopeo copy'; do
	grep -F "$name " times | grep -vF "$name --" | sed 's/.* //' | sort -n |
		awk -v name="$name" '{ all[NR] = $1 } END { printf "| %s | %.2f |\n", name, all[int((NR + 1) / 2)] }'
done

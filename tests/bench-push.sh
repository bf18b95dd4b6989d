#!/bin/bash
# Compares jc-commit and jc-push with buildah, jc-pull | jc-push with skopeo copy between registries on loopback, and a
# run whose changes are kept apart, listed and dropped with a run that has no overlay. The new layer has 300 MB in
# 30,000 files, and the work tree 100,000 files. All files are in a tmpfs. Each run pushes to a new repository, the
# programs run in turn, and the results are medians. Usage: tests/bench-push.sh BIN_DIR [ROUNDS] (root; some 8 GB of
# memory)
# shellcheck source=tests/bench-images.sh
. "$(dirname "$0")/bench-images.sh"
rounds=${2:-5}
need buildah python3
trap 'umount -l "$work"; rmdir "$work"' EXIT
mount -t tmpfs -o size=12g,mode=0700 tmpfs "$work"
cd "$work"
# The kernel splits the page cache of a program that is used for long.
mkdir programs tmp && cp "$bin"/jc-{pull,commit,push,rmi,list,rootfs,changes} programs/
PATH=$work/programs:$PATH
export JC_STORE=$work/store TMPDIR=$work/tmp
here=127.0.0.1:5000 there=127.0.0.1:5001
buildah=(buildah --root "$work/containers" --runroot "$work/run" --storage-driver overlay)

# timed NAME COMMAND...
timed() {
	local start=${EPOCHREALTIME/./}
	"${@:2}" || die "$1 failed"
	echo "$((${EPOCHREALTIME/./} - start)) $1" | tee -a times >&2
}

make_image small 40:13 40:13
make_image many 40:13 40:13 40:13 40:13 40:13 40:13
serve 5000
serve 5001
for tag in small many; do
	upload "$tag" "$here/base:$tag"
done
rm -r oci
make_tree new 300 10 9
make_tree tree 100 1 10
jc-pull -q "$here/base:small" >base
"${buildah[@]}" pull -q --tls-verify=false "docker://$here/base:small" >/dev/null
# The same layer for buildah, in a container that is committed each time.
container=$("${buildah[@]}" from --pull=never "$here/base:small")
"${buildah[@]}" copy -q "$container" new / >/dev/null

number=0
jc_both() { jc-commit "$@" --dir new <base >new.json && jc-push -q "$there/jc/x$number" <new.json; }
buildah_both() {
	"${buildah[@]}" commit -q "$container" "out$number" >/dev/null &&
		"${buildah[@]}" push -q --tls-verify=false "out$number" "docker://$there/buildah/x$number"
}
copy_jc() { jc-pull -q "$@" "$here/base:many" | jc-push -q "$there/copy-jc/x$number"; }
copy_skopeo() {
	skopeo copy -q --insecure-policy --src-tls-verify=false --dest-tls-verify=false \
		"docker://$here/base:many" "docker://$there/copy-skopeo/x$number"
}
# The images of earlier runs, whose layers would not be made or sent again.
forget() {
	jc-rmi "$here/base:many" >/dev/null 2>&1 || true
	jc-rmi --unused >/dev/null
	rm -rf registry-5001/docker/registry/v2/{repositories/*,blobs/sha256/*}
}

echo 'committing, pushing and copying' >&2
# The first round touches memory that the machine has not used yet, and does not count.
for number in $(seq 0 "$rounds"); do
	[ "$number" != 1 ] || : >times
	forget; timed 'commit and push: jc' jc_both
	forget; timed 'commit and push: jc, --no-sync' jc_both --no-sync
	forget; timed 'commit and push: buildah' buildah_both
	"${buildah[@]}" rmi "out$number" >/dev/null
	forget; timed 'copy: jc-pull --no-layers | jc-push' copy_jc --no-layers
	forget; timed 'copy: skopeo copy' copy_skopeo
	forget; timed 'copy: jc-pull | jc-push, new store' copy_jc
	number=$number-again
	timed 'copy: jc-pull | jc-push, layers in the store' copy_jc
done

run_plain() { jc-rootfs -v "$work/tree:/mnt" / -- true; }
run_protected() {
	jc-rootfs -v "$work/tree:/mnt:upper=$work/changes" / -- true && jc-changes "$work/changes" >/dev/null &&
		jc-changes --discard "$work/changes"
}
run_host() { jc-rootfs / -- true; }
run_host_protected() {
	jc-rootfs --upper "$work/changes" / -- true && jc-changes "$work/changes" >/dev/null &&
		jc-changes --discard "$work/changes"
}
echo 'protecting a work tree' >&2
for _ in $(seq $((rounds * 10))); do
	timed 'true: no overlay' run_plain
	timed 'true: the tree protected, listed, discarded' run_protected
	timed 'true: / without overlay' run_host
	timed 'true: / protected, listed, discarded' run_host_protected
done
for program in 'docker-registry --version' 'buildah --version' 'skopeo --version' 'jc-push --version'; do
	$program 2>/dev/null || true
done
python3 - <<'END'
from statistics import median
runs = {}
for line in open('times'):
    microseconds, name = line.rstrip('\n').split(' ', 1)
    runs.setdefault(name, []).append(int(microseconds) / 1e3)
for name, found in runs.items():
    print(f"| {name} | {median(found):.1f} |")
def pairs(mine, theirs, what):
    print(f"{what} {median(what_of(a, b) for a, b in zip(runs[mine], runs[theirs])):.2f}")
what_of = lambda a, b: b / a
pairs('commit and push: jc', 'commit and push: buildah', 'commit and push, times as fast as buildah:')
pairs('copy: jc-pull --no-layers | jc-push', 'copy: skopeo copy', 'copy, times as fast as skopeo:')
what_of = lambda a, b: a - b
pairs('true: the tree protected, listed, discarded', 'true: no overlay', 'the tree, more milliseconds:')
pairs('true: / protected, listed, discarded', 'true: / without overlay', 'the host, more milliseconds:')
END

#!/bin/bash
# Compares jc-pull with the other installed programs that pull images, from a registry on loopback. Each run uses a
# fresh ext4, the programs run in turn, and the results are medians. There are three images: 14 layers in gzip, the
# same layers in zstd, and a single layer in gzip. `floor` is curl, decompressor and tar, two layers at a time,
# without verification and sync. Usage: tests/bench-pull.sh BIN_DIR [ROUNDS [TOOL...]] (root; some 8 GB in TMPDIR)
set -euo pipefail
export LC_ALL=C
bin=$(realpath "$1")
rounds=${2:-3}
wanted=("${@:3}")
die() { echo "${0##*/}: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die 'needs root, for loop devices and true owners'
for needed in docker-registry skopeo umoci mkfs.ext4 openssl curl python3 zstd time; do
	command -v "$needed" >/dev/null || die "$needed is missing"
done

# The mounts and the port of the registry belong to this script, and end with it.
if [ -z "${JC_BENCH_INSIDE-}" ]; then
	JC_BENCH_INSIDE=1 exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$@"
fi
ip link set lo up
work=$(mktemp -d "${TMPDIR:-/var/tmp}/bench-pull.XXXXXX")
trap 'umount -q "$work/mnt" || true; rm -rf "$work"' EXIT
cd "$work"
mkdir mnt registry
repository=127.0.0.1:5000/bench

# Bytes that gzip compresses to a quarter.
stream() {
	set +o pipefail
	paste -d '' <(openssl enc -aes-128-ctr -nosalt -pass "pass:$2" -pbkdf2 -in /dev/zero 2>/dev/null |
		base64 -w 68) <(yes "$(seq -s ' ' "$2" $(($2 + 48)))") | head -c "$1"
	set -o pipefail
}

# The tag, and for each layer its size in MB and the size of its files in KB.
make_image() {
	echo "making the image $1" >&2
	local n=0 mb kb
	umoci new --image "oci:$1"
	for layer in "${@:2}"; do
		n=$((n + 1)) mb=${layer%:*} kb=${layer#*:}
		mkdir -p tree/l$n
		# The files lie in several directories, so that one process can make each directory.
		(cd tree/l$n && export kb && stream $((mb << 20)) $n | split -a 4 -b $((kb * 200))k \
			--filter 'mkdir "$FILE" && split -a 3 -b "${kb}k" - "$FILE/f"' - d)
		tar --numeric-owner --owner=0 --group=0 --sort=name -C tree -cf layer.tar .
		umoci raw add-layer --image "oci:$1" layer.tar
		rm -r tree/l$n layer.tar
	done
}

serve() {
	printf '%s\n' 'version: 0.1' 'log: {accesslog: {disabled: true}, level: error}' \
		"storage: {filesystem: {rootdirectory: $work/registry}}" 'http: {addr: 127.0.0.1:5000}' >registry.yml
	docker-registry serve registry.yml 2>registry.log &
	until (: </dev/tcp/127.0.0.1/5000) 2>/dev/null; do sleep 0.1; done
	python3 - <<'END'
import hashlib, json, os, subprocess
def store(data):
    name = hashlib.sha256(data).hexdigest()
    open('oci/blobs/sha256/' + name, 'wb').write(data)
    return {'digest': 'sha256:' + name, 'size': len(data)}
index = json.load(open('oci/index.json'))
name = lambda entry: entry['annotations']['org.opencontainers.image.ref.name']
image = next(entry for entry in index['manifests'] if name(entry) == 'gzip')
blob = lambda d: 'oci/blobs/' + d['digest'].replace(':', '/')
manifest = json.load(open(blob(image)))
for layer in manifest['layers']:
    tar = subprocess.Popen(['gzip', '-dc', blob(layer)], stdout=subprocess.PIPE)
    packed = subprocess.run(['zstd', '-q', '-3'], stdin=tar.stdout, capture_output=True, check=True)
    layer.update(store(packed.stdout), mediaType='application/vnd.oci.image.layer.v1.tar+zstd')
entry = store(json.dumps(manifest).encode())
entry['mediaType'] = 'application/vnd.oci.image.manifest.v1+json'
entry['annotations'] = {'org.opencontainers.image.ref.name': 'zstd'}
index['manifests'].append(entry)
json.dump(index, open('oci/index.json', 'w'))
END
	for tag in gzip zstd one; do
		skopeo copy -q --insecure-policy --dest-tls-verify=false "oci:oci:$tag" "docker://$repository:$tag"
		curl -fsS -H 'Accept: application/vnd.oci.image.manifest.v1+json' \
			"http://127.0.0.1:5000/v2/bench/manifests/$tag" |
			python3 -c 'import json, sys
for layer in json.load(sys.stdin)["layers"]: print(layer["digest"], layer["size"])' >"layers-$tag"
		echo "$tag: $(awk '{ n += $2 } END { print NR " layers, " int(n / 1e6) " MB compressed" }' "layers-$tag")" >&2
	done
	rm -r oci
}

# Each program pulls $image into $work/mnt.
run_jc-pull() { "$bin/jc-pull" -q --store mnt/s "$image" >/dev/null; }
run_jc-pull--no-sync() { "$bin/jc-pull" -q --no-sync --store mnt/s "$image" >/dev/null; }
floor() {
	cut -d ' ' -f 1 "layers-$tag" | xargs -P2 -I{} sh -c "mkdir mnt/{} &&
		curl -fsS http://127.0.0.1:5000/v2/bench/blobs/{} | $1 | tar -x --numeric-owner -C mnt/{}"
}
run_floor() { if [ "$tag" = zstd ]; then floor 'zstd -dc'; else floor 'gzip -d'; fi; }
run_floor-igzip() { floor 'igzip -d'; }
into() { "$1" --root "$work/mnt/r" --runroot "$work/mnt/rr" --storage-driver overlay pull -q --tls-verify=false "$image" >/dev/null; }
run_buildah() { into buildah; }
run_podman() { into podman; }
run_skopeo-umoci() {
	skopeo copy -q --insecure-policy --src-tls-verify=false "docker://$image" oci:mnt/oci:bench
	umoci raw unpack --image mnt/oci:bench mnt/root >/dev/null 2>&1
}
run_ctr() {
	containerd --root "$work/mnt/c" --state "$work/mnt/cs" --address "$work/mnt/c.sock" 2>/dev/null &
	until ctr -a "$work/mnt/c.sock" version >/dev/null 2>&1; do sleep 0.05; done
	ctr -a "$work/mnt/c.sock" image pull --plain-http "$image" >/dev/null
	kill $!
	wait $! || true
}

if [ ${#wanted[@]} = 0 ]; then
	wanted=(jc-pull jc-pull--no-sync floor skopeo-umoci)
	for tool in igzip buildah podman ctr; do
		if ! command -v "$tool" >/dev/null; then
			echo "$tool is not installed" >&2
		elif [ "$tool" = igzip ]; then
			wanted+=(floor-igzip)
		else
			wanted+=("$tool")
		fi
	done
fi

# One run of $tool on $tag.
measure() {
	mkfs.ext4 -q -F -E nodiscard disk
	mount -o loop disk mnt
	sync
	"$(type -P time)" -o time -f '%e %M %U %S' "$BASH" -c "set -e; image=$repository:$tag tag=$tag \
		work=$work bin=$bin; $(declare -f floor into "run_$tool"); run_$tool" || die "$tool failed on $tag"
	echo "$tag $tool $(cat time)" | tee -a results >&2
	if [ "$tag $tool" = 'gzip jc-pull' ]; then
		# The CPU time of twenty pulls of an unchanged image, in seconds.
		"$(type -P time)" -o again -f '%U %S' "$BASH" -c "for n in {1..20}; do
			'$bin/jc-pull' -q --store mnt/s $repository:$tag; done" >/dev/null
	fi
	umount mnt
}

umoci init --layout oci
# 1.14 GB, 104,000 files.
make_image gzip 240:6 200:1024 160:8 120:16 100:8 80:64 60:12 50:8 40:512 30:10 25:30 15:9 12:12 8:4
make_image one 240:16
serve
# The blocks of the file are allocated before the first run, so that no run has to allocate them.
dd if=/dev/zero of=disk bs=1M count=3072 status=none
sync disk
# The first run touches memory that the machine has not used yet, and does not count.
tag=gzip tool=${wanted[0]}
measure
: >results
for round in $(seq "$rounds"); do
	for tag in gzip zstd one; do
		for tool in "${wanted[@]}"; do
			case "$tool $tag" in
			# These programs cannot pull this image.
			'skopeo-umoci zstd' | 'floor-igzip zstd') ;;
			*) measure ;;
			esac
		done
	done
done
[ ! -s again ] || awk '{ print "a second pull: " ($1 + $2) * 1000 / 20 " ms of CPU" }' again
python3 - <<'END'
from statistics import median
runs = {}
for line in open('results'):
    tag, tool, *numbers = line.split()
    runs.setdefault(tag, {}).setdefault(tool, []).append([float(number) for number in numbers])
for tag, tools in runs.items():
    print(f"{tag:20} {'seconds':>8} {'of jc-pull':>11} {'CPU':>7} {'peak MB':>8}")
    own = tools.get('jc-pull')
    for tool, found in sorted(tools.items(), key=lambda item: median(run[0] for run in item[1])):
        seconds = median(run[0] for run in found)
        # The median of ratios of consecutive runs, since other load is similar for them.
        ratio = f"{median(run[0] / mine[0] for run, mine in zip(found, own)):10.2f}x" if own else ''
        cpu = median(run[2] + run[3] for run in found)
        peak = max(run[1] for run in found) / 1024
        print(f"{tool:20} {seconds:8.2f} {ratio:>11} {cpu:7.2f} {peak:8.0f}")
END

#!/bin/bash
# Compares jc-pull with the other installed programs that pull images, from a registry on loopback. Each run uses a
# fresh ext4, the programs run in turn, and the results are medians. There are three images: 14 layers in gzip, the
# same layers in zstd, and a single layer in gzip. `floor` is curl, decompressor and tar, two layers at a time,
# without verification and sync. `the least` is the time that the fastest decompressor, SHA-256 of all bytes, the
# kernel's part of jc-pull --no-sync and the registry take on all processors without any wait. `dd` writes and syncs as
# many bytes.
# Usage: tests/bench-pull.sh BIN_DIR [ROUNDS [TOOL...]] (root; some 8 GB in TMPDIR)
# JC_PEERS_ROOT is the root directory of the system that the other programs are from, and the decompressors of the
# floors; without it they are the host's.
# shellcheck source=tests/bench-images.sh
. "$(dirname "$0")/bench-images.sh"
rounds=${2:-3}
wanted=("${@:3}")
need mkfs.ext4 curl python3 time
trap 'cd /; umount -q "$work/mnt" || true; umount -l "$work"; rm -rf "$work"' EXIT
# Mounts in the directory are seen from the root of the other programs, too.
mount --bind "$work" "$work"
mount --make-shared "$work"
cd "$work"
mkdir mnt

# The words in front of the other programs, which find the directory at the same path.
enter=()
if [ -n "${JC_PEERS_ROOT-}" ]; then
	for dir in proc sys dev; do mount --rbind "/$dir" "$JC_PEERS_ROOT/$dir"; done
	for dir in run tmp var/tmp; do mount -t tmpfs tmpfs "$JC_PEERS_ROOT/$dir"; done
	mkdir -p "$JC_PEERS_ROOT$work"
	mount --bind "$work" "$JC_PEERS_ROOT$work"
	enter=(chroot "$JC_PEERS_ROOT")
fi
has_peer() { "${enter[@]}" sh -c "command -v $1" >/dev/null; }
has_peer zstd || die 'zstd is missing'
repository=127.0.0.1:5000/bench

# The image `zstd` has the layers of `gzip`.
push_images() {
	serve 5000
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
		upload "$tag" "$repository:$tag"
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
run_floor() { if [ "$tag" = zstd ]; then floor "$enter zstd -dc"; else floor 'gzip -d'; fi; }
run_floor-igzip() { floor "$enter igzip -d"; }
into() { "$1" --root "$work/mnt/r" --runroot "$work/mnt/rr" --storage-driver overlay pull -q --tls-verify=false "$image" >/dev/null; }
run_buildah() { into buildah; }
run_podman() { into podman; }
run_skopeo-umoci() {
	skopeo copy -q --insecure-policy --src-tls-verify=false "docker://$image" oci:mnt/oci:bench
	umoci raw unpack --image mnt/oci:bench mnt/root >/dev/null 2>&1
}
run_dd() { dd if=/dev/zero of=mnt/x bs=1M count="$([ "$tag" = one ] && echo 240 || echo 1140)" conv=fsync status=none; }
run_ctr() {
	containerd --root "$work/mnt/c" --state "$work/mnt/cs" --address "$work/mnt/c.sock" 2>/dev/null &
	until ctr -a "$work/mnt/c.sock" version >/dev/null 2>&1; do sleep 0.05; done
	ctr -a "$work/mnt/c.sock" image pull --plain-http "$image" >/dev/null
	kill $!
	wait $! || true
}

if [ ${#wanted[@]} = 0 ]; then
	wanted=(jc-pull jc-pull--no-sync dd floor skopeo-umoci)
	for tool in igzip buildah podman ctr; do
		if ! has_peer "$tool"; then
			echo "$tool is not installed" >&2
		elif [ "$tool" = igzip ]; then
			wanted+=(floor-igzip)
		else
			wanted+=("$tool")
		fi
	done
fi

case " ${wanted[*]} " in
*' skopeo-umoci '*) skopeo_umoci=$("${enter[@]}" umoci --version) ;;
esac
echo "Linux $(uname -r), $(nproc) processors; $("$bin/jc-pull" --version)" >&2
for program in gzip igzip zstd skopeo umoci buildah podman containerd; do
	! has_peer "$program" || "${enter[@]}" "$program" --version 2>/dev/null | head -n 1 >&2 || true
done

# Whether a program can pull an image. umoci knows zstd from version 0.5 on.
can_pull() {
	case "$1 $2" in
	'skopeo-umoci zstd') [[ ! $skopeo_umoci =~ ' 0.'[0-4]'.' ]] ;;
	'floor-igzip zstd') return 1 ;;
	esac
}

# The CPU time of the registry, in clock ticks (proc_pid_stat(5)).
registry_time() { awk '{ print $14 + $15 }' "/proc/$registry/stat"; }

# One run of $tool on $tag.
measure() {
	local inside=()
	case $tool in
	jc-pull* | dd | floor*) ;;
	*) inside=("${enter[@]}") ;;
	esac
	mkfs.ext4 -q -F -E nodiscard disk
	mount -o loop disk mnt
	sync
	local before
	before=$(registry_time)
	"$(type -P time)" -o time -f '%e %M %U %S' "${inside[@]}" bash -c "set -e; cd $work; image=$repository:$tag \
		tag=$tag work=$work bin=$bin enter='${enter[*]}'; $(declare -f floor into "run_$tool"); run_$tool" ||
		die "$tool failed on $tag"
	echo "$tag $tool $(cat time) $(($(registry_time) - before))" | tee -a results >&2
	if [ "$tag $tool" = 'gzip jc-pull' ]; then
		# The CPU time of twenty pulls of an unchanged image, in seconds.
		"$(type -P time)" -o again -f '%U %S' "$BASH" -c "for n in {1..20}; do
			'$bin/jc-pull' -q --store mnt/s $repository:$tag; done" >/dev/null
	fi
	umount mnt
}

# The user time, in seconds, that decompression takes, and SHA-256 of the layers and of their tars.
user_time() {
	local decoder='gzip -dc'
	! has_peer igzip || decoder="${enter[*]} igzip -dc"
	[ "$tag" != zstd ] || decoder="${enter[*]} zstd -dc"
	"$(type -P time)" -o time -f %U bash -c "set -e; cut -d ' ' -f 1 layers-$tag | while IFS=: read -r _ digest; do
		blob=registry-5000/docker/registry/v2/blobs/sha256/\${digest:0:2}/\$digest/data
		cat \$blob; $decoder <\$blob; done | openssl dgst -sha256" >/dev/null
	echo "$tag $(cat time)" >>least
}

# 1.14 GB, 104,000 files.
make_image gzip 240:6 200:1024 160:8 120:16 100:8 80:64 60:12 50:8 40:512 30:10 25:30 15:9 12:12 8:4
make_image one 240:16
push_images
# The blocks of the file are allocated before the first run, so that no run has to allocate them.
dd if=/dev/zero of=disk bs=1M count=3072 status=none
sync disk
# The first run touches memory that the machine has not used yet, and does not count.
tag=gzip tool=${wanted[0]}
measure
: >results
: >least
for round in $(seq "$rounds"); do
	for tag in gzip zstd one; do
		for tool in "${wanted[@]}"; do
			! can_pull "$tool" "$tag" || measure
			[ "$tool" != jc-pull--no-sync ] || user_time
		done
	done
done
[ ! -s again ] || awk '{ print "a second pull: " ($1 + $2) * 1000 / 20 " ms of CPU" }' again
python3 - <<'END'
import os
from statistics import median
runs = {}
for line in open('results'):
    tag, tool, *numbers = line.split()
    runs.setdefault(tag, {}).setdefault(tool, []).append([float(number) for number in numbers])
least = {}
for line in open('least'):
    tag, seconds = line.split()
    least.setdefault(tag, []).append(float(seconds))
ticks = os.sysconf('SC_CLK_TCK')
for tag, tools in runs.items():
    if tag in least:
        kernel = [run[3] + run[4] / ticks for run in tools['jc-pull--no-sync']]
        parts = zip(least[tag], kernel)
        tools['the least'] = [[sum(part) / os.cpu_count(), 0, *part] for part in parts]
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

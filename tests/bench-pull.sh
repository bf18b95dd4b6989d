#!/bin/bash
# Measures jc-pull against what else pulls images here: an image of 14 layers from a registry on
# loopback, each run on a fresh ext4, everybody in turn, medians in the end.
# Usage: tests/bench-pull.sh BIN_DIR [ROUNDS]     (root; some 8 GB in TMPDIR)
set -euo pipefail
export LC_ALL=C
bin=$(realpath "$1")
rounds=${2:-3}
die() { echo "${0##*/}: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die 'needs root, for loop devices and true owners'
for needed in docker-registry skopeo umoci mkfs.ext4 openssl curl python3 zstd time; do
	command -v "$needed" >/dev/null || die "$needed is missing"
done

# Mounts and the registry's port are this script's own, and end with it.
if [ -z "${JC_BENCH_INSIDE-}" ]; then
	JC_BENCH_INSIDE=1 exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$@"
fi
ip link set lo up
work=$(mktemp -d "${TMPDIR:-/var/tmp}/bench-pull.XXXXXX")
trap 'umount -q "$work/mnt" || true; rm -rf "$work"' EXIT
cd "$work"
mkdir mnt registry
image=127.0.0.1:5000/bench:latest
zstd_image=127.0.0.1:5000/bench:zstd

# So many bytes that gzip makes a quarter of.
stream() {
	set +o pipefail
	paste -d '' <(openssl enc -aes-128-ctr -nosalt -pass "pass:$2" -pbkdf2 -in /dev/zero 2>/dev/null |
		base64 -w 68) <(yes "$(seq -s ' ' "$2" $(($2 + 48)))") | head -c "$1"
	set -o pipefail
}

make_image() {
	echo 'making the image' >&2
	umoci init --layout oci
	umoci new --image oci:bench
	local n=0 mb kb
	# What a layer holds in MB, and how long its files are in KB: 1.14 GB, 102,000 files.
	for layer in 240:4 200:1024 160:8 120:16 100:6 80:64 60:10 50:5 40:512 30:7 25:30 15:9 12:12 8:3; do
		n=$((n + 1)) mb=${layer%:*} kb=${layer#*:}
		mkdir -p tree/l$n
		# Some hundred files in a directory, so that a process can make them all.
		(cd tree/l$n && export kb && stream $((mb << 20)) $n | split -a 4 -b $((kb * 200))k \
			--filter 'mkdir "$FILE" && split -a 3 -b "${kb}k" - "$FILE/f"' - d)
		tar --numeric-owner --owner=0 --group=0 --sort=name -C tree -cf layer.tar .
		umoci raw add-layer --image oci:bench layer.tar
		rm -r tree/l$n layer.tar
	done
	echo "$(du -sm oci | cut -f1) MB compressed" >&2
}

serve() {
	printf '%s\n' 'version: 0.1' 'log: {accesslog: {disabled: true}, level: error}' \
		"storage: {filesystem: {rootdirectory: $work/registry}}" 'http: {addr: 127.0.0.1:5000}' >registry.yml
	docker-registry serve registry.yml 2>registry.log &
	until (: </dev/tcp/127.0.0.1/5000) 2>/dev/null; do sleep 0.1; done
	skopeo copy -q --insecure-policy --dest-tls-verify=false oci:oci:bench docker://$image
	python3 - <<'END'
import hashlib, json, os, subprocess
def store(data):
    name = hashlib.sha256(data).hexdigest()
    open('oci/blobs/sha256/' + name, 'wb').write(data)
    return {'digest': 'sha256:' + name, 'size': len(data)}
index = json.load(open('oci/index.json'))
blob = lambda d: 'oci/blobs/' + d['digest'].replace(':', '/')
manifest = json.load(open(blob(index['manifests'][0])))
for layer in manifest['layers']:
    tar = subprocess.Popen(['gzip', '-dc', blob(layer)], stdout=subprocess.PIPE)
    packed = subprocess.run(['zstd', '-q', '-3'], stdin=tar.stdout, capture_output=True, check=True)
    layer.update(store(packed.stdout), mediaType='application/vnd.oci.image.layer.v1.tar+zstd')
index['manifests'][0].update(store(json.dumps(manifest).encode()))
index['manifests'][0]['annotations'] = {'org.opencontainers.image.ref.name': 'zstd'}
json.dump(index, open('oci/index.json', 'w'))
END
	skopeo copy -q --insecure-policy --dest-tls-verify=false oci:oci:zstd docker://$zstd_image
	curl -fsS -H 'Accept: application/vnd.oci.image.manifest.v1+json' \
		http://127.0.0.1:5000/v2/bench/manifests/latest |
		python3 -c 'import json, sys; [print(l["digest"]) for l in json.load(sys.stdin)["layers"]]' >layers
	rm -r oci
}

# Everybody pulls into $work/mnt.
run_jc-pull() { "$bin/jc-pull" -q --store mnt/s $image >/dev/null; }
run_jc-pull-zstd() { "$bin/jc-pull" -q --store mnt/s $zstd_image >/dev/null; }
run_floor() {
	xargs -P2 -I{} sh -c 'mkdir mnt/{} && curl -fsS http://127.0.0.1:5000/v2/bench/blobs/{} |
		gzip -d | tar -x --numeric-owner -C mnt/{}' <layers
}
run_buildah() { buildah --root "$work/mnt/r" --runroot "$work/mnt/rr" --storage-driver overlay pull -q --tls-verify=false $image >/dev/null; }
run_podman() { podman --root "$work/mnt/r" --runroot "$work/mnt/rr" --storage-driver overlay pull -q --tls-verify=false $image >/dev/null; }
run_skopeo-umoci() {
	skopeo copy -q --insecure-policy --src-tls-verify=false docker://$image oci:mnt/oci:bench
	umoci raw unpack --image mnt/oci:bench mnt/root >/dev/null 2>&1
}
run_ctr() {
	containerd --root "$work/mnt/c" --state "$work/mnt/cs" --address "$work/mnt/c.sock" 2>/dev/null &
	until ctr -a "$work/mnt/c.sock" version >/dev/null 2>&1; do sleep 0.05; done
	ctr -a "$work/mnt/c.sock" image pull --plain-http $image >/dev/null
	kill $!
	wait $! || true
}

tools=(jc-pull jc-pull-zstd floor skopeo-umoci)
for tool in buildah podman ctr; do
	if command -v "$tool" >/dev/null; then tools+=("$tool"); else echo "$tool is not installed" >&2; fi
done

make_image
serve
truncate -s 6G disk
for round in $(seq "$rounds"); do
	for tool in "${tools[@]}"; do
		mkfs.ext4 -q -F disk
		mount -o loop disk mnt
		sync
		"$(type -P time)" -o time -f '%e %M %U %S' "$BASH" -c "set -e; image=$image zstd_image=$zstd_image \
			work=$work bin=$bin; $(declare -f "run_$tool"); run_$tool" || die "$tool failed"
		echo "$tool $(cat time)" | tee -a results >&2
		[ "$tool" != jc-pull ] || [ "$round" != 1 ] || {
			# A second pull of what has not changed: CPU seconds.
			"$(type -P time)" -o time -f '%U %S' "$bin/jc-pull" -q --store mnt/s $image >/dev/null
			echo "again: user and system seconds $(cat time)"
		}
		umount mnt
	done
done
python3 - <<'END'
import statistics
found = {}
for line in open('results'):
    tool, *numbers = line.split()
    found.setdefault(tool, []).append([float(number) for number in numbers])
median = lambda runs, of: statistics.median(of(*run) for run in runs)
own = median(found['jc-pull'], lambda e, m, u, s: e)
print(f"{'tool':14} {'seconds':>8} {'of jc-pull':>11} {'CPU':>7} {'peak MB':>8}")
for tool, runs in sorted(found.items(), key=lambda item: median(item[1], lambda e, m, u, s: e)):
    seconds = median(runs, lambda e, m, u, s: e)
    cpu = median(runs, lambda e, m, u, s: u + s)
    peak = max(run[1] for run in runs) / 1024
    print(f"{tool:14} {seconds:8.2f} {seconds / own:10.2f}x {cpu:7.2f} {peak:8.0f}")
END

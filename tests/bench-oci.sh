#!/bin/bash
# How long an OCI runtime takes to run one bundle from its start to its end, and podman with each runtime: all in turn, medians.
# Usage: tests/bench-oci.sh BIN_DIR [ROUNDS]     (root)
# JC_PEERS_ROOT is the root directory of the system that podman, crun and runc are from; without it they are the host's.
set -euo pipefail
export LC_ALL=C
rounds=${2:-200}
[ "$(id -u)" = 0 ] || { echo "${0##*/}: needs root" >&2; exit 1; }

# The namespaces end with this script.
if [ -z "${JC_BENCH_INSIDE-}" ]; then
	JC_BENCH_INSIDE=1 exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$(realpath "$1")" "$rounds"
fi
here=$(realpath "$(dirname "$0")")
ip link set lo up
mount -t tmpfs tmpfs /run
mkdir -p /run/bench/root/{bin,proc,dev,sys} /run/bench/bin /run/bench/bundle
install "$1"/jc-* /run/bench/bin
cd /run/bench
echo 'int main(void) { return 0; }' >true.c
cc -static -O2 -o root/bin/true true.c
cc -static -O2 -o bench "$here/bench-start.c"
# crun refuses hybrid hierarchies.
! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified

# bundle LINES: the bundle with more lines in its part for Linux.
bundle() {
	cat >bundle/config.json <<-END
		{"ociVersion": "1.0.2", "root": {"path": "/run/bench/root"}, "hostname": "bench",
		 "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true,
		  "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}},
		 "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
		  {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
		  {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
		  {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
		  {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}],
		 "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
		  "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
		  "readonlyPaths": ["/proc/bus", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]$1}}
	END
}

cat >storage.conf <<'END'
[storage]
driver = "overlay"
runroot = "/run/bench/containers"
graphroot = "/run/bench/storage"
END
cat >containers.conf <<'END'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
tmp_dir = "/run/bench/libpod"
END
export CONTAINERS_CONF=/run/bench/containers.conf CONTAINERS_STORAGE_CONF=/run/bench/storage.conf PODMAN_IGNORE_CGROUPSV1_WARNING=1

# From here on the programs are those of the peers' system, and ours.
if [ -n "${JC_PEERS_ROOT-}" ]; then
	mount --bind "$JC_PEERS_ROOT" "$JC_PEERS_ROOT"
	for dir in proc sys dev run; do mount --rbind "/$dir" "$JC_PEERS_ROOT/$dir"; done
	mount -t tmpfs tmpfs "$JC_PEERS_ROOT/tmp"
	cd "$JC_PEERS_ROOT"
	pivot_root . mnt
	cd /
	umount -l /mnt
fi
mount -t tmpfs tmpfs /var/tmp
export PATH=/run/bench/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /run/bench

runtimes() {
	commands=("jc-oci run --bundle /run/bench/bundle jc-bench")
	for runtime in crun runc; do
		! command -v $runtime >/dev/null || commands+=("$runtime run --bundle /run/bench/bundle jc-bench")
	done
	./bench time "$rounds" "${commands[@]}"
}
echo 'A bundle with limits on memory and processes'
bundle ', "cgroupsPath": "/jc-bench", "resources": {"memory": {"limit": 268435456}, "pids": {"limit": 100}}'
runtimes
if command -v podman >/dev/null && command -v crun >/dev/null; then
	echo 'podman run'
	podman="run --rm --network none --log-driver none --rootfs /run/bench/root true"
	./bench time "$rounds" "podman --runtime /run/bench/bin/jc-oci $podman" "podman --runtime crun $podman"
fi
# Where controllers are in hierarchies of version 1, a group of version 2 can be made all the same.
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
	umount -R /sys/fs/cgroup
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
echo 'A bundle in a cgroup of version 2, without limits'
bundle ', "cgroupsPath": "/jc-bench"'
runtimes
# The rules for each container of this machine.
profile=/usr/share/containers/seccomp.json
if [ -e $profile ] && command -v jq >/dev/null; then
	filter=$(jq -c '{defaultAction, defaultErrnoRet, syscalls: [.syscalls[]
		| select((.excludes // {}) == {} and (.includes.caps // []) == [] and (.includes.arches // ["amd64"] | index("amd64")))
		| {names, action, args, errnoRet} | with_entries(select(.value != null))]}' $profile)
	echo "The same with the filter of an engine, of ${#filter} bytes"
	bundle ", \"cgroupsPath\": \"/jc-bench\", \"seccomp\": $filter"
	runtimes
fi

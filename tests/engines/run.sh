#!/bin/sh
# Drives an OCI runtime by an engine: runs the checks of tests/engines/ENGINE.sh, in namespaces of its own and in a control
# group of its own, with the engine's storage on a tmpfs. Prints a line for each check, and ends with 1 if any failed.
# Usage: tests/engines/run.sh ENGINE RUNTIME     (root)
# JC_ENGINE_LOG=FILE has the command line of each call of the runtime appended to FILE.
set -u
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
here=$(cd "$(dirname "$0")" && pwd)

hierarchies() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts; }

# Inside: the engine sees the hierarchies from the group of this script, with version 1 alone where controllers are in it.
if [ -n "${JC_ENGINE_INSIDE-}" ]; then
	engine=$1 runtime=$2
	# Bridges of the engine end with this network.
	ip link set lo up
	mount --make-rprivate /
	controllers=$(awk '$3 == "cgroup" { print $2 }' /proc/self/mounts)
	umount -R -l /sys/fs/cgroup
	if [ -n "$controllers" ]; then
		mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
		for dir in $controllers; do
			name=${dir##*/}
			mkdir "$dir"
			case $name in
			systemd) options=none,name=systemd ;;
			*) options=$name ;;
			esac
			mount -t cgroup -o "$options" cgroup "$dir"
		done
		version=1
	else
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
		mkdir /sys/fs/cgroup/engine
		echo $$ >/sys/fs/cgroup/engine/cgroup.procs
		for name in $(cat /sys/fs/cgroup/cgroup.controllers); do
			echo "+$name" >/sys/fs/cgroup/cgroup.subtree_control
		done
		version=2
	fi
	for dir in /run /var/tmp; do mount -t tmpfs tmpfs $dir; done
	work=/run/engine
	mkdir -p "$work/bin" "$work/tmp" && cd "$work" || exit 1
	export TMPDIR="$work/tmp" HOME="$work"
	if [ -n "${JC_ENGINE_LOG-}" ]; then
		printf '#!/bin/sh\necho "$0 $*" >>%s\nexec %s "$@"\n' "$JC_ENGINE_LOG" "$runtime" >"bin/${runtime##*/}"
		chmod 755 "bin/${runtime##*/}"
		runtime=$work/bin/${runtime##*/}
	fi
	failed=0
	ok() { echo "ok: $1"; }
	not_ok() { echo "not ok: $1: $2"; failed=1; }
	# is NAME FOUND EXPECTED
	is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "got <$2>, not <$3>"; fi; }
	# like NAME FOUND PATTERN: a pattern of the shell.
	like() { case $2 in $3) ok "$1" ;; *) not_ok "$1" "got <$2>, not <$3>" ;; esac; }
	# by_runtime OURS RUNC: what is expected where the runtimes differ.
	by_runtime() { case $runtime in */runc) echo "$2" ;; *) echo "$1" ;; esac; }
	has_all_capabilities=no
	# A set of all capabilities is one less than a power of two.
	set=$((0x$(awk '$1 == "CapBnd:" { print $2 }' /proc/self/status)))
	[ $((set & (set + 1))) -ne 0 ] || has_all_capabilities=yes
	# readme WORDS: the lines of code after the words in README.md, with the runtime of this script.
	readme() {
		awk -v words="$1" 'found && /^    / { print substr($0, 5); shown = 1 } shown && !/^    / { exit } index($0, words) { found = 1 }' \
			"$here/../../README.md" | sed "s|/usr/bin/jc-oci|$runtime|; s|/run/jc-oci|$work/containers|"
	}
	# until_true COMMAND...: waits until it succeeds, for 20 seconds at most.
	until_true() {
		deadline=$(($(date +%s) + 20))
		until "$@" >/dev/null 2>&1; do
			[ "$(date +%s)" -lt $deadline ] || return 1
			sleep 0.05
		done
	}
	# terminal COMMAND: a line of shell, with a terminal as its standard streams.
	terminal() { script -qec "$1" -E never /dev/null </dev/null | tr -d '\r\000' | sed 's/\^@//; /^$/d'; }
	. "$here/image.sh"
	. "$here/$engine.sh"
	exit $failed
fi

[ $# = 2 ] && [ -e "$here/$1.sh" ] || { echo "usage: ${0##*/} ENGINE RUNTIME" >&2; exit 2; }
runtime=$(command -v "$2") || { echo "${0##*/}: $2: not found" >&2; exit 1; }
runtime=$(realpath "$runtime")
group=jc-engine-$1-$(cut -c 1-8 /proc/sys/kernel/random/uuid)
for dir in $(hierarchies); do
	mkdir "$dir/$group" || exit 1
	# A group without CPUs and memory nodes takes no process.
	for file in cpuset.cpus cpuset.mems; do
		[ ! -e "$dir/$group/$file" ] || [ "$(stat -f -c %T "$dir")" = cgroup2fs ] || cat "$dir/$file" >"$dir/$group/$file"
	done
done
JC_ENGINE_INSIDE=1 sh -c '
	group=$1; shift
	for dir in $(awk '\''$3 == "cgroup" || $3 == "cgroup2" { print $2 }'\'' /proc/self/mounts); do
		echo $$ >"$dir/$group/cgroup.procs" || exit
	done
	exec unshare -C -m -n -u --kill-child "$@"' sh "$group" "$0" "$1" "$runtime"
status=$?
# Groups of engines may stay, but no process may be in them. podman does not wait for the end of a process that it kills.
for dir in $(hierarchies); do
	tries=0
	while left=$(find "$dir/$group" -name cgroup.procs -exec cat {} + 2>/dev/null); [ -n "$left" ] && [ $tries -lt 40 ]; do
		tries=$((tries + 1))
		sleep 0.05
	done
	for pid in $left; do
		echo "not ok: no process is left: $pid $(tr '\0' ' ' <"/proc/$pid/cmdline")"
		status=1
		kill -KILL "$pid"
	done
	tries=0
	until find "$dir/$group" -depth -type d -exec rmdir {} + 2>/dev/null || [ $tries = 40 ]; do
		tries=$((tries + 1))
		sleep 0.05
	done
	[ ! -e "$dir/$group" ] || { echo "not ok: no group is left: $dir/$group"; status=1; }
done
exit $status

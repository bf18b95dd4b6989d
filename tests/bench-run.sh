#!/bin/bash
# Measures the time of a container from start to end, compared with the other installed programs that start
# containers. The programs run in turn, and the results are medians. Then two loops side by side measure starts a
# second. gnuplot(1), if it is installed, draws the medians with the 10th and the 90th percentile.
# Usage: tests/bench-run.sh BIN_DIR [ROUNDS] (root)
set -euo pipefail
export LC_ALL=C
bin=$(realpath "$1")
rounds=${2:-200}
here=$(realpath "$(dirname "$0")")
plot=${JC_PLOTS:-${bin%/*}}/bench-start.svg
[ "$(id -u)" = 0 ] || { echo "${0##*/}: needs root" >&2; exit 1; }

# Mounts, bridge and state directories belong to this script, and end with it.
if [ -z "${JC_BENCH_INSIDE-}" ]; then
	JC_BENCH_INSIDE=1 exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$@"
fi
export PATH=$bin:$PATH
ip link set lo up
mount -t tmpfs tmpfs /run
work=$(mktemp -d "${TMPDIR:-/tmp}/jc-bench-run.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p root/bin root/etc root/proc root/dev root/sys
echo 'int main(void) { return 0; }' >true.c
cc -static -O2 -o root/bin/true true.c
touch root/etc/hosts root/etc/hostname root/etc/resolv.conf

limits='-m 256M --pids-limit 100'
commands=() others=()
# A C program that makes the same system calls, once without network, limits, state and hardening, and once with them.
if cc -static -O2 -o floor "$here/bench-start.c" 2>/dev/null; then
	others+=("C, bare=./floor floor $work/root" "C=./floor container $work/root")
fi
commands+=("jc-run=jc-run $limits --rootfs $work/root --network none -- true")
commands+=("jc-run, no limits=jc-run --rootfs $work/root --network none -- true")
if command -v bwrap >/dev/null; then
	others+=("bwrap=bwrap --unshare-user-try --unshare-pid --unshare-uts --unshare-ipc --unshare-cgroup --unshare-net --die-with-parent --bind $work/root / --proc /proc --dev /dev true")
fi
# The default configuration of crun depends on the version of cgroups. crun refuses hybrid hierarchies, so it gets
# those of version 1 alone.
bundle() {
	mkdir -p bundle
	rm -f bundle/config.json
	(cd bundle && crun spec && jq --arg root "$work/root" '.root = {path: $root}
		| .process.terminal = false | .process.args = ["true"] | '"$1" config.json >new && mv new config.json)
	commands+=("crun=crun run --bundle $work/bundle jc-bench")
}
mounted=$(awk '$5 ~ "^/sys/fs/cgroup/" {print $5}' /proc/self/mountinfo)
if command -v crun >/dev/null; then
	if [ -n "$mounted" ]; then
		mkdir groups
		mount -t tmpfs tmpfs groups
		for mount in $mounted; do
			[ "$mount" != /sys/fs/cgroup/unified ] || continue
			mkdir "groups/${mount##*/}"
			mount --move "$mount" "groups/${mount##*/}"
		done
		umount -l /sys/fs/cgroup
		mount --move groups /sys/fs/cgroup
	fi
	bundle '.linux.resources.memory = {limit: 268435456} | .linux.resources.pids = {limit: 100}'
fi

cat >measure.py <<'END'
import os, statistics, sys, time

rounds = int(sys.argv[1])
commands = dict(word.split("=", 1) for word in sys.argv[2:])
null = os.open("/dev/null", os.O_RDWR)

def start(words):
    actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1)]
    return os.posix_spawnp(words[0], words, os.environ, file_actions=actions)

def run(words):
    begin = time.perf_counter()
    pid = start(words)
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - begin
    if status:
        raise SystemExit("%s: failed (%d)" % (" ".join(words), os.waitstatus_to_exitcode(status)))
    return took * 1e3

commands = {name: line.split() for name, line in commands.items()}
for name in list(commands):
    try:
        run(commands[name])
    except (SystemExit, OSError) as error:
        print("left out:", name, error)
        del commands[name]
times = {name: [] for name in commands}
pause = float(os.environ.get("PAUSE", 0))
for round in range(rounds):
    for name, words in commands.items():
        # A program that takes a hundred times as long runs less often.
        if name != "podman" or round % 20 == 0:
            time.sleep(pause)
            times[name].append(run(words))

def loops(words, seconds=3):
    """Starts a second of two loops side by side."""
    if "jc-bench" in words:
        return float("nan")  # one name, one container
    end, done, running = time.perf_counter() + seconds, 0, set()
    while time.perf_counter() < end or running:
        while len(running) < 2 and time.perf_counter() < end:
            running.add(start(words))
        pid, _ = os.wait()
        running.discard(pid)
        done += 1
    return done / seconds

ours = statistics.median(times["jc-run"])
print("%-20s %10s %10s %10s %12s %14s" % ("", "p10 ms", "median ms", "p90 ms", "to jc-run", "starts/s, two"))
plot = open("plot.dat", "a")
for name, took in times.items():
    median = statistics.median(took)
    p10, p90 = sorted(took)[len(took) // 10], sorted(took)[len(took) * 9 // 10]
    rate = loops(commands[name])
    print("%-20s %10.2f %10.2f %10.2f %12.2f %14.0f" % (name, p10, median, p90, median / ours, rate))
    print('"%s" %.3f %.3f %.3f' % (name, p10, median, p90), file=plot)
print("\n", file=plot)
END

echo "With limits on memory and processes"
python3 measure.py "$rounds" "${commands[@]}" "${others[@]}"

# These runs start alone and from rest, since the kernel removes a veth pair for some milliseconds after the end,
# which slows the next start down.
commands=("jc-run=jc-run $limits --rootfs $work/root -- true")
commands+=("jc-run, no network=jc-run $limits --rootfs $work/root --network none -- true")
if command -v podman >/dev/null; then
	podman="podman --root $work/podman --runroot /run/podman --cgroup-manager cgroupfs"
	commands+=("podman=$podman run --rm --memory 256m --rootfs $work/root true")
fi
printf '\nWith limits and a bridge\n'
PAUSE=0.03 python3 measure.py "$rounds" "${commands[@]}"

# A cgroup of version 2 can be made also where the controllers are in hierarchies of version 1.
titles=('limits' 'limits and a bridge')
if [ -n "$mounted" ]; then
	umount -R /sys/fs/cgroup
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	commands=("jc-run=jc-run --cgroup-parent / --rootfs $work/root --network none -- true")
	commands+=("jc-run, no group=jc-run --rootfs $work/root --network none -- true")
	! command -v crun >/dev/null || bundle 'del(.linux.resources)'
	printf '\nIn a cgroup of version 2, without limits\n'
	python3 measure.py "$rounds" "${commands[@]}" "${others[@]}"
	titles+=('a cgroup of version 2')
fi

command -v gnuplot >/dev/null || exit 0
{
	printf 'set terminal svg size %d,420 dynamic background rgb "white"\n' $((${#titles[@]} * 400))
	printf 'set output "%s"\n' "$plot"
	printf 'set multiplot layout 1,%d\n' ${#titles[@]}
	printf 'set style fill solid 0.4; set boxwidth 0.7; unset key; set grid y\n'
	printf 'set ylabel "milliseconds"; set yrange [0:*]; set xtics rotate by 30 right noenhanced\n'
	for i in "${!titles[@]}"; do
		printf 'set title "%s"\nplot "plot.dat" index %d using 0:3:xtic(1) with boxes, ' "${titles[i]}" "$i"
		printf '"" index %d using 0:3:2:4 with yerrorbars linecolor "black" pointtype 0\n' "$i"
	done
} | gnuplot
printf '\n%s\n' "$plot"

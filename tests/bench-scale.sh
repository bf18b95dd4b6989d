#!/bin/bash
# Measures the time of a container from start to end as a function of the containers that start beside it, and of those
# that run. The growth is that of the time, and is compared with the growth of a C program that makes the same system
# calls. Prints the kernel locks that the starts wait for if perf(1) is installed, and draws the growth if gnuplot(1) is.
# Usage: tests/bench-scale.sh BIN_DIR [SECONDS_OF_A_ROUND] [KEPT] (root)
set -euo pipefail
export LC_ALL=C
bin=$(realpath "$1")
seconds=${2:-1}
kept=${3:-1000}
here=$(realpath "$(dirname "$0")")
[ "$(id -u)" = 0 ] || { echo "${0##*/}: needs root" >&2; exit 1; }
plot=${JC_PLOTS:-${bin%/*}}/bench-scale.svg

# Mounts, bridge, containers and state directories belong to this script, and end with it.
if [ -z "${JC_BENCH_INSIDE-}" ]; then
	JC_BENCH_INSIDE=1 exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$@"
fi
ip link set lo up
mount -t tmpfs tmpfs /run
mkdir -p /run/bench/root/{bin,etc,proc,dev,sys} /run/bench/bin
install "$bin"/jc-* /run/bench/bin
export PATH=/run/bench/bin:$PATH
cd /run/bench
touch root/etc/hosts root/etc/hostname root/etc/resolv.conf
echo 'int main(void) { return 0; }' >true.c
printf '#include <unistd.h>\nint main(void) { return pause(); }\n' >pause.c
cc -static -O2 -o root/bin/true true.c
cc -static -O2 -o root/bin/pause pause.c
cc -static -O2 -o floor "$here/bench-start.c"

cat >scale.py <<'END'
import os, statistics, subprocess, sys, time

SECONDS, KEPT = float(sys.argv[1]), int(sys.argv[2])
ROOT = "/run/bench/root"
RUN = ["jc-run", "--rootfs", ROOT]
PROGRAMS = {
    "C": ["./floor", "container", ROOT],
    "jc-run": RUN + ["--network", "none", "--", "true"],
    "jc-run, limits": RUN + ["-m", "256M", "--pids-limit", "100", "--network", "none", "--", "true"],
    "jc-run, bridge": RUN + ["--", "true"],
}
null = os.open("/dev/null", os.O_RDWR)
errors = os.open("errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def start(words):
    actions = [(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in ((null, 0), (null, 1), (errors, 2))]
    return os.posix_spawnp(words[0], words, os.environ, file_actions=actions)

def check(words, status):
    if status:
        sys.exit("%s: failed (%d): %s" % (" ".join(words), status, open("errors").read()))

def loops(words, side_by_side):
    """Milliseconds a start, of several loops side by side."""
    begin = time.perf_counter()
    running, done = set(), 0
    while running or time.perf_counter() < begin + SECONDS:
        while len(running) < side_by_side and time.perf_counter() < begin + SECONDS:
            running.add(start(words))
        pid, status = os.wait()
        check(words, status)
        running.discard(pid)
        done += 1
    return (time.perf_counter() - begin) * side_by_side / done * 1e3

def alone(names, rounds):
    """The median and the deciles of single starts, in turn."""
    times = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            begin = time.perf_counter()
            _, status = os.waitpid(start(PROGRAMS[name]), 0)
            times[name].append((time.perf_counter() - begin) * 1e3)
            check(PROGRAMS[name], status)
    return {name: statistics.quantiles(took, n=10) for name, took in times.items()}

def table(title, column, rows, data):
    """Prints times and their growth, relative to the first row and to the growth of C."""
    print("\n%s\n%-10s" % (title, column) + "".join("%28s" % name for name in PROGRAMS))
    print("%-10s" % "" + "".join("%28s" % "ms  growth  to C's" for _ in PROGRAMS))
    for row in rows:
        cells = ""
        for name in PROGRAMS:
            growth = data[row][name] / data[rows[0]][name]
            floor = data[row]["C"] / data[rows[0]]["C"]
            cells += "%14.2f %6.2f %6.2f" % (data[row][name], growth, growth / floor)
        print("%-10d%s" % (row, cells), flush=True)
    with open(column + ".dat", "w") as file:
        for row in rows:
            print(row, *("%.3f" % data[row][name] for name in PROGRAMS), file=file)

print("%d processors, Linux %s" % (os.cpu_count(), os.uname().release))
print("\n".join(sorted({subprocess.check_output([w[0], "--version"], text=True).strip() for w in PROGRAMS.values() if w[0] != "./floor"})))
counts = [1, 2, 4, 8, 16]
data = {}
for count in counts:
    # The programs in turn, since the machine may change its speed meanwhile.
    rounds = [{name: loops(words, count) for name, words in PROGRAMS.items()} for _ in range(5)]
    data[count] = {name: statistics.median(round[name] for round in rounds) for name in PROGRAMS}
table("Loops side by side, milliseconds a start", "loops", counts, data)

rows = [0] + [max(1, KEPT * part // 100) for part in (10, 25, 50, 100)]
data, running, names = {}, 0, list(PROGRAMS)
for row in rows:
    while running < row:
        words = RUN + ["-d", "--network", "none", "--", "pause"]
        check(words, os.waitpid(start(words), 0)[1])
        running += 1
    data[row] = {name: deciles[4] for name, deciles in alone(names, 60).items()}
table("Containers that run, median milliseconds of a start alone", "containers", rows, data)
END
python3 scale.py "$seconds" "$kept"

# The callers of the kernel's lock functions, while eight loops start containers.
if command -v perf >/dev/null; then
	cat >load.sh <<-'END'
		for _ in 1 2 3 4 5 6 7 8; do
			while [ ! -e stop ]; do jc-run --rootfs /run/bench/root "$@" -- true || exit; done >load.log 2>&1 </dev/null &
		done
		sleep 3
		: >stop
		wait
		rm stop
	END
	for network in none bridge; do
		printf '\nLocks of eight loops, --network %s\n' "$network"
		perf lock record -q -a -o locks -- bash load.sh --network $network >perf.log 2>&1 || cat perf.log
		perf lock contention -i locks -E 12 2>&1 || :
	done
fi

if command -v gnuplot >/dev/null; then
	gnuplot <<-END
		set terminal svg size 900,420 dynamic background rgb "white"
		set output "$plot"
		set multiplot layout 1,2
		set key top left; set grid; set ylabel "milliseconds a start"
		names = "C 'jc-run' 'jc-run, limits' 'jc-run, bridge'"
		set xlabel "loops side by side"; set logscale xy 2
		plot for [i=1:4] "loops.dat" using 1:i+1 with linespoints title word(names, i)
		unset logscale; set xlabel "containers that run"; set yrange [0:*]
		plot for [i=1:4] "containers.dat" using 1:i+1 with linespoints title word(names, i)
	END
	printf '\n%s\n' "$plot"
fi

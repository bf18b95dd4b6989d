#!/bin/bash
# Compares jc-egress with pasta: the time added to a start, the throughput of one stream, connections a second,
# memory.
# Usage: tests/bench-egress.sh BIN, as root. RUNS and SECONDS_EACH make it longer.
set -euo pipefail
bin=$(cd "$1" && pwd)
if [ -z "${JC_BENCH_INSIDE-}" ]; then
	JC_BENCH_INSIDE=1 exec unshare -mn --propagation private "$0" "$@"
fi
mount -t tmpfs tmpfs /srv
cp "$bin"/jc-egress "$bin"/jc-net "$bin"/jc-unshare /srv/
ip link set lo up
ip addr add 203.0.113.20/32 dev lo
# pasta takes its addresses from the link of the default route.
ip link add up0 type veth peer name up1
ip addr add 192.0.2.2/24 dev up0
ip link set up0 up
ip link set up1 up
ip route add default via 192.0.2.1
export PATH=/srv:$PATH
trap 'kill $(jobs -p) 2>/dev/null || :' EXIT

# The median of N starts, in milliseconds.
starts() {
	local n
	for n in $(seq "${RUNS:-41}"); do
		local from=$EPOCHREALTIME
		"$@" >/dev/null
		local to=$EPOCHREALTIME
		echo $(((${to/./} - ${from/./})))
	done | sort -n | awk '{ all[NR] = $1 } END { printf "%.2f\n", all[int((NR + 1) / 2)] / 1000 }'
}

egress=(jc-egress --only-network --allow 203.0.113.20:5201,7000 --)
bare=(jc-egress --allow 203.0.113.20:5201,7000 --)
pasta=(jc-unshare -U -r -- jc-net --network pasta --)
echo "start: jc-net --network none $(starts jc-net --network none -- true) ms"
echo "start: jc-egress --only-network $(starts "${egress[@]}" true) ms"
echo "start: jc-egress $(starts "${bare[@]}" true) ms"
! command -v pasta >/dev/null || echo "start: pasta $(starts "${pasta[@]}" true) ms"

iperf3 -s -B 203.0.113.20 >/dev/null 2>&1 &
python3 "$(dirname "$0")/tests/egress_support/server.py" >/dev/null &
sleep 1
stream() {
	local reverse
	for reverse in "" -R; do
		"$@" iperf3 -c 203.0.113.20 -t "${SECONDS_EACH:-5}" $reverse -J | jq -r '.end.sum_received.bits_per_second / 1e9' |
			xargs printf "%.1f "
	done
}
echo "stream, there and back (Gbit/s): direct $(stream env)"
echo "stream: jc-egress $(stream "${egress[@]}")"
! command -v pasta >/dev/null || echo "stream: pasta $(stream "${pasta[@]}")"
cat >/srv/short.py <<'P'
import socket, time
end, count = time.monotonic() + 4, 0
while time.monotonic() < end:
    with socket.create_connection(("203.0.113.20", 7000)) as s:
        s.sendall(b"none\n")
        s.recv(1)
    count += 1
print(count // 4)
P
echo "connections a second: direct $(python3 /srv/short.py), jc-egress $("${egress[@]}" python3 /srv/short.py)"
! command -v pasta >/dev/null || echo "connections a second: pasta $("${pasta[@]}" python3 /srv/short.py)"
cat >/srv/many.py <<'P'
import os, socket, sys
many = []
for _ in range(1000):
    s = socket.create_connection(("203.0.113.20", 7000))
    s.sendall(b"echo\nx")
    s.recv(1)
    many.append(s)
print("ready", flush=True)
sys.stdin.read()
P
ulimit -n 8192
mkfifo /srv/in
"${egress[@]}" python3 /srv/many.py </srv/in >/srv/out &
proxy=$!
exec 8>/srv/in
until grep -q ready /srv/out; do sleep 0.1; done
awk '/^Private/ { sum += $2 } END { printf "memory with 1000 connections: %d KiB private\n", sum }' "/proc/$proxy/smaps_rollup"
exec 8>&-
wait "$proxy"

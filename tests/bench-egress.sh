#!/bin/bash
# Compares jc-egress with pasta and slirp4netns: the time added to a start, the throughput of one stream, connections a
# second, memory. All programs take turns in each round, and the table has medians.
# Usage: tests/bench-egress.sh BIN, as root. ROUNDS, STARTS and SECONDS_EACH make it longer.
set -euo pipefail
bin=$(cd "$1" && pwd)
if [ -z "${JC_BENCH_INSIDE-}" ]; then
	JC_BENCH_INSIDE=1 exec unshare -mn --propagation private "$0" "$@"
fi
rounds=${ROUNDS:-5}
support=$(cd "$(dirname "$0")/tests/egress_support" && pwd)
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
cd /srv

cat >short.py <<'P'
import socket, sys, time
seconds = float(sys.argv[1])
end, count = time.monotonic() + seconds, 0
while time.monotonic() < end:
    with socket.create_connection(("203.0.113.20", 7000)) as s:
        s.sendall(b"none\n")
        s.recv(1)
    count += 1
print(round(count / seconds))
P
cat >many.py <<'P'
import socket, sys
many = []
for _ in range(1000):
    s = socket.create_connection(("203.0.113.20", 7000))
    s.sendall(b"echo\nx")
    s.recv(1)
    many.append(s)
print("ready", flush=True)
sys.stdin.read()
P

rules=(--allow 203.0.113.20:5201,7000)
direct() { "$@"; }
none() { jc-net --network none -- "$@"; }
egress() { jc-egress --only-network "${rules[@]}" -- "$@"; }
bare() { jc-egress "${rules[@]}" -- "$@"; }
pasta() { jc-unshare -U -r -- jc-net --network pasta -- "$@"; }
slirp4netns() {
	unshare -n sleep 1000 &
	local holder=$! status=0
	until [ "$(readlink /proc/$holder/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done
	command slirp4netns --configure --mtu=65520 --ready-fd=9 $holder tap0 >/dev/null 2>&1 &
	local program=$!
	head -c1 <&9 >/dev/null
	nsenter -t $holder -n "$@" || status=$?
	kill $program $holder
	wait $program $holder || :
	return $status
}

# The time of a start and end of `true`, in microseconds.
starts() {
	for _ in $(seq "${STARTS:-9}"); do
		local from=$EPOCHREALTIME
		"$1" true >/dev/null
		local to=$EPOCHREALTIME
		echo $((${to/./} - ${from/./}))
	done
}
stream() {
	"$1" iperf3 -c 203.0.113.20 -t "${SECONDS_EACH:-2}" "${@:2}" -J | jq '.end.sum_received.bits_per_second / 1e9'
}
# The median of the lines of a file, divided.
median() {
	[ -s "$1" ] || { echo -; return; }
	sort -n "$1" | awk -v by="$2" -v form="$3" '{ all[NR] = $1 } END { printf form, all[int((NR + 1) / 2)] / by }'
}

# Open from now on: slirp4netns writes a byte and closes its descriptor, before or after the read.
mkfifo ready
exec 9<>ready
iperf3 -s -B 203.0.113.20 >/dev/null 2>&1 &
python3 "$support/server.py" >server.out &
until grep -q ready server.out; do :; done
peers=()
for peer in pasta slirp4netns; do
	! type -P "$peer" >/dev/null || peers+=("$peer")
done
for _ in $(seq "$rounds"); do
	for how in none egress bare "${peers[@]}"; do
		starts "$how" >>"start.$how"
	done
	for how in direct egress "${peers[@]}"; do
		stream "$how" >>"there.$how"
		stream "$how" -R >>"back.$how"
		"$how" python3 short.py "${SECONDS_EACH:-2}" >>"short.$how"
	done
done
declare -A names=([direct]="no namespace" [none]="jc-net --network none" [egress]="jc-egress --only-network"
	[bare]="jc-egress" [pasta]="pasta" [slirp4netns]="slirp4netns")
echo "| | start (ms) | one stream, there and back (Gbit/s) | connections a second |"
echo "| --- | --- | --- | --- |"
for how in direct none egress bare "${peers[@]}"; do
	echo "| ${names[$how]} | $(median "start.$how" 1000 %.1f) | $(median "there.$how" 1 %.1f), $(median "back.$how" 1 %.1f) |" \
		"$(median "short.$how" 1 %d) |"
done

ulimit -n 8192
mkfifo in
jc-egress --only-network "${rules[@]}" -- python3 many.py <in >out &
proxy=$!
exec 8>in
until grep -q ready out; do sleep 0.1; done
awk '/^Private/ { sum += $2 } END { printf "memory with 1000 connections: %d KiB private\n", sum }' "/proc/$proxy/smaps_rollup"
exec 8>&-
wait "$proxy"

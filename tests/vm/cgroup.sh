# Runs in the small virtual machine, as its first process: jc-cgroup on cgroup v2.
cg=/sys/fs/cgroup
group='cd /sys/fs/cgroup$(sed s/^0::// /proc/self/cgroup)'
# field FILE NAME: a number of a report
field() { sed -n 's/.*"'"$2"'":\([0-9]*\).*/\1/p' "$1"; }
left() { jc-cgroup --list; find $cg -mindepth 1 -type d; }

# Every limit is where the kernel reads it.
settings='memory.max memory.swap.max memory.high memory.low memory.oom.group cpu.max cpu.weight pids.max cpuset.cpus cpuset.mems memory.swap.high'
is 'all limits' "$(jc-cgroup -m 64M --memory-swap 80M --memory-high 60M --memory-low 1M --oom-group --cpus 0.25 \
	--cpu-weight 50 --pids 20 --cpuset-cpus 1 --cpuset-mems 0 --set memory.swap.high=1M -- \
	sh -c "$group; cat $settings" | tr '\n' ,)" \
	'67108864,16777216,62914560,1048576,1,25000 100000,50,20,1,0,1048576,'
is 'no swap without being asked' "$(jc-cgroup -m 8M -- sh -c "$group; cat memory.swap.max")" 0
is 'pages are whole' "$(jc-cgroup -m 10000000 -- sh -c "$group; cat memory.max")" 9998336
is 'a second value that does not hold' "$(jc-cgroup --set memory.max=1e9 -- true 2>&1 | grep -c 'memory.max')" 1
jc-cgroup --cpuset-cpus 7 -- true 2>/dev/null; is 'a CPU that is not there' $? 125

# Memory.
jc-cgroup -m 32M -- dd if=/dev/zero of=/dev/null bs=100M count=1 2>err >/dev/null
is 'too much memory' $? 137
is 'who was killed is told' "$(cat err)" \
	'jc-cgroup: out of memory: killed at the limit of 32M, the peak was 32M'
jc-cgroup -m 32M -- dd if=/dev/zero of=/dev/null bs=24M count=1 2>/dev/null
is 'enough memory' $? 0

# Processes.
is 'a fork bomb stops' "$(jc-cgroup --pids 10 --report r -- sh -c \
	'for i in 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5; do sleep 100 & done' 2>/dev/null; field r pids_peak)" 10

# CPU time: a fifth of five seconds.
jc-cgroup --cpus 0.2 --report r -- timeout 5 sh -c 'while :; do :; done'
used=$(($(field r cpu_user_usec) + $(field r cpu_system_usec)))
wall=$(field r wall_usec)
[ $((used * 100 / wall)) -ge 18 ] && [ $((used * 100 / wall)) -le 22 ] && within=yes || within="$used of $wall"
is 'CPU time within a tenth' "$within" yes
is 'throttling is on the bill' "$([ "$(field r throttled_periods)" -gt 30 ] && echo yes)" yes
is 'one CPU' "$(jc-cgroup --cpuset-cpus 1 -- grep Cpus_allowed_list /proc/self/status | tr -d '\t')" \
	'Cpus_allowed_list:1'

# A disk: 4 MiB at 1 MiB a second.
start=$(date +%s)
jc-cgroup --io-max /dev/ram0:wbps=1M --report r -- dd if=/dev/zero of=/dev/ram0 bs=1M count=4 oflag=direct 2>/dev/null
took=$(($(date +%s) - start))
is 'a slow disk' "$([ $took -ge 3 ] && [ $took -le 8 ] && echo yes || echo $took)" yes
is 'bytes on the bill' "$(field r wbytes)" 4194304

# The bill.
is 'exit code on the bill' "$(jc-cgroup --report r -- sh -c 'exit 3'; field r exit_code)" 3
is 'signal on the bill' "$(jc-cgroup --report r -- sh -c 'kill -15 $$'; field r signal)" 15
is 'a descriptor' "$(jc-cgroup --report 3 -- true 3>&1 >/dev/null | grep -c '"wall_usec":')" 1
is 'peak on the bill' "$(jc-cgroup --report r -- dd if=/dev/zero of=/dev/null bs=16M count=1 2>/dev/null
	[ "$(field r memory_peak_bytes)" -gt 16777216 ] && echo yes)" yes

# The first instruction already runs inside.
i=0
while [ $i -lt 1000 ]; do jc-cgroup -- cat /proc/self/cgroup; i=$((i + 1)); done >all
is 'a thousand starts' "$(grep -c '^0::/jc[+][0-9a-f]\{12\}$' all)" 1000

# Actions.
jc-cgroup --name work -m 32M --pids 9 -- sh -c 'trap "" TERM; sleep 1000 & sleep 1000; true' &
until [ "$(cat $cg/jc+work/pids.current 2>/dev/null)" = 3 ]; do sleep 0.1; done
is 'list' "$(jc-cgroup --list | cut -f 1,2)" "work	3"
is 'stat' "$(jc-cgroup --stat work | sed 's/.*"pids":\([0-9]*\).*/\1/')" 3
jc-cgroup --update work -m 16M --pids 5
is 'update' "$(cat $cg/jc+work/memory.max $cg/jc+work/pids.max | tr '\n' ,)" 16777216,5,
jc-cgroup --freeze work
is 'freeze' "$(grep frozen $cg/jc+work/cgroup.events)" 'frozen 1'
jc-cgroup --thaw work
is 'thaw' "$(grep frozen $cg/jc+work/cgroup.events)" 'frozen 0'
jc-cgroup --remove work 2>/dev/null; is 'remove refuses what is held' $? 125
jc-cgroup --name work -- true 2>/dev/null; is 'a name in use' $? 125
jc-cgroup --kill work
wait $!; is 'kill' $? 137
jc-cgroup --exec --name later -- sh -c 'sleep 1000 >/dev/null 2>&1 &'
jc-cgroup -- true
is 'exec leaves its group' "$(jc-cgroup --list | cut -f 1,2)" "later	1"
jc-cgroup --remove later
is 'remove' "$(left)" ''

# What a SIGKILL leaves is swept, with background processes that nothing else ends.
i=0
while [ $i -lt 50 ]; do
	jc-cgroup -m 8M -- sh -c 'setsid sleep 1000 & sleep 0.02' >/dev/null 2>&1 &
	case $i in *[02468]) usleep $((i * 400)); kill -9 $! ;; esac
	i=$((i + 1))
done 2>/dev/null
wait
is 'fifty at once, half of them killed' "$(left)$(pidof sleep)" ''

# Processes in the way.
mkdir $cg/busy
sleep 1000 & busy=$!
echo $busy >$cg/busy/cgroup.procs
jc-cgroup --parent /busy -m 8M -- true 2>err; is 'a busy parent' $? 125
is 'says what helps' "$(grep -c 'hint:.*--evacuate' err)" 1
jc-cgroup --parent /busy --evacuate -m 8M -- true; is 'evacuate' $? 0
is 'evacuated' "$(cat /proc/$busy/cgroup)" 0::/busy/jc-evacuated
kill $busy; wait $busy 2>/dev/null
rmdir $cg/busy/jc-evacuated $cg/busy

# Another one inside, which sees its own group as the top.
is 'one inside another' "$(jc-cgroup --name outer --delegate -m 64M --pids 50 -- jc-unshare -C -m -- sh -c '
	umount -l /sys/fs/cgroup && mount -t cgroup2 c /sys/fs/cgroup &&
	jc-cgroup --name inner --evacuate -m 8M -- sh -c "cat /proc/self/cgroup /sys/fs/cgroup/jc+inner/memory.max"' |
	tr '\n' ,)" '0::/jc+inner,8388608,'
is 'nothing is left of it' "$(left)" ''

# An ordinary user, in a subtree that was delegated, and outside of one.
as_user() { su -s /bin/sh user -c "$1"; }
is 'a user without a subtree' "$(as_user 'jc-cgroup -m 8M -- true' 2>&1 | grep -c 'hint: systemd-run --user --scope -p Delegate=yes')" 1
mkdir $cg/ours
echo '+memory +pids' >$cg/cgroup.subtree_control
chown user $cg/ours $cg/ours/cgroup.procs $cg/ours/cgroup.subtree_control
mkdir $cg/ours/shell
chown user $cg/ours/shell $cg/ours/shell/cgroup.procs $cg/ours/shell/cgroup.subtree_control
is 'a user with one' "$(sh -c "echo 0 >$cg/ours/shell/cgroup.procs; exec su -s /bin/sh user -c \
	'jc-cgroup --parent /ours --name u -m 8M --pids 5 -- sh -c \"cat /proc/self/cgroup $cg/ours/jc+u/memory.max $cg/ours/jc+u/pids.max\"'" | tr '\n' ,)" \
	'0::/ours/jc+u,8388608,5,'

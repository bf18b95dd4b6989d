# Slurm with the runtime: a controller and two nodes, each with host name and network of its own.
. "$here/daemon.sh"
mkdir conf state bundle n1 n2
cp -a root bundle/rootfs
dd if=/dev/urandom of=munge.key bs=1k count=1 2>/dev/null
chmod 400 munge.key
ip link add nodes type bridge
ip addr add 10.99.0.254/24 dev nodes
ip link set nodes up
printf '127.0.0.1 localhost\n10.99.0.254 head\n10.99.0.1 n1\n10.99.0.2 n2\n' >hosts
mount --bind hosts /etc/hosts
hostname head
daemon munged --foreground --force --key-file "$work/munge.key" --socket "$work/munge.sock" --pid-file "$work/munge.pid" \
	--log-file "$work/munge.out" --seed-file "$work/munge.seed"
cat >conf/slurm.conf <<END
ClusterName=tested
SlurmctldHost=head
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.sock
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/%n
SlurmdPidFile=$work/%n.pid
SlurmctldPidFile=$work/ctld.pid
SlurmctldLogFile=$work/ctld.out
SlurmdLogFile=$work/%n.out
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SwitchType=switch/none
KillWait=1
MinJobAge=600
SchedulerParameters=batch_sched_delay=0,sched_interval=1,default_queue_depth=200
NodeName=n[1-2] CPUs=4 RealMemory=100 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
END
readme '**Slurm**' >conf/oci.conf
cat >bundle/config.json <<'END'
{"ociVersion": "1.0.2", "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "env": ["PATH=/bin", "A=1"], "cwd": "/",
  "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}, "noNewPrivileges": true},
 "root": {"path": "rootfs", "readonly": true}, "hostname": "inside",
 "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
  {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
  {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}],
 "linux": {"namespaces": [{"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "mount"}, {"type": "network"}],
  "resources": {"pids": {"limit": 50}},
  "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}}}
END
export SLURM_CONF="$work/conf/slurm.conf"
daemon slurmctld -D -f "$SLURM_CONF"
# A node: its network is that of a process that sleeps.
for n in 1 2; do
	unshare -nu sleep 10000 &
	node=$!
	daemons="$node $daemons"
	until_true sh -c '[ "$(readlink /proc/$1/ns/net)" != "$(readlink /proc/self/ns/net)" ]' sh "$node"
	ip link add "veth$n" type veth peer name eth0 netns "$node"
	ip link set "veth$n" master nodes up
	enter="nsenter -t $node -n -u"
	$enter hostname "n$n"
	$enter ip link set lo up
	$enter ip addr add "10.99.0.$n/24" dev eth0
	$enter ip link set eth0 up
	# Tasks end for slurmd when their process group is empty, and a zombie of slurmstepd is a member. A subreaper reaps it.
	daemon docker-init -s -- $enter slurmd -D -N "n$n" -f "$SLURM_CONF"
done
idle() { [ "$(sinfo -h -o '%T %D')" = 'idle 2' ]; }
answers slurmctld idle
run() { srun -Q --container="$work/bundle" "$@"; }

is 'a container prints' "$(run echo hello)" hello
run sh -c 'exit 7' 2>/dev/null; is 'the exit status is that of the payload' $? 7
is 'standard input reaches the payload' "$(echo words | run cat)" words
is 'standard error is apart' "$(run sh -c 'echo words >&2' 2>&1 >/dev/null)" words
is 'the payload is process 1' "$(run sh -c 'echo $$')" 1
run nonesuch >/dev/null 2>err; like 'a program that is missing' $? "[1-9]*"
like 'a program that is missing is named' "$(cat err)" '*nonesuch*'
run /etc/text >/dev/null 2>err; like 'a file that is not executable is named' "$(cat err)" '*/etc/text*ermission denied*'
is 'variables of the bundle and of the job' "$(B=2 run sh -c 'echo $A $B $SLURM_JOB_NUM_NODES')" '1 2 1'
is 'a host name' "$(run hostname)" inside
is 'the payload has the root of the bundle' "$(run cat /etc/text)" text
like 'the root is read-only' "$(run touch /new 2>&1)" '*Read-only file system*'
is 'a tmpfs' "$(run sh -c 'echo words >/tmp/file; cat /tmp/file')" words
is 'capabilities' "$(run grep CapEff /proc/self/status | cut -f 2)" 0000000000000020
is 'no new privileges' "$(run grep NoNewPrivs /proc/self/status | cut -f 2)" 1
like 'the filter refuses' "$(run mkdir /tmp/new 2>&1)" '*No space left on device*'
is 'a private network' "$(run sh -c 'tail -n +3 /proc/net/dev | cut -d : -f 1')" '    lo'
is 'a limit of processes' "$(run sh -c 'cat /proc/self/cgroup' | grep -c pids)" 1
is 'containers on two nodes' "$(run -l -N 2 -n 2 hostname | sort | tr '\n' ,)" '0: inside,1: inside,'
run -N 2 -n 2 sh -c 'exit 3' 2>/dev/null; is 'the exit status is that of both nodes' $? 3
run sleep 12345 >/dev/null 2>&1 &
job=$!
until_true pgrep -r S -xf 'sleep 12345'
id=$(squeue -h -o %i)
scancel "$id"; wait $job
until_true idle; like 'a job is cancelled' "$(scontrol show job "$id")" '*JobState=CANCELLED*'
until_true sh -c '! pgrep -r D,R,S,T -xf "sleep 12345"'; is 'no container runs after that' $? 0

if [ "${runtime##*/}" != runc ]; then
	is 'containers of jc-run on two nodes' "$(readme '**No engine**' | grep srun | sed "s|/srv/root|$work/root|; s|jc-run|jc-run --network none|" |
		sh | grep -c .)" 2
fi

# Jobs of a batch: a script in a container, and an array of a hundred containers on two nodes.
printf '#!/bin/sh\nhostname\ncat /etc/text\n' >script
sbatch -Q -W --container="$work/bundle" -o "$work/batch.out" -e /dev/null script; is 'a script runs in a container' "$? $(tr '\n' , <batch.out)" '0 inside,text,'
mkdir array
printf '#!/bin/sh\necho $SLURM_ARRAY_TASK_ID; exit $((SLURM_ARRAY_TASK_ID / 100))\n' >script
sbatch -Q -W --array=1-100 --container="$work/bundle" -o "$work/array/%N.%a" -e /dev/null script; is 'an array of jobs ends with its worst status' $? 1
is 'each of a hundred containers has printed' "$(cat array/* | sort -n | uniq | wc -l)" 100
is 'both nodes have run containers' "$(ls array | cut -d . -f 1 | sort -u | tr '\n' ,)" n1,n2,
until_true idle; is 'the nodes are idle' $? 0
is 'no container is left' "$(ls containers)" ''

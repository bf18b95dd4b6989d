# dockerd with the runtime: containerd, the shim and docker-proxy are its own.
. "$here/daemon.sh"
mkdir docker && readme '**Docker**' >docker/daemon.json
export DOCKER_HOST="unix://$work/docker.sock" DOCKER_CONFIG="$work/docker" DOCKER_BUILDKIT=0
daemon dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/docker.pid" --bridge none \
	--iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --userland-proxy=false --storage-driver overlay2 \
	--default-runtime jc --exec-opt native.cgroupdriver=cgroupfs --config-file "$work/docker/daemon.json"
answers dockerd docker version
docker load -q -i box.tar >/dev/null; is 'an image is loaded' $? 0
run() { docker run --rm --network none "$@"; }
background() { docker run -d --network none "$@"; }
field() { docker inspect -f "{{$2}}" "$1"; }
box=localhost/box
. "$here/single.sh"

# A container from its start to its end.
run $box nonesuch 2>err; is 'a program that is missing' $? 127
like 'a program that is missing is named' "$(cat err)" '*exec: "nonesuch": executable file not found in $PATH*'
run $box /etc/nonesuch 2>err; is 'a path that is missing' $? 127
run $box /etc/text 2>err; is 'a file that is not executable' $? 126
like 'the reason is permission denied' "$(cat err)" '*exec: "/etc/text": permission denied*'
run -w /new $box pwd >out; is 'a working directory is made' "$(cat out)" /new

# The process.
is 'the payload has a terminal' "$(terminal "docker run --rm -t --network none $box tty")" /dev/pts/0
is 'the terminal is the controlling one' "$(terminal "docker run --rm -it --network none $box sh -c 'echo words >/dev/tty'")" words
is 'a host name and a domain name' "$(run -h inside --domainname outside $box cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname | tr '\n' ,)" inside,outside,
like 'the filter refuses' "$(run $box unshare -U true 2>&1)" '*Operation not permitted'
is 'limits of resources' "$(run --ulimit nofile=100:200 --ulimit core=0 $box sh -c 'ulimit -Sn; ulimit -Hn; ulimit -c' | tr '\n' ,)" 100,200,0,
is 'sysctls' "$(run --sysctl kernel.shm_rmid_forced=1 --sysctl net.ipv4.ip_forward=1 $box \
	cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_forward | tr '\n' ,)" 1,1,
is 'an init process' "$(run --init $box sh -c 'tr "\0" " " </proc/1/cmdline' | cut -d ' ' -f 1)" /sbin/docker-init

# Mounts.
mkdir volume && echo words >volume/file
is 'a volume' "$(run -v "$work/volume:/mnt" $box sh -c 'cat /mnt/file; echo new >/mnt/new'; cat volume/new)" 'words
new'
like 'a read-only volume' "$(run -v "$work/volume:/mnt:ro" $box touch /mnt/file 2>&1)" '*Read-only file system'
is 'a tmpfs' "$(run --tmpfs /mnt:size=64k,mode=1700 $box sh -c 'df -k /mnt | tail -1 | tr -s " " | cut -d " " -f 1,2; stat -c %a /mnt')" 'tmpfs 64
1700'
is 'propagation to the container' "$(mount --make-shared --bind volume volume
	run --mount "type=bind,src=$work/volume,dst=/mnt,bind-propagation=rslave" $box grep -c '/mnt .* master:' /proc/self/mountinfo
	umount volume)" 1
is 'a device that can be read' "$(run --device /dev/fuse:/dev/log:r $box sh -c '{ : </dev/log && echo read; : >/dev/log; } 2>&1')" \
	"read
sh: can't create /dev/log: Operation not permitted"
if [ "$has_all_capabilities" = no ] && [ "${runtime##*/}" = runc ]; then
	ok 'a privileged container: runc refuses capabilities that this machine lacks'
else
	is 'a privileged container' "$(run --privileged $box sh -c 'mount -t tmpfs none /srv && grep -c " /srv tmpfs" /proc/mounts; : </dev/kmsg && echo read')" '1
read'
fi

# Namespaces and networks.
is 'the network of the host' "$(docker run --rm --network host $box readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/net)"
is 'namespaces of the host' "$(run --pid host --uts host --ipc host --cgroupns host $box \
	sh -c 'for name in pid uts ipc; do readlink /proc/self/ns/$name; done')" "$(readlink /proc/self/ns/pid /proc/self/ns/uts /proc/self/ns/ipc)"
background --name first --ipc shareable --health-cmd 'test -e /tmp/well' --health-interval 100ms $box sleep 1000 >/dev/null
is 'the namespaces of another container' "$(docker run --rm --network container:first --pid container:first --ipc container:first $box \
	sh -c 'tr "\0" " " </proc/1/cmdline; readlink /proc/self/ns/net')" "sleep 1000 $(readlink "/proc/$(field first .State.Pid)/ns/net")"

# A container in the background.
is 'a container runs' "$(field first .State.Status)" running
is 'a program is executed' "$(docker exec first sh -c 'tr "\0" " " </proc/1/cmdline')" 'sleep 1000 '
docker exec first sh -c 'exit 9'; is 'the exit status of an executed program' $? 9
is 'standard input reaches an executed program' "$(echo words | docker exec -i first cat)" words
is 'an executed program with a user, variables and a directory' \
	"$(docker exec -u web -e A=1 -w /etc first sh -c 'id -u; echo $A; pwd' | tr '\n' ,)" 33,1,/etc,
is 'an executed program has the same capabilities' "$(docker exec first grep CapEff /proc/self/status | cut -f 2)" 00000000a80425fb
is 'an executed program has the same filter' "$(docker exec first grep '^Seccomp:' /proc/self/status | cut -f 2)" 2
is 'an executed program in the group of the container' "$(docker exec first sh -c 'cmp /proc/1/cgroup /proc/self/cgroup && echo same')" same
is 'a terminal for an executed program' "$(terminal 'docker exec -it first tty')" /dev/pts/0
# This version of dockerd has one status for all failures of an execution.
docker exec first nonesuch >err 2>&1; is 'an executed program that is missing' $? 126
like 'an executed program that is missing is named' "$(cat err)" '*exec: "nonesuch": executable file not found in $PATH*'
docker exec first /etc/text >err 2>&1; is 'an executed file that is not executable' $? 126
docker exec -d first sh -c 'echo words >/tmp/made'; until_true docker exec first test -s /tmp/made
is 'a program is executed in the background' $? 0
like 'processes are listed' "$(docker top first)" '*sleep 1000*'
docker exec first touch /tmp/well
until_true sh -c 'docker inspect -f "{{.State.Health.Status}}" first | grep -q ^healthy'; is 'a check of health' $? 0
docker pause first >/dev/null; is 'a container is paused' "$(field first .State.Status)" paused
docker unpause first >/dev/null; is 'a container goes on' "$(docker exec first echo on)" on
docker update --memory 64m --memory-swap 64m --pids-limit 50 --cpus 0.5 first >/dev/null; is 'limits are changed' $? 0
is 'the limits have changed' "$(docker exec first sh -c 'cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us' | tr '\n' ,)" 67108864,50,50000,
like 'figures' "$(docker stats --no-stream --format '{{.MemUsage}}' first)" '*/ 64MiB'
docker rm -f first >/dev/null; is 'a running container is removed' $? 0

background --name logged $box sh -c 'echo out; echo err >&2' >/dev/null
is 'a container ends' "$(docker wait logged)" 0
is 'the log has the output' "$(docker logs logged 2>&1 | sort | tr '\n' ,)" err,out,
is 'the state of a container that has ended' "$(field logged .State.Status)" exited
docker start -a logged >/dev/null 2>&1; is 'a container is started again' $? 0
docker rm logged >/dev/null
trap='trap "echo caught; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
background --name stopped $box sh -c "$trap" >/dev/null
until_true sh -c 'docker logs stopped | grep -q ready'
docker stop stopped >/dev/null; is 'a stop sends SIGTERM' "$(field stopped .State.ExitCode)" 5
docker restart -t 0 stopped >/dev/null; is 'a container is restarted' "$(field stopped .State.Status)" running
docker kill -s KILL stopped >/dev/null; is 'a signal is sent' "$(docker wait stopped)" 137
docker rm stopped >/dev/null
background --name stubborn $box sh -c 'trap "" TERM; echo ready; while :; do sleep 0.1; done' >/dev/null
until_true sh -c 'docker logs stubborn | grep -q ready'
docker stop -t 1 stubborn >/dev/null; is 'a stop ends with SIGKILL' "$(docker wait stubborn)" 137
docker rm stubborn >/dev/null
background --name again --restart on-failure:2 $box false >/dev/null
until_true sh -c '[ "$(docker inspect -f "{{.RestartCount}} {{.State.Status}}" again)" = "2 exited" ]'; is 'the engine restarts a container' $? 0
docker rm again >/dev/null

# Limits.
is 'limits' "$(run --memory 64m --memory-swap 64m --pids-limit 20 --cpus 0.5 --cpu-shares 200 --cpuset-cpus 0 $box sh -c 'cd /sys/fs/cgroup
	cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpu/cpu.shares cpuset/cpuset.cpus' | tr '\n' ,)" 67108864,20,50000,200,0,
docker run --name hungry --network none --memory 16m --memory-swap 16m $box dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; is 'too much memory' $? 137
# containerd may report the end before the reason, which Docker then never shows.
sees_reason() { [ "$(field hungry .State.OOMKilled)" = true ] || { docker start -a hungry; false; }; }
until_true sees_reason; is 'the engine sees the reason' $? 0
docker rm hungry >/dev/null

# An image is built.
mkdir context && cat >context/Dockerfile <<END
FROM $box
RUN echo built >/etc/built && test \$(id -u) = 0
USER web
RUN id -u >/tmp/user
END
docker build -q --network none -t localhost/built context >/dev/null 2>&1; is 'an image is built' $? 0
is 'the image has the changes' "$(run localhost/built cat /etc/built /tmp/user)" 'built
33'
is 'no container is left' "$(docker ps -aq)" ''

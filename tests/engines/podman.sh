# podman and conmon with the runtime.
cat >storage.conf <<END
[storage]
driver = "overlay"
runroot = "$work/run"
graphroot = "$work/storage"
END
cat >containers.conf <<END
[containers]
# The process may lack CAP_SYS_RESOURCE, and then can raise no limit.
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
network_config_dir = "$work/networks"
tmp_dir = "$work/libpod"
[network]
network_backend = "cni"
END
export CONTAINERS_CONF="$work/containers.conf" CONTAINERS_STORAGE_CONF="$work/storage.conf"
podman() { command podman --runtime "$runtime" "$@"; }
run() { podman run --rm --network none "$@"; }
background() { podman run -d --network none "$@"; }
field() { podman inspect -f "{{$2}}" "$1"; }
podman load -q -i box.tar >/dev/null; is 'an image is loaded' $? 0
box=box
. "$here/single.sh"

# A container from its start to its end.
run box nonesuch 2>err; is 'a program that is missing' $? 127
like 'a program that is missing is named' "$(cat err)" '*nonesuch*'
run box /etc/text 2>err; is 'a file that is not executable' $? 126
like 'the reason is permission denied' "$(cat err)" '*ermission denied*'
run -v /nonesuch:/mnt box true 2>err; is 'a volume that is missing' $? 125

# A terminal.
is 'the payload has a terminal' "$(terminal "podman --runtime $runtime run --rm -t --network none box tty")" /dev/pts/0
is 'the terminal is the controlling one' \
	"$(terminal "podman --runtime $runtime run --rm -it --network none box sh -c 'echo words >/dev/tty'")" words
# The last output of a container that ends at once may be lost on its way through the engine.
has_size() {
	[ "$(terminal "stty rows 33 cols 99; podman --runtime $runtime run --rm -it --network none box \
		sh -c 'until [ \"\$(stty size 2>/dev/null)\" = \"33 99\" ]; do sleep 0.1; done; stty size'")" = '33 99' ]
}
until_true has_size; is 'the terminal has a size' $? 0

# The process.
is 'a working directory' "$(run -w /etc box pwd)" /etc
is 'a host name' "$(run -h inside box hostname)" inside
is 'no capabilities' "$(run --cap-drop all box grep -cE '^Cap.*:.0000000000000000' /proc/self/status)" 5
echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}' >filter
is 'a filter of the user' "$(run --security-opt "seccomp=$work/filter" box mkdir /new 2>&1)" \
	"mkdir: can't create directory '/new': No space left on device"
is 'limits of resources' "$(run --ulimit nproc=900 --ulimit nofile=100:200 --ulimit core=0 box sh -c 'ulimit -Sn; ulimit -Hn; ulimit -c' | tr '\n' ,)" \
	100,200,0,
is 'a file mode creation mask' "$(run --umask 077 box sh -c umask)" 0077
is 'sysctls' "$(run --sysctl kernel.shm_rmid_forced=1 --sysctl net.ipv4.ip_forward=1 box \
	cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_forward | tr '\n' ,)" 1,1,
is 'an init process' "$(run --init box sh -c 'tr "\0" " " </proc/1/cmdline')" '/run/podman-init -- sh -c tr "\0" " " </proc/1/cmdline '

# Mounts.
mkdir volume && echo words >volume/file && chmod 777 volume
is 'a volume' "$(run -v "$work/volume:/mnt" box sh -c 'cat /mnt/file; echo new >/mnt/new'; cat volume/new)" 'words
new'
like 'a read-only volume' "$(run -v "$work/volume:/mnt:ro" box touch /mnt/file 2>&1)" '*Read-only file system'
is 'a volume with flags' "$(run -v "$work/volume:/mnt:noexec,nosuid,nodev" box sh -c 'grep -c " /mnt .*nosuid,nodev,noexec" /proc/self/mountinfo')" 1
is 'a file as a volume' "$(run -v "$work/volume/file:/srv/some/file" box cat /srv/some/file)" words
is 'a tmpfs' "$(run --tmpfs /mnt:size=64k,mode=1700 box sh -c 'df -k /mnt | tail -1 | tr -s " " | cut -d " " -f 1,2; stat -c %a /mnt')" 'tmpfs 64
1700'
is 'a tmpfs with the content of the image' "$(run --mount type=tmpfs,dst=/etc,tmpcopyup box cat /etc/text)" text
is 'propagation to the container' "$(run --mount type=bind,src=$work/volume,dst=/mnt,bind-propagation=rslave box \
	sh -c 'grep " /mnt " /proc/self/mountinfo | grep -c master:'; mount --make-shared --bind volume volume
	run --mount type=bind,src=$work/volume,dst=/mnt,bind-propagation=rslave box \
	sh -c 'grep " /mnt " /proc/self/mountinfo | grep -c master:'; umount volume)" '0
1'
is 'a read-only root has writable tmpfses' "$(run --read-only box sh -c 'echo words >/tmp/file; cat /tmp/file')" words
is 'a device that can be read' "$(run --device /dev/fuse:/dev/log:r box sh -c '{ : </dev/log && echo read; : >/dev/log; } 2>&1')" \
	"read
sh: can't create /dev/log: Operation not permitted"
is 'a privileged container' "$(run --privileged box sh -c 'mount -t tmpfs none /srv && grep -c " /srv tmpfs" /proc/mounts; : </dev/kmsg && echo read')" '1
read'
is 'a mask that is lifted' "$(run --security-opt unmask=all box sh -c 'grep -c " /proc/" /proc/self/mountinfo')" 0

# Namespaces and networks.
is 'the network of the host' "$(podman run --rm --network host box readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/net)"
is 'namespaces of the host' "$(run --pid host --uts host --ipc host --cgroupns host box \
	sh -c 'for name in pid uts ipc cgroup; do readlink /proc/self/ns/$name; done')" \
	"$(readlink /proc/self/ns/pid /proc/self/ns/uts /proc/self/ns/ipc /proc/self/ns/cgroup)"
background --name first box sleep 1000 >/dev/null
is 'the namespaces of another container' "$(podman run --rm --network container:first --pid container:first --ipc container:first box \
	sh -c 'tr "\0" " " </proc/1/cmdline; readlink /proc/self/ns/net')" "sleep 1000 $(readlink "/proc/$(field first .State.Pid)/ns/net")"
is 'a user namespace' "$(run --uidmap 0:1000:100 --gidmap 0:2000:100 box sh -c 'cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -c %u:%g /etc/text' | tr -s ' ')" \
	" 0 1000 100
 0 2000 100
0
0:0"
podman pod create --name pod --network none --infra-image localhost/box >/dev/null
podman run -d --pod pod --name member box sleep 1000 >/dev/null
is 'a pod shares a network' "$(podman exec member readlink /proc/self/ns/net)" "$(readlink "/proc/$(field "$(podman pod inspect -f '{{.InfraContainerID}}' pod)" .State.Pid)/ns/net")"
podman pod rm -f -t 0 pod >/dev/null; is 'a pod is removed' $? 0

# A container in the background.
is 'a container runs' "$(field first .State.Status)" running
is 'a program is executed' "$(podman exec first sh -c 'hostname; tr "\0" " " </proc/1/cmdline')" "$(field first .Config.Hostname)
sleep 1000 "
podman exec first sh -c 'exit 9'; is 'the exit status of an executed program' $? 9
is 'standard input reaches an executed program' "$(echo words | podman exec -i first cat)" words
is 'an executed program with a user, variables and a directory' \
	"$(podman exec -u web -e A=1 -w /etc first sh -c 'id -u; echo $A; pwd' | tr '\n' ,)" 33,1,/etc,
is 'an executed program has the same capabilities' "$(podman exec first grep CapEff /proc/self/status | cut -f 2)" 00000000a80425fb
is 'an executed program has the same filter' "$(podman exec first grep '^Seccomp:' /proc/self/status | cut -f 2)" 2
is 'an executed program in the group of the container' "$(podman exec first sh -c 'cmp /proc/1/cgroup /proc/self/cgroup && echo same')" same
is 'an executed program with privileges' "$(podman exec --privileged first grep -c "$(grep CapBnd /proc/self/status)" /proc/self/status)" 1
is 'a terminal for an executed program' "$(terminal "podman --runtime $runtime exec -it first tty")" /dev/pts/0
podman exec first nonesuch 2>err; is 'an executed program that is missing' $? 127
podman exec first /etc/text 2>err; is 'an executed file that is not executable' $? 126
podman exec -d first sh -c 'echo words >/tmp/made'; until_true podman exec first test -s /tmp/made
is 'a program is executed in the background' $? 0
like 'processes are listed' "$(podman top first pid comm | tr -s ' ')" '*1 sleep*'
like 'processes are listed by ps' "$(podman top first -o args 2>&1)" '*sleep 1000*'
podman pause first >/dev/null; is 'a container is paused' "$(field first .State.Status)" paused
podman exec first true 2>err; is 'no program is executed in a paused container' $? 255
podman unpause first >/dev/null; is 'a container goes on' "$(podman exec first echo on)" on
podman update --memory 64m --cpu-shares 300 --cpus 0.5 first >/dev/null; is 'limits are changed' $? 0
is 'the limits have changed' "$(podman exec first sh -c 'cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us' | tr '\n' ,)" 67108864,300,50000,
podman rm -f -t 0 first >/dev/null; is 'a running container is removed' $? 0

background --name logged box sh -c 'echo out; echo err >&2' >/dev/null
is 'a container ends' "$(podman wait logged)" 0
is 'the log has the output' "$(podman logs logged 2>&1 | sort | tr '\n' ,)" err,out,
is 'the state of a container that has ended' "$(field logged .State.Status)" exited
podman start -a logged >/dev/null 2>&1; is 'a container is started again' $? 0
podman rm logged >/dev/null

trap='trap "echo caught; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
background --name stopped box sh -c "$trap" >/dev/null
until_true sh -c 'podman logs stopped | grep -q ready'
podman stop stopped >/dev/null; is 'a stop sends SIGTERM' "$(field stopped .State.ExitCode)" 5
podman restart -t 0 stopped >/dev/null; is 'a container is restarted' "$(field stopped .State.Status)" running
podman kill -s KILL stopped >/dev/null; is 'a signal is sent' "$(podman wait stopped)" 137
podman rm stopped >/dev/null
background --name stubborn --stop-signal USR1 box sh -c 'trap "" USR1; echo ready; while :; do sleep 0.1; done' >/dev/null
until_true sh -c 'podman logs stubborn | grep -q ready'
podman stop -t 1 stubborn >/dev/null 2>&1; is 'a stop ends with SIGKILL' "$(podman wait stubborn)" 137
podman rm stubborn >/dev/null
background --name sick --health-cmd 'test -e /tmp/well' --health-interval disable box sleep 1000 >/dev/null
podman healthcheck run sick >/dev/null; is 'a check of health fails' $? 1
podman exec sick touch /tmp/well; podman healthcheck run sick; is 'a check of health succeeds' $? 0
podman container checkpoint sick >/dev/null 2>&1; is 'a checkpoint is refused' $? 125
podman rm -f -t 0 sick >/dev/null
podman create --name created --network none box echo words >/dev/null
podman init created >/dev/null; is 'a container is created and not started' "$(field created .State.Status)" initialized
is 'a created container is started' "$(podman start -a created)" words
podman rm created >/dev/null

# Limits.
is 'limits' "$(run --memory 64m --memory-swap 64m --pids-limit 20 --cpus 0.5 --cpu-shares 200 --cpuset-cpus 0 box sh -c 'cd /sys/fs/cgroup
	cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpu/cpu.shares cpuset/cpuset.cpus' | tr '\n' ,)" 67108864,20,50000,200,0,
podman run --name hungry --network none --memory 16m --memory-swap 16m box dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; is 'too much memory' $? 137
# conmon writes the file to its working directory.
is 'the engine sees the reason' "$(ls oom)" oom
podman rm hungry >/dev/null

# An image is built.
mkdir context && cat >context/Containerfile <<END
FROM localhost/box
RUN echo built >/etc/built && test \$(id -u) = 0
USER web
RUN id -u >/tmp/user
END
podman build -q --network none -t localhost/built context >/dev/null; is 'an image is built' $? 0
is 'the image has the changes' "$(run localhost/built cat /etc/built /tmp/user)" 'built
33'

podman rm -fa -t 0 >/dev/null 2>&1

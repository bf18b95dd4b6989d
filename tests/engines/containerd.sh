# containerd and ctr with the runtime.
. "$here/daemon.sh"
cat >config.toml <<END
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
address = "$work/containerd.sock"
END
export CONTAINERD_ADDRESS="$work/containerd.sock"
daemon containerd -c config.toml
answers containerd ctr version
ctr image import box.tar >/dev/null; is 'an image is loaded' $? 0
create="--runc-binary $runtime --cgroup /ctr/box"
# in_box COMMAND...: in a container with the options in $options.
in_box() { ctr run --rm $create $options localhost/box:latest one "$@"; }
options=

is 'a container prints' "$(in_box echo hello)" hello
in_box sh -c 'exit 7'; is 'the exit status is that of the payload' $? 7
is 'standard input reaches the payload' "$(echo words | in_box head -n 1)" words
is 'standard error is apart' "$(in_box sh -c 'echo words >&2' 2>&1 >/dev/null)" words
is 'the payload is process 1' "$(in_box sh -c 'echo $$')" 1
in_box nonesuch 2>err; is 'a program that is missing' $? 1
like 'a program that is missing is named' "$(cat err)" '*exec: "nonesuch": executable file not found in $PATH*'
in_box /etc/nonesuch 2>err; is 'a path that is missing' $? 1
like 'a path that is missing is named' "$(cat err)" '*exec: "/etc/nonesuch": *no such file or directory*'
in_box /etc/text 2>err; is 'a file that is not executable' $? 1
like 'the reason is permission denied' "$(cat err)" '*exec: "/etc/text": permission denied*'
is 'the payload has a terminal' "$(terminal "ctr run --rm -t $create localhost/box:latest terminal tty")" /dev/pts/0
options='--env A=1'
is 'a variable' "$(in_box sh -c 'echo $A')" 1
options='--cwd /etc'
is 'a working directory' "$(in_box pwd)" /etc
options=
is 'the default capabilities' "$(in_box grep CapEff /proc/self/status | cut -f 2)" 00000000a80425fb
options='--cap-drop CAP_NET_RAW --cap-add CAP_SYS_TIME'
is 'other capabilities' "$(in_box grep CapEff /proc/self/status | cut -f 2)" 00000000aa0405fb
options=--seccomp
is 'a filter of system calls' "$(in_box grep '^Seccomp:' /proc/self/status | cut -f 2)" 2
like 'the filter refuses' "$(in_box unshare -U true 2>&1)" '*Operation not permitted'
options=--allow-new-privs
is 'new privileges' "$(in_box grep NoNewPrivs /proc/self/status | cut -f 2)" 0
mkdir volume && echo words >volume/file
options="--mount type=bind,src=$work/volume,dst=/mnt,options=rbind:rw"
is 'a volume' "$(in_box cat /mnt/file)" words
options="--mount type=bind,src=$work/volume,dst=/mnt,options=rbind:ro"
like 'a read-only volume' "$(in_box touch /mnt/file 2>&1)" '*Read-only file system'
options='--mount type=tmpfs,dst=/mnt,options=size=64k:mode=1700'
is 'a tmpfs' "$(in_box sh -c 'grep -c " /mnt tmpfs .*size=64k" /proc/mounts; stat -c %a /mnt' | tr '\n' ,)" 1,1700,
options=--read-only
like 'a read-only root' "$(in_box touch /new 2>&1)" '*Read-only file system'
options='--device /dev/fuse'
is 'a device' "$(in_box sh -c ': </dev/fuse && echo read')" read
options=--privileged
is 'a privileged container' "$(in_box sh -c 'mount -t tmpfs none /srv && grep -c " /srv tmpfs" /proc/mounts')" 1
options=
is 'no network' "$(in_box ls /sys/class/net)" lo
options=--net-host
is 'the network of the host' "$(in_box readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/net)"
options="--with-ns uts:/proc/$$/ns/uts"
is 'a namespace with a path' "$(in_box readlink /proc/self/ns/uts)" "$(readlink /proc/self/ns/uts)"
options='--memory-limit 16777216'
in_box dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; is 'too much memory' $? 137
options=
is 'the tasks have ended' "$(ctr task ls -q)" ''

# A container in the background.
ctr run -d $create --memory-limit 67108864 --cpus 0.5 localhost/box:latest back sleep 1000; is 'a container starts in the background' $? 0
is 'a container runs' "$(ctr task ls | awk '$1 == "back" { print $3 }')" RUNNING
is 'limits' "$(cd /sys/fs/cgroup; cat memory/ctr/box/memory.limit_in_bytes cpu/ctr/box/cpu.cfs_quota_us | tr '\n' ,)" 67108864,50000,
is 'a program is executed' "$(ctr task exec --exec-id e1 back sh -c 'tr "\0" " " </proc/1/cmdline')" 'sleep 1000 '
ctr task exec --exec-id e2 back sh -c 'exit 9'; is 'the exit status of an executed program' $? 9
is 'standard input reaches an executed program' "$(echo words | ctr task exec --exec-id e3 back head -n 1)" words
is 'a terminal for an executed program' "$(terminal "ctr task exec --exec-id e4 -t back sh -c 'tty; sleep 0.5'")" /dev/pts/0
is 'an executed program with a user and a directory' "$(ctr task exec --exec-id e5 --user 33 --cwd /etc back sh -c 'id -u; pwd' | tr '\n' ,)" 33,/etc,
ctr task exec --exec-id e6 back nonesuch 2>err; like 'an executed program that is missing' "$(cat err)" '*"nonesuch": executable file not found in $PATH*'
is 'an executed program in the group of the container' "$(ctr task exec --exec-id e7 back sh -c 'cmp /proc/1/cgroup /proc/self/cgroup && echo same')" same
is 'processes are listed' "$(ctr task ps back | tail -n +2 | wc -l)" 1
ctr task pause back; is 'a container is paused' "$(ctr task ls | awk '$1 == "back" { print $3 }')" PAUSED
ctr task resume back; is 'a container goes on' "$(ctr task ls | awk '$1 == "back" { print $3 }')" RUNNING
like 'figures' "$(ctr task metrics --format json back | tr -d ' \n')" '*"pids":{"current":1*'
ctr task checkpoint back 2>err; is 'a checkpoint is refused' $? 1
ctr task kill -s TERM back; ctr task kill -s KILL back; is 'a signal is sent' $? 0
until_true sh -c '! ctr task ls | grep -q RUNNING'; is 'a container ends' $? 0
ctr task rm back 2>/dev/null; ctr container rm back; is 'a container is removed' $? 0
ctr run -d $create localhost/box:latest forced sh -c 'sleep 1000 & sleep 1000 & wait'
ctr task rm -f forced >/dev/null 2>&1; ctr container rm forced; is 'a running container is removed' $? 0
# Shims have no parent here, so zombies of theirs may stay.
gone() { ! pgrep -r D,R,S,T -f "$runtime |containerd-shim"; }
until_true gone; is 'no process of the runtime is left' $? 0

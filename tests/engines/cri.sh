# containerd's Container Runtime Interface, which the kubelet uses, with the runtime.
. "$here/daemon.sh"
mkdir logs net
cat >config.toml <<END
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
address = "$work/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/box:latest"
enable_selinux = false
disable_apparmor = true
# The process may lack CAP_SYS_RESOURCE, and then can lower no score.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$work/net"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
END
readme '**Kubernetes**' >>config.toml
cat >net/pods.conflist <<END
{"cniVersion":"0.4.0","name":"pods","plugins":[
 {"type":"ptp","ipam":{"type":"host-local","dataDir":"$work/addresses","ranges":[[{"subnet":"10.88.0.0/24"}]]}}]}
END
export CONTAINERD_ADDRESS="$work/containerd.sock"
daemon containerd -c config.toml
call() { /usr/bin/python3 "$here/cri.py" "$work/containerd.sock" "$@"; }
ready() { echo '{}' | call Version; }
answers containerd ready
ctr -n k8s.io image import box.tar >/dev/null; is 'an image is loaded' $? 0

pod() { # pod NAME LINUX: starts a pod, and prints its ID.
	echo "{\"config\":$(pod_config "$1" "$2"),\"runtime_handler\":\"jc\"}" | call RunPodSandbox | jq -r .pod_sandbox_id
}
pod_config() {
	echo "{\"metadata\":{\"name\":\"${1:-third}\",\"uid\":\"$1\",\"namespace\":\"default\"},\"hostname\":\"$1\",\"log_directory\":\"$work/logs\",\"linux\":$2}"
}
own='"namespace_options":{"pid":1}'
linux='{"cgroup_parent":"/pods","security_context":{'$own'}}'
first=$(pod first "$linux"); like 'a pod starts' "$first" '????????????????????????????????????????????????????????????????'
is 'the pod is ready' "$(echo "{\"pod_sandbox_id\":\"$first\"}" | call PodSandboxStatus | jq .status.state)" null
# container NAME CONFIG: starts a container with fields of its configuration, and prints its ID.
container() {
	jq -n --arg pod "$first" --argjson config "$2" --arg name "$1" --argjson pods "$(pod_config first "$linux")" '{pod_sandbox_id: $pod,
		config: ({metadata: {name: $name}, image: {image: "localhost/box:latest"}, log_path: ($name + ".log"),
			linux: {security_context: {namespace_options: {pid: 1}}}} * $config),
		sandbox_config: $pods}' | call CreateContainer >created || return
	jq -r .container_id created
	jq -c . created | call StartContainer >/dev/null
}
status() { echo "{\"container_id\":\"$1\"}" | call ContainerStatus | jq -r ".status.$2"; }
ended() { [ "$(status "$1" state)" = 2 ]; }
remove() {
	echo "{\"container_id\":\"$1\",\"timeout\":0}" | call StopContainer >/dev/null
	echo "{\"container_id\":\"$1\"}" | call RemoveContainer >/dev/null
}
# outcome CONFIG: the exit status and the output of a container that ends.
outcome() {
	rm -f logs/one.log
	one=$(container one "$1")
	until_true ended "$one"
	echo "$(status "$one" 'exit_code // 0') $(cut -d ' ' -f 4- logs/one.log | tr '\n' ,)"
	remove "$one"
}
# in_box SCRIPT [SECURITY]: a script in a container, with a security context.
in_box() {
	config=$(jq -n --arg script "$1" --argjson security "${2-{\}}" '{command: ["sh", "-c", $script], linux: {security_context: $security}}')
	outcome "$config"
}
is 'a container prints' "$(in_box 'echo hello')" '0 hello,'
is 'the exit status is that of the payload' "$(in_box 'exit 7')" '7 '
is 'a host name' "$(in_box hostname)" '0 first,'
is 'a variable' "$(outcome '{"command":["sh","-c","echo $A"],"envs":[{"key":"A","value":"two words"}]}')" '0 two words,'
is 'a working directory' "$(outcome '{"command":["pwd"],"working_dir":"/etc"}')" '0 /etc,'
is 'a terminal' "$(outcome '{"command":["sh","-c","tty"],"tty":true}' | tr -d '\r')" '0 /dev/pts/0,'
container missing '{"command":["nonesuch"]}' >/dev/null 2>err; like 'a program that is missing is named' "$(cat err)" \
	'*exec: "nonesuch": executable file not found in $PATH*'
container mode '{"command":["/etc/text"]}' >/dev/null 2>err; like 'a file that is not executable is named' "$(cat err)" '*"/etc/text": permission denied*'
is 'a user and a group' "$(in_box 'id -u; id -g; id -G' '{"run_as_user":{"value":5},"run_as_group":{"value":6},"supplemental_groups":[7]}')" \
	'0 5,6,6 7,'
is 'a user of the image' "$(in_box 'id -u' '{"run_as_username":"web"}')" '0 33,'
is 'the default capabilities' "$(in_box 'grep CapEff /proc/self/status | cut -f 2')" '0 00000000a80425fb,'
is 'one capability' "$(in_box 'grep CapPrm /proc/self/status | cut -f 2' '{"capabilities":{"drop_capabilities":["ALL"],"add_capabilities":["NET_RAW"]}}')" \
	'0 0000000000002000,'
is 'no new privileges' "$(in_box 'grep NoNewPrivs /proc/self/status | cut -f 2' '{"no_new_privs":true}')" '0 1,'
is 'the default filter' "$(in_box 'grep ^Seccomp: /proc/self/status | cut -f 2' '{"seccomp":{"profile_type":0}}')" '0 2,'
is 'no filter' "$(in_box 'grep ^Seccomp: /proc/self/status | cut -f 2' '{"seccomp":{"profile_type":1}}')" '0 0,'
echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}' >filter
like 'a filter of the node' "$(in_box 'mkdir /new 2>&1' '{"seccomp":{"profile_type":2,"localhost_ref":"'"$work"'/filter"}}')" '*No space left on device,'
like 'a read-only root' "$(in_box 'touch /new 2>&1' '{"readonly_rootfs":true}')" '*Read-only file system,'
is 'files of the kernel are masked' "$(in_box 'cat /proc/keys /proc/timer_list; ls /sys/firmware' \
	'{"masked_paths":["/proc/keys","/proc/timer_list","/sys/firmware"]}')" '0 '
like 'files of the kernel are read-only' "$(in_box 'echo x 2>&1 >/proc/sys/kernel/domainname' '{"readonly_paths":["/proc/sys"]}' 2>&1)" '*Read-only file system,'
mkdir volume && echo words >volume/file
is 'a volume' "$(outcome '{"command":["cat","/mnt/file"],"mounts":[{"container_path":"/mnt","host_path":"'"$work"'/volume"}]}')" '0 words,'
like 'a read-only volume' "$(outcome '{"command":["sh","-c","touch /mnt/file 2>&1"],"mounts":[{"container_path":"/mnt","host_path":"'"$work"'/volume","readonly":true}]}')" \
	'*Read-only file system,'
is 'a device' "$(outcome '{"command":["sh","-c",": </dev/log && echo read"],"devices":[{"container_path":"/dev/log","host_path":"/dev/fuse","permissions":"r"}]}')" \
	'0 read,'
is 'limits' "$(outcome '{"command":["sh","-c","cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares cpuset/cpuset.cpus"],
	"linux":{"resources":{"memory_limit_in_bytes":67108864,"cpu_period":100000,"cpu_quota":50000,"cpu_shares":200,"cpuset_cpus":"0"}}}')" \
	'0 67108864,50000,200,0,'
hungry=$(container hungry '{"command":["dd","if=/dev/zero","of=/dev/null","bs=64M","count=1"],"linux":{"resources":{"memory_limit_in_bytes":16777216}}}')
until_true ended "$hungry"
is 'too much memory' "$(status "$hungry" exit_code)" 137
is 'the engine sees the reason' "$(status "$hungry" reason)" OOMKilled
remove "$hungry"

# A container that runs.
back=$(container back '{"command":["sleep","1000"]}')
is 'a container runs' "$(status "$back" state)" 1
executed() { jq -n --arg id "$back" '{container_id: $id, cmd: $ARGS.positional}' --args -- "$@" | call ExecSync | jq -r '"\(.exit_code // 0) \(.stdout // "")\(.stderr // "")"'; }
is 'a program is executed' "$(executed sh -c 'tr "\0" " " </proc/1/cmdline')" '0 sleep 1000 '
is 'the exit status of an executed program' "$(executed sh -c 'exit 9')" '9 '
is 'an executed program has the same capabilities' "$(executed grep CapEff /proc/self/status)" '0 CapEff:	00000000a80425fb'
is 'the outputs of an executed program' "$(executed sh -c 'echo out; echo err >&2')" '0 out
err'
executed nonesuch >/dev/null 2>err; like 'an executed program that is missing is named' "$(cat err)" '*"nonesuch": executable file not found in $PATH*'
echo "{\"container_id\":\"$back\",\"linux\":{\"memory_limit_in_bytes\":33554432}}" | call UpdateContainerResources >/dev/null; is 'limits are changed' $? 0
is 'the limits have changed' "$(executed cat /sys/fs/cgroup/memory/memory.limit_in_bytes)" '0 33554432'
other=$(container other '{"command":["sleep","1000"]}')
is 'containers of a pod share a network' "$(executed readlink /proc/self/ns/net)" \
	"$(back=$other; executed readlink /proc/self/ns/net)"
is 'containers of a pod have their own processes' "$(executed sh -c 'ps | grep -c "[s]leep 1000"')" '0 1'
is 'the network of a pod' "$(executed ls /sys/class/net)" '0 eth0
lo'
echo "{\"container_id\":\"$other\",\"timeout\":1}" | call StopContainer >/dev/null; is 'a container is stopped' "$(status "$other" exit_code)" 137
remove "$other"
remove "$back"
trap=$(container trap '{"command":["sh","-c","trap \"exit 5\" TERM; echo ready; while :; do sleep 0.1; done"]}')
until_true grep -q ready logs/trap.log
echo "{\"container_id\":\"$trap\",\"timeout\":10}" | call StopContainer >/dev/null; is 'a stop sends SIGTERM' "$(status "$trap" exit_code)" 5
remove "$trap"
end_pod() {
	echo "{\"pod_sandbox_id\":\"$1\"}" | call StopPodSandbox >/dev/null && echo "{\"pod_sandbox_id\":\"$1\"}" | call RemovePodSandbox >/dev/null
}
end_pod "$first"; is 'a pod is removed' $? 0

# Pods that share with the node.
linux='{"cgroup_parent":"/pods","sysctls":[{"key":"kernel.shm_rmid_forced","value":"1"}],"security_context":{"namespace_options":{"pid":0}}}'
first=$(pod second "$linux")
is 'a sysctl of a pod' "$(in_box 'cat /proc/sys/kernel/shm_rmid_forced')" '0 1,'
is 'processes of a pod' "$(in_box 'tr "\0" " " </proc/1/cmdline' '{"namespace_options":{"pid":0}}')" '0 sleep 1000 ,'
end_pod "$first"
linux='{"cgroup_parent":"/pods","security_context":{"namespace_options":{"network":2,"pid":2,"ipc":2}}}'
first=$(pod "" "$linux")
is 'the namespaces of the node' "$(in_box 'for name in net pid ipc; do readlink /proc/self/ns/$name; done' \
	'{"namespace_options":{"network":2,"pid":2,"ipc":2}}')" "0 $(readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/ipc | tr '\n' ,)"
end_pod "$first"

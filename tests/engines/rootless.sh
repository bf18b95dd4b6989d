# podman and buildah of an ordinary user with subordinate IDs, who owns no control group.
user=ann
for name in passwd group subuid subgid; do
	cp "/etc/$name" "$name" 2>/dev/null || : >"$name"
done
echo "$user:x:2000:2000::$work/home:/bin/sh" >>passwd
echo "$user:x:2000:" >>group
for name in subuid subgid; do echo "$user:200000:65536" >$name; done
for name in passwd group subuid subgid; do
	[ -e "/etc/$name" ] && chmod 644 $name && mount --bind $name "/etc/$name"
done
mkdir -p home/.config/containers home/run
cp box.tar home/
cat >home/.config/containers/storage.conf <<END
[storage]
driver = "vfs"
END
cat >home/.config/containers/containers.conf <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
END
echo '{"default":[{"type":"insecureAcceptAnything"}]}' >home/.config/containers/policy.json
# The runtime, with the links beside it, is where the user can execute it.
mkdir home/bin
for program in "${runtime##*/}" jc-cgroup jc-unshare jc-rootfs jc-net; do
	[ ! -e "${runtime%/*}/$program" ] || cp "${runtime%/*}/$program" home/bin/
done
chmod 755 "$work" && chown -R 2000:2000 home && chmod 700 home/run
as_user() {
	runuser -u $user -- env -i HOME="$work/home" PATH="$PATH" XDG_RUNTIME_DIR="$work/home/run" TMPDIR="$work/home" \
		PODMAN_IGNORE_CGROUPSV1_WARNING=1 sh -c "cd; $1"
}
program=$work/home/bin/${runtime##*/}
podman="podman --runtime $program"
run="$podman run --rm --network none"
as_user "$podman load -q -i box.tar" >out 2>&1; is 'an image is loaded' $? 0

is 'a container of a user' "$(as_user "$run box sh -c 'id -u; cat /proc/self/uid_map'" | tr -s ' \n' ' ')" \
	'0 0 2000 1 1 200000 65536 '
is 'another user of the container' "$(as_user "$run --user 33:34 box sh -c 'id -u; id -g; touch /tmp/new; stat -c %u /tmp/new'" | tr '\n' ' ')" \
	'33 34 33 '
as_user "$run box sh -c 'exit 7'"; is 'the exit status' $? 7
as_user "$run box nonesuch" 2>err; is 'a program that is missing' $? 127
is 'files of the user' "$(as_user "echo text >mine; $run -v ./mine:/mine box sh -c 'cat /mine; stat -c %u /mine'" | tr '\n' ' ')" 'text 0 '
is 'a device of the host' "$(as_user "$run --device /dev/null:/dev/other box stat -c %t,%T /dev/other")" 1,3
as_user "$podman run -d --name one --network none box sleep 1000" >/dev/null; is 'a container in the background' $? 0
is 'a program joins it' "$(as_user "$podman exec one sh -c 'id -u; cat /proc/1/cmdline'" | tr '\0\n' '  ')" '0 sleep 1000 '
as_user "$podman exec one nonesuch" 2>err; is 'an executed program that is missing' $? 127
as_user "$podman kill one" >/dev/null; is 'a container is killed' $? 0
is 'its exit status' "$(as_user "$podman wait one")" 137
as_user "$podman rm one" >/dev/null; is 'a container is removed' "$? $(as_user "$podman ps -aq")" '0 '
# No user can make a control group here, and limits need one.
as_user "mkdir b; cd b; $program spec --rootless"
as_user "cd b; sed -i 's/\"terminal\": true/\"terminal\": false/' config.json; mkdir -p rootfs/bin; cp $(command -v busybox) rootfs/bin/sh"
is 'a bundle without an engine' "$(as_user "cd b; sed -i 's/\"sh\"\$/\"sh\", \"-c\", \"echo \$\$\"/' config.json; $program run one" 2>&1)" 1
as_user "cd b; sed -i 's/\"linux\": {/&\"resources\": {\"pids\": {\"limit\": 9}},/' config.json; $program run one" >err 2>&1; is 'a limit' $? 1
like 'a limit needs a control group' "$(cat err)" '*cgroup*'

buildah='buildah --storage-driver vfs'
is 'buildah runs a program' "$(as_user "c=\$($buildah from localhost/box); $buildah run --runtime $program \$c echo built; $buildah rm \$c >/dev/null")" built
# The process that holds podman's user namespace.
as_user "$podman system migrate"

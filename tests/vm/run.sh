# Runs in a virtual machine: a container's life from an image in an OCI layout to its removal, on cgroup v2.
for module in $(cat /lib/net.list); do insmod /lib/$module.ko 2>/dev/null; done
ip link set lo up
export HOME=/root
mkdir -p /root /home/user /layout/blobs/sha256 /r/bin /r/etc /r/tmp
chown 1000:1000 /home/user
cp /bin/busybox /r/bin/ && chroot /r /bin/busybox --install -s /bin
printf 'root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/sh\n' >/r/etc/passwd

# blob FILE: adds it to the layout and sets `digest` and `size`.
blob() {
	digest=$(sha256sum <"$1" | cut -d' ' -f1) size=$(stat -c %s "$1")
	cp "$1" "/layout/blobs/sha256/$digest"
}
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; esac
oci=application/vnd.oci.image
tar -C /r -cf /tmp/layer.tar .
blob /tmp/layer.tar
layer='{"mediaType":"'$oci.layer.v1.tar'","digest":"sha256:'$digest'","size":'$size'}'
echo '{"architecture":"'$arch'","os":"linux","config":{"Cmd":["sh"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:'$digest'"]}}' >/tmp/config
blob /tmp/config
echo '{"schemaVersion":2,"mediaType":"'$oci.manifest.v1+json'","config":{"mediaType":"'$oci.config.v1+json'","digest":"sha256:'$digest'","size":'$size'},"layers":['$layer']}' >/tmp/manifest
blob /tmp/manifest
echo '{"schemaVersion":2,"manifests":[{"mediaType":"'$oci.manifest.v1+json'","digest":"sha256:'$digest'","size":'$size'}]}' >/layout/index.json
echo '{"imageLayoutVersion":"1.0.0"}' >/layout/oci-layout

jc-pull -q oci:/layout >/tmp/record; is 'an image is pulled' $? 0
run() { jc-run --network none "$@" </tmp/record; }
is 'a container prints' "$(run -- echo hello)" hello
run -- sh -c 'exit 3'; is 'the exit status is that of the payload' $? 3
run -- nonesuch 2>/dev/null; is 'a program that is missing' $? 127
is 'the payload is confined' "$(run -- grep -E '^(NoNewPrivs|Seccomp|CapEff):' /proc/self/status | cut -f2 | tr '\n' ,)" \
	'00000000800405fb,1,2,'
run -- sh -c 'echo $$' >number
is 'the payload is process 1 of its namespace' "$(cat number)" 1
is 'limits hold' "$(run -m 64M --pids-limit 20 --cpus 0.5 -- \
	sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max cpu.max' | tr '\n' ,)" '67108864,20,50000 100000,'
run -m 16M -- dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; is 'too much memory' $? 137
is 'changes are dropped' "$(run -- touch /new; run -- ls /new 2>&1)" 'ls: /new: No such file or directory'
is 'a volume is read-only' "$(run -v /r:/mnt:ro -- touch /mnt/x 2>&1)" 'touch: /mnt/x: Read-only file system'
is 'a user of the image' "$(run -u web -- id -u)" 33

# Background.
jc-run -d --rm --name web -p 8080:80 --dns 192.0.2.1 </tmp/record -- \
	sh -c 'echo serving; exec httpd -f -p 80 -h /etc' >/tmp/id
is 'a start in the background' $? 0
i=0; until wget -q -O /tmp/got http://127.0.0.1:8080/passwd || [ $i -ge 50 ]; do sleep 0.2; i=$((i + 1)); done 2>/dev/null
is 'a published port answers' "$(head -1 /tmp/got)" 'root:x:0:0::/:/bin/sh'
is 'the container is listed' "$(jc-list | grep -c web)" 1
is 'exec joins' "$(jc-exec web -- sh -c 'hostname; pidof httpd' | tr '\n' ,)" "$(cut -c 1-12 /tmp/id),1,"
is 'exec is confined' "$(jc-exec web -- grep -E '^(NoNewPrivs|Seccomp|CapEff):' /proc/self/status | cut -f2 | tr '\n' ,)" \
	'00000000800405fb,1,2,'
is 'the log has the output' "$(jc-logs web)" serving
jc-stop web; is 'a stop' $? 0
is 'no container is listed' "$(jc-list -a | grep -c web)" 0

# A kept container, and a supervisor that is killed.
run --keep --name kept -- sh -c 'echo x >/made; exit 4'; is 'a kept container ends' $? 4
is 'a kept container is listed' "$(jc-list -a | grep -c kept)" 1
jc-rm kept; is 'a kept container is removed' $? 0
jc-run --network none </tmp/record -- sleep 1000 & supervisor=$!
until jc-list -q | grep -q .; do sleep 0.2; done
kill -9 $supervisor; wait $supervisor 2>/dev/null
i=0; while pidof sleep >/dev/null && [ $i -lt 50 ]; do sleep 0.2; i=$((i + 1)); done
is 'the payload dies with its supervisor' "$(pidof sleep)" ''

# An ordinary user, with one ID.
cp -a /r /home/user/r && chown -R 1000:1000 /home/user/r
is 'an ordinary user runs a container' "$(su -s /bin/sh user -c "export HOME=/home/user; cd
	jc-run --network none --rootfs r -- sh -c 'id -u; touch /made; ls /made'" 2>&1 | tr '\n' ,)" '0,/made,'

# The surroundings of an ordinary user.
as_user() { su -s /bin/sh user -c "export HOME=/home/user; cd; $1" 2>&1; }
run_r='jc-run --network none --rootfs r'
is 'a user without a delegated cgroup gets advice' \
	"$(as_user "$run_r -m 8M -- true" | grep -c 'hint: systemd-run --user --scope -p Delegate=yes')" 1
is 'a PID namespace of the host needs a cgroup' "$(as_user "$run_r --pid host -- true" | grep -c 'hint: --pid host')" 1
for switch in user/max_user_namespaces kernel/unprivileged_userns_clone; do
	before=$(cat /proc/sys/$switch)
	echo 0 >/proc/sys/$switch
	as_user "$run_r -- true" | grep -o 'the sysctl [^ ]* is 0'
	echo "$before" >/proc/sys/$switch
done >/tmp/named
is 'forbidden user namespaces are named by their sysctl' "$(tr '\n' , </tmp/named)" \
	'the sysctl user.max_user_namespaces is 0,the sysctl kernel.unprivileged_userns_clone is 0,'
is 'user namespaces work again' "$(as_user "$run_r -- id -u")" 0

jc-list >/dev/null; jc-net --gc
is 'no cgroup is left' "$(find /sys/fs/cgroup -mindepth 1 -type d)" ''
is 'no link is left' "$(ip -o link | grep -c .)" 1
is 'no mount is left' "$(grep -c overlay /proc/mounts)" 0
is 'no state is left' "$(ls /run/jc 2>/dev/null | grep -v '^\.' | wc -l)" 0

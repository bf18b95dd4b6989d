# Runs in the small virtual machine, as its first process: jc-oci on cgroup v2.
cg=/sys/fs/cgroup/jc/one
mkdir -p /b/rootfs/bin /b/rootfs/proc /b/rootfs/sys /b/rootfs/dev /b/rootfs/tmp
cp /bin/busybox /b/rootfs/bin/ && chroot /b/rootfs /bin/busybox --install -s /bin
# bundle PROGRAM LINUX: LINUX has more members of `linux`.
bundle() {
	cat >/b/config.json <<-END
		{"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "hostname": "inside",
		 "process": {"args": ["sh", "-c", "$1"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
		  "capabilities": {"bounding": ["CAP_MKNOD"], "effective": ["CAP_MKNOD"], "permitted": ["CAP_MKNOD"]}},
		 "mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/dev", "type": "tmpfs"},
		  {"destination": "/sys/fs/cgroup", "type": "cgroup"}],
		 "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "cgroup"}], "cgroupsPath": "/jc/one"$2}}
	END
}
run() { jc-oci run -b /b one 2>&1; }
status() { jc-oci state one | sed -n 's/.*"status": "\(.*\)".*/\1/p'; }

limits='"resources": {"memory": {"limit": 67108864, "swap": 83886080, "reservation": 33554432}, "pids": {"limit": 20},
 "cpu": {"quota": 25000, "period": 100000, "shares": 1024, "cpus": "1"}, "unified": {"memory.high": "60000000"}}'
bundle 'cd /sys/fs/cgroup; cat memory.max memory.swap.max memory.low memory.high pids.max cpu.max cpu.weight cpuset.cpus' ", $limits"
is 'limits become those of version 2' "$(run | tr '\n' ,)" '67108864,16777216,33554432,59998208,20,25000 100000,100,1,'
is 'no group is left' "$(ls -d $cg 2>/dev/null)" ''
bundle 'mknod /tmp/a c 1 3; mknod /tmp/b b 7 200; echo x >/tmp/a && (cat </tmp/b) 2>&1; id -u'
is 'a program of the kernel decides about devices' "$(run | tr '\n' ,)" "sh: can't open /tmp/b: Operation not permitted,0,"
bundle 'exit 7'
run; is 'the exit status is that of the program' $? 7
bundle 'sleep 1000 & sleep 1000' ', "resources": {"memory": {"limit": 67108864}}'
jc-oci create -b /b one >/tmp/out 2>&1 </dev/null; is 'a container is created' "$? $(cat /tmp/out)" '0 '
jc-oci start one; is 'a container is started' "$? $(status)" '0 running'
is 'a program joins the group' "$(jc-oci exec one sh -c 'cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max' | tr '\n' ,)" '0::/,67108864,'
jc-oci update --memory 32M one; is 'a limit is changed' "$? $(cat $cg/memory.max)" '0 33554432'
jc-oci pause one; is 'a container is paused' "$? $(status) $(grep frozen $cg/cgroup.events)" '0 paused frozen 1'
jc-oci exec one true 2>/tmp/err; is 'a paused container takes no program' $? 255
jc-oci resume one; is 'a container goes on' "$? $(status)" '0 running'
is 'processes of the group' "$(jc-oci ps --format json one | tr -d '[]' | tr , '\n' | sort -n)" "$(sort -n $cg/cgroup.procs)"
is 'usage' "$(jc-oci events --stats one | grep -c '"pids":{"current":2}')" 1
jc-oci pause one; jc-oci kill --all one KILL; i=0; until [ "$(status)" = stopped ] || [ $i -ge 100 ]; do sleep 0.1; i=$((i + 1)); done
is 'all processes of a paused container are killed' "$(status)" stopped
jc-oci delete one; is 'a container is deleted' "$? $(ls -d $cg 2>/dev/null)" '0 '
bundle 'dd if=/dev/zero of=/dev/null bs=100M count=1' ', "resources": {"memory": {"limit": 33554432}}'
run >/dev/null; is 'too much memory' $? 137
is 'no container is left' "$(jc-oci list -q)" ''

# Runs in a virtual machine, as a service of systemd: jc-oci --systemd-cgroup makes a scope for each container, by busctl(1).
mkdir -p /b /r/bin /r/proc /r/dev && cp /bin/busybox /r/bin/ && chroot /r /bin/busybox --install -s /bin
# bundle PROGRAM GROUP RESOURCES
bundle() {
	cat >/b/config.json <<-END
		{"ociVersion": "1.2.0", "root": {"path": "/r"},
		 "process": {"args": ["sh", "-c", "$1"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
		 "mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/dev", "type": "tmpfs"}],
		 "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}], "cgroupsPath": "$2", "resources": {$3}}}
	END
}
oci() { jc-oci --systemd-cgroup "$@"; }
shown() { systemctl show --value -p "$1" "${2-jc-one.scope}"; }
scope=/sys/fs/cgroup/jctest.slice/jctest-a.slice/jc-one.scope/container
limits='"memory": {"limit": 67108864}, "pids": {"limit": 20}, "cpu": {"quota": 25000, "period": 100000}'
found() { cat $scope/memory.max $scope/pids.max $scope/cpu.max | tr '\n' ,; }

bundle 'sleep 1000' jctest-a.slice:jc:one "$limits"
oci create -b /b --pid-file /pid one >/out 2>&1 </dev/null; is 'a container is created in a scope' "$? $(cat /out)" '0 '
is 'the scope is in its slice, and delegated' "$(shown ActiveState) $(shown Slice) $(shown Delegate)" 'active jctest-a.slice yes'
is 'limits are set below the scope' "$(found)" '67108864,20,25000 100000,'
is 'the program is in the scope' "$(cat /proc/$(cat /pid)/cgroup)" '0::/jctest.slice/jctest-a.slice/jc-one.scope/container'
oci start one; is 'a container of a scope is started' $? 0
systemctl daemon-reload
is 'a reload of systemd leaves the limits' "$(found)" '67108864,20,25000 100000,'
systemctl start systemd-tmpfiles-clean.service; systemctl set-property --runtime jctest-a.slice MemoryHigh=500M
is 'a change of the slice leaves the limits' "$(found)" '67108864,20,25000 100000,'
oci update --memory 32M one; is 'a limit is changed' "$? $(cat $scope/memory.max)" '0 33554432'
systemctl daemon-reload
is 'a reload leaves the changed limit' "$(cat $scope/memory.max)" 33554432
is 'a program joins the scope' "$(oci exec one cat /proc/self/cgroup)" '0::/jctest.slice/jctest-a.slice/jc-one.scope/container'
oci pause one; is 'a container of a scope is paused' "$? $(oci state one | grep -c paused)" '0 1'
oci resume one; is 'a container of a scope goes on' "$? $(oci state one | grep -c running)" '0 1'
oci delete -f one; is 'a container of a scope is deleted' "$? $(ls -d $scope 2>&1 | grep -vc 'No such file')" '0 0'
i=0; until [ "$(shown LoadState)" = not-found ] || [ $i -ge 50 ]; do sleep 0.2; i=$((i + 1)); done
is 'the scope is gone' "$(shown LoadState)" not-found

bundle 'exit 7' '' ''
oci run -b /b two; is 'the default slice, and the exit status' $? 7
bundle 'cat /proc/self/cgroup' '' ''
is 'the default scope' "$(oci run -b /b two)" 0::/system.slice/jc-oci-two.scope/container
i=0; until [ "$(shown LoadState jc-oci-two.scope)" = not-found ] || [ $i -ge 50 ]; do sleep 0.2; i=$((i + 1)); done
is 'a scope ends with its program' "$(shown LoadState jc-oci-two.scope)" not-found
bundle nonesuch '' ''
is 'a program that is missing leaves no scope' "$(oci run -b /b three >/dev/null 2>&1; shown LoadState jc-oci-three.scope)" not-found
bundle true /a/b ''
oci run -b /b four 2>/out; is 'a path is no scope' "$? $(grep -c 'not SLICE:PREFIX:NAME' /out)" '1 1'
bundle true '' ''
is 'without busctl' "$(PATH=/nowhere /usr/bin/jc-oci --systemd-cgroup run -b /b five 2>&1 | /bin/busybox grep -c busctl)" 1
is 'nothing is left' "$(jc-oci list -q; ls -d /sys/fs/cgroup/*/*jc-oci* 2>/dev/null)" ''
systemctl --failed --no-legend >/failed
is 'no unit has failed by a scope' "$(cat /failed)" ''

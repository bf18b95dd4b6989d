# Runs in a virtual machine, as a service of systemd: delegation of cgroups to services and to users.
group='cat /sys/fs/cgroup$(sed s/^0::// /proc/self/cgroup)'
echo user:100000:65536 >/etc/subuid
echo user:100000:65536 >/etc/subgid
loginctl enable-linger user
i=0; until [ -S /run/user/1000/bus ] || [ $i -ge 100 ]; do sleep 0.2; i=$((i + 1)); done
as_user() {
	runuser -u user -- env HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 \
		DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus sh -c "cd; $1"
}
service() { systemd-run -q --collect --pipe --wait "$@"; }
scope='systemd-run --user -q --scope -p Delegate=yes'
is 'a limit of root' "$(jc-cgroup -m 8M -- sh -c "$group/memory.max")" 8388608
is 'a service with a delegated subtree' \
	"$(service -p Delegate=yes /usr/bin/jc-cgroup -m 8M -- sh -c "$group/memory.max" 2>&1)" 8388608
is 'a limit of a user in a delegated scope' "$(as_user "$scope jc-cgroup -m 8M -- sh -c '$group/memory.max'" 2>&1)" 8388608
is 'a limit of processes beside that of the scope' \
	"$(as_user "$scope jc-cgroup --pids 5 -- true" 2>&1 | grep -c 'hint: .*--evacuate')" 1
is 'a limit of processes in a scope without one' \
	"$(as_user "$scope -p TasksMax=infinity jc-cgroup --pids 5 -- sh -c '$group/pids.max'" 2>&1)" 5
is 'a group beside the scope that started it' "$(as_user "$scope jc-cgroup -m 8M -- cat /proc/self/cgroup" | sed 's/jc+.*/jc+/')" \
	'0::/user.slice/user-1000.slice/user@1000.service/app.slice/jc+'
is 'a limit of the scope is not escaped' \
	"$(as_user "$scope -p MemoryMax=64M jc-cgroup -m 8M -- true" 2>&1 | grep -c 'hint: .*--evacuate')" 1
is 'a limit of the scope with --evacuate' \
	"$(as_user "$scope -p MemoryMax=64M jc-cgroup --evacuate -m 8M -- sh -c '$group/memory.max'" 2>&1)" 8388608
is 'a limit of a service of root is not escaped' \
	"$(service -p MemoryMax=64M /usr/bin/jc-cgroup -m 8M -- true 2>&1 | grep -c 'hint: --parent')" 1
is 'a service without a limit of that kind' \
	"$(service -p TasksMax=100 /usr/bin/jc-cgroup -m 8M -- sh -c "$group/memory.max" 2>&1)" 8388608
is 'a user without delegation gets advice' \
	"$(as_user 'jc-cgroup -m 8M -- true' 2>&1 | grep -c 'hint: systemd-run --user --scope -p Delegate=yes')" 1
mkdir -p /r/bin /r/proc /r/sys /r/dev /r/tmp && cp /bin/busybox /r/bin/ && chroot /r /bin/busybox --install -s /bin
mkdir /r/etc && touch /r/etc/hostname /r/etc/hosts /r/etc/resolv.conf
is 'a container of a user with a limit' \
	"$(as_user "$scope jc-run --rootfs /r --network none -m 8M -- cat /sys/fs/cgroup/memory.max" 2>&1)" 8388608
is 'a container in the background outlives its scope' "$(as_user "
	$scope jc-run -d --name web --rootfs /r --network none -m 8M -- sleep 1000 >/dev/null
	systemctl --user daemon-reload
	$scope jc-exec web -- cat /sys/fs/cgroup/memory.max; jc-stop web; jc-rm web; jc-list -a | grep -c web" 2>&1 | tr '\n' ,)" '8388608,0,'
is 'systemd starts anew and keeps the groups' "$(jc-cgroup --name kept -m 8M -- sh -c "
	systemctl daemon-reexec; $group/memory.max")" 8388608
is 'no group is left' "$(find /sys/fs/cgroup -name 'jc+*')" ''
systemctl --failed --no-legend >/failed
is 'no unit has failed' "$(cat /failed)" ''

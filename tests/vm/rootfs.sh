# Runs in the small virtual machine, as its first process: jc-rootfs on an older kernel, with cgroup v2.
mkdir -p /r/bin /r/etc /r/tmp /l1/d /l2 && cp /bin/busybox /r/bin/
for name in sh cat ls id grep tr touch true rm cut mkdir stat; do ln -s busybox /r/bin/$name; done
printf 'root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n' >/r/etc/passwd
touch /l1/d/x /l1/gone && mknod /l2/gone c 0 0
lower="tr ' ,' '\n\n' </proc/self/mountinfo | grep ^lowerdir"

# Overlays by mount(2).
is 'layers' "$(jc-rootfs --layer /r --layer /l1 --layer /l2 -- sh -c 'ls /d /gone; echo x >/new; cat /new' 2>&1 | tr '\n' ,)" \
	'ls: /gone: No such file or directory,/d:,x,x,'
is 'their names' "$(jc-rootfs --layer /r --layer /l1 -- sh -c "$lower")" 'lowerdir=/l1:/r'
mkdir '/a:b,c\d' && touch '/a:b,c\d/here'
is 'a difficult name' "$(jc-rootfs --layer /r --layer '/a:b,c\d' -- ls /here)" /here
set --
for n in $(seq 150); do mkdir -p /many/$n; echo $n >/many/$n/same; set -- "$@" --layer /many/$n; done
is 'many layers' "$(jc-rootfs --layer /r "$@" -- cat /same)" 150
is 'the layers are as they were' "$(ls /l1 /l2 /r | tr '\n' ' ')" '/l1: d gone  /l2: gone  /r: bin etc tmp '
mkdir /up
is 'an upper directory' "$(jc-rootfs --layer /r --upper /up -- sh -c 'echo kept >/kept'; cat /up/upper/kept)" kept

# The host's cgroup2 is as it was.
mount -o remount,nsdelegate /sys/fs/cgroup
options() { grep ' /sys/fs/cgroup ' /proc/mounts | grep -c nsdelegate; }
jc-rootfs --upper tmpfs /r -- true
is 'options of cgroup2' "$(options)" 1
jc-unshare -puiC -- jc-rootfs --upper tmpfs /r -- true
is 'options of cgroup2 from another namespace' "$(options)" 1
is 'cgroups are shown' "$(jc-rootfs --upper tmpfs /r -- sh -c 'ls -d /sys/fs/cgroup/cgroup.procs')" /sys/fs/cgroup/cgroup.procs
is 'cgroups of a namespace are shown' \
	"$(jc-cgroup --pids 9 -- jc-unshare -C -- jc-rootfs --upper tmpfs /r -- cat /sys/fs/cgroup/pids.max)" 9
is 'cgroups cannot be changed' "$(jc-rootfs --upper tmpfs /r -- sh -c 'mkdir /sys/fs/cgroup/x 2>/dev/null || echo no')" no

# What is hidden, and what the payload may do.
is 'masks' "$(jc-rootfs --upper tmpfs --mask default /r -- sh -c 'cat /proc/timer_list; echo 2>/dev/null >/proc/sys/kernel/hostname || echo no')" no
is 'privileges' "$(jc-rootfs --upper tmpfs --cap-drop ALL --no-new-privs --seccomp default -u web /r -- \
	sh -c 'id -u; grep -E "^(CapBnd|NoNewPrivs|Seccomp):" /proc/self/status | cut -f2' | tr '\n' ,)" '33,0000000000000000,1,2,'

# An ordinary user, with one ID.
mkdir /home && chown 1000:1000 /home && cp -a /r /home/own && chown -R 1000:1000 /home
single='jc-unshare -U --map-root -- jc-unshare -puiC -- jc-rootfs'
as_user() { su user -c "cd /home && $1"; }
is 'layers of a user' "$(as_user "$single --layer /l1 --layer /l2 --layer own -- sh -c 'id -u; ls /d /gone 2>/dev/null; touch /made; ls /made'" | tr '\n' ,)" '0,/d:,x,/made,'
is 'a directory of a user' "$(as_user "$single own -- sh -c 'stat -c %t:%T /dev/null; cat /proc/1/comm; touch /made'; ls own/made" | tr '\n' ,)" \
	'1:3,sh,own/made,'
is 'nothing is left' "$(grep -c -E 'overlay|/r ' /proc/mounts)" 0

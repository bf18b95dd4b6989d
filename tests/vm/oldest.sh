# Runs in a virtual machine whose kernel is older than the oldest one that jc supports (Linux 5.15): a program does all of
# its work, or fails with the reason. No program runs a payload with less than was asked for.
for module in $(cat /lib/net.list); do insmod /lib/$module.ko 2>/dev/null; done
mkdir -p /r/bin /root && cp /bin/busybox /r/bin/ && chroot /r /bin/busybox --install -s /bin
export HOME=/root
# outcome PROG...: `works`, if the program prints "ran" and succeeds; `says why`, if it
# fails with 125 and a hint about the kernel.
outcome() {
	code=0; out=$("$@" 2>/tmp/err) || code=$?
	case $code,$out in
	0,ran) echo works ;;
	125,) grep -q -e 'hint: Linux 5.15 or later is needed' -e 'hint: the kernel may lack' /tmp/err && echo 'says why' || cat /tmp/err ;;
	*) echo "status $code, $out, $(cat /tmp/err)" ;;
	esac
}
is 'namespaces' "$(outcome jc-unshare -puiC -- echo ran)" works
is 'a cgroup' "$(outcome jc-cgroup -m 8M --pids 9 -- echo ran)" works
is 'a root' "$(outcome jc-rootfs --upper tmpfs /r -- echo ran)" 'says why'
is 'a network' "$(outcome jc-net -- echo ran)" works
is 'a published port' "$(outcome jc-net -p 8080:80 -- echo ran)" 'says why'
is 'a container' "$(outcome jc-run --network none --rootfs /r -- echo ran)" 'says why'
is 'nothing is left' "$(jc-list -aq; find /sys/fs/cgroup -mindepth 1 -type d; ip -o link | grep -v ' lo:' | grep -c .)" 0

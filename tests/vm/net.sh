# Runs in the small virtual machine, as its first process: jc-net on a kernel with modules.
load() { for module in $(cat /lib/net.list); do
	case " $1 " in *" $module "*) ;; *) insmod /lib/$module.ko 2>/dev/null ;; esac
done; }
said() { "$@" 2>&1 | tr '\n' ';'; }
# Waits until the container that was started in the background is there.
ready() { i=0; while [ ! -s /tmp/up ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done; rm -f /tmp/up; }
ip link set lo up

is 'no netfilter' "$(said jc-net -- true | grep -c 'hint: the kernel may lack netfilter')" 1
load 'nf_tables nft_ct nft_chain_nat nft_nat nft_masq nft_fib nft_fib_ipv4 nft_fib_ipv6 nft_fib_inet bridge veth nf_conntrack_netlink'
# musl says Not supported, glibc Operation not supported.
is 'no bridge' "$(said jc-net -- true | sed 's/Operation not/Not/')" 'jc-net: make bridge jc0: Not supported: Unknown device type;jc-net: hint: the kernel lacks bridges: modprobe bridge;'
load 'nf_tables nft_ct nft_chain_nat nft_nat nft_masq nft_fib nft_fib_ipv4 nft_fib_ipv6 nft_fib_inet veth nf_conntrack_netlink'
is 'no nf_tables' "$(said jc-net -- true | grep -c 'hint: the kernel may lack nf_tables')" 1
load 'veth nf_conntrack_netlink'
is 'no veth' "$(said jc-net -- true | grep -c 'hint: the kernel lacks veth: modprobe veth')" 1
load nf_conntrack_netlink
is 'no ctnetlink' "$(said jc-net -p 5353:53/udp -- true | grep -c 'hint: the kernel lacks ctnetlink')" 1
is 'a start without ctnetlink' "$(jc-net --ip 10.88.0.9 -- echo ran)" ran
load ''
is 'a UDP port' "$(jc-net -p 5353:53/udp -- echo ran)" ran
v6=/proc/sys/net/ipv6/conf
is 'IPv6 is forwarded, and links listen to routers' "$(cat $v6/all/forwarding $v6/default/forwarding $v6/lo/accept_ra | tr '\n' ,)" 1,0,1,
is 'a start' "$(jc-net -- sh -c 'ip -4 -o addr show dev eth0 | grep -c "inet 10.88."; ip route | grep -c "default via 10.88.0.1"' | tr '\n' ,)" 1,1,
is 'no IPv6 address on trial' "$(jc-net -- ip -6 addr show dev eth0 | grep -c tentative)" 0
is 'three addresses' "$(jc-net -- ip -6 -o addr show dev eth0 | grep -c inet6)" 2

# A server, and its addresses.
printf '#!/bin/sh\necho hello\n' >/bin/hello
chmod +x /bin/hello
jc-net --status-fd 3 -p 8080:7 -- sh -c 'echo up >/tmp/up; exec nc -ll -p 7 -e hello' 3>/tmp/status &
server=$!
ready; sleep 0.5
four=$(sed -n 's/.*"addresses":\["\([0-9.]*\).*/\1/p' /tmp/status)
six=$(sed -n 's/.*,"\(fd[0-9a-f:]*\)\/64.*/\1/p' /tmp/status)
host6=$(ip -6 -o addr show dev jc0 scope global | sed 's/.*inet6 \([^/]*\).*/\1/' | grep ^fd)
ask() { nc -w 3 "$@" </dev/null 2>/dev/null; }
from() { jc-net "$1" -- nc -w 3 $2 $3 </dev/null 2>/dev/null | grep -c hello; }
is 'the host, IPv4' "$(ask "$four" 7)" hello
is 'the host, IPv6' "$(ask "$six" 7)" hello
is 'a neighbour, IPv4' "$(from --verbose "$four" 7)" 1
is 'a neighbour, IPv6' "$(from --verbose "$six" 7)" 1
is 'an echo, IPv4' "$(jc-net -- ping -c 1 -W 3 "$four" | grep -c ' 0% packet loss')" 1
is 'an echo, IPv6' "$(jc-net -- ping -c 1 -W 3 "$six" | grep -c ' 0% packet loss')" 1
is 'published, by 127.0.0.1' "$(ask 127.0.0.1 8080)" hello
is 'published, from a container' "$(from --verbose 10.88.0.1 8080)" 1
is 'published, from a container, IPv6' "$(from --verbose "$host6" 8080)" 1
is 'published, from elsewhere' "$(jc-net --bridge w0 -- nc -w 3 10.89.0.1 8080 </dev/null | grep -c hello)" 1
is 'not published' "$(jc-net --bridge w0 -- nc -w 2 "$four" 7 </dev/null 2>/dev/null | grep -c .)" 0
is 'one list' "$(jc-net --list | grep -c "0.0.0.0:8080->7/tcp \[::\]:8080->7/tcp")" 1
is 'taken' "$(said jc-net -p 8080:80 -- true)" 'jc-net: publish 0.0.0.0:8080/tcp: the port is in use;'
jc-net --internal --bridge in0 -- nc -w 2 10.88.0.1 8080 </dev/null 2>/dev/null; is 'internal' $? 1

# Killed, the holder takes its rules along.
kill -9 $server; sleep 1
is 'nobody is listed' "$(jc-net --list)" ''
is 'the port is free' "$(jc-net -p 8080:80 -- echo ran)" ran
i=0; while [ $i -lt 200 ]; do jc-net -- true || break; i=$((i + 1)); done
is 'two hundred starts' $i 200
sleep 1; jc-net --gc
is 'nothing is left' "$(ip -o link | grep -c .)" 1
is 'IPv6 is forwarded no more' "$(cat $v6/all/forwarding $v6/default/forwarding | tr '\n' ,)" 0,0,

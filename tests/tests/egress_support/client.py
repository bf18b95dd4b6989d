"""Connections as a program makes them: each must end as a direct connection would."""

import hashlib
import socket
import sys
import time


def connect(what):
    s = socket.create_connection((sys.argv[1], 7000), 10)
    s.sendall(what + b"\n")
    return s


def read_all(s):
    parts = []
    while part := s.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


# Half-close: the end of one direction leaves the other open.
s = connect(b"count")
block = b"x" * (1 << 20)
for _ in range(32):
    s.sendall(block)
s.shutdown(socket.SHUT_WR)
assert read_all(s) == b"%d" % (32 << 20)

# All bytes, in their order, to a slow reader.
s = connect(b"send")
waiting = -1
while waiting != (waiting := len(s.recv(1 << 24, socket.MSG_PEEK))):
    time.sleep(0.02)
expected = hashlib.sha256(bytes(range(256)) * 4096 * 32).digest()
assert hashlib.sha256(read_all(s)).digest() == expected

# Back-pressure: a server that does not read makes the client wait.
s = connect(b"stall")
s.setblocking(False)
sent = 0
try:
    while sent < 1 << 30:
        sent += s.send(block)
except BlockingIOError:
    pass
assert 0 < sent < 1 << 28, sent
s.setblocking(True)
s.close()

# A reset of the server is a reset here.
s = connect(b"reset")
try:
    assert read_all(s) == b"", "bytes"
    raise AssertionError("an end, not a reset")
except ConnectionResetError:
    pass

# An end of the server leaves this direction open.
s = connect(b"end")
assert read_all(s) == b""
s.sendall(b"more")
s.close()

# Many at once, each with its own bytes.
many = [connect(b"echo") for _ in range(300)]
for number, s in enumerate(many):
    s.sendall(b"%06d" % number)
for number, s in enumerate(many):
    got = b""
    while len(got) < 6:
        got += s.recv(6)
    assert got == b"%06d" % number
for s in many:
    s.close()
print("done")

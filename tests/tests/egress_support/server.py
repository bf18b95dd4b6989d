"""A server for the test of connections: the first line that a client sends says what the server does."""

import socket
import struct
import threading

server = socket.create_server(("203.0.113.20", 7000), backlog=1024)


def serve(peer):
    file = peer.makefile("rb")
    what = file.readline().strip().decode()
    if what == "count":
        # The client closes its half, and then gets the number of its bytes.
        total = 0
        while part := file.read1(1 << 20):
            total += len(part)
        peer.sendall(b"%d" % total)
    elif what == "send":
        block = bytes(range(256)) * 4096
        for _ in range(32):
            peer.sendall(block)
    elif what == "reset":
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif what == "echo":
        while part := file.read1(65536):
            peer.sendall(part)
    elif what == "stall":
        threading.Event().wait()
    elif what == "end":
        # The server closes its half, and then reads on.
        peer.shutdown(socket.SHUT_WR)
        file.read()
    file.close()
    peer.close()


print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

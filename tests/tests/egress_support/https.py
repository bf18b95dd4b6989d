"""Serves the present directory by HTTPS. Usage: https.py ADDRESS PORT CERTIFICATE KEY."""

import functools
import http.server
import ssl
import sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[3], sys.argv[4])
handler = http.server.SimpleHTTPRequestHandler
handler.protocol_version = "HTTP/1.1"
handler.log_message = lambda *_: None
server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), functools.partial(handler))
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()

"""Serve files so fast that the server is not the bottleneck.

python benchmarks/fileserver.py FOLDER [seconds added to each request]

The server uses sendfile and one process per busy connection. It prints its port, supports ``Range: bytes=N-`` and
keep-alive, and exits when its standard input is closed.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys
import threading
import time

CHUNK = 1 << 18
RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-", re.IGNORECASE)


def serve(connection: socket.socket, folder: str, delay: float) -> None:
    """Answer the requests of one connection."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pending = b""
    while True:
        while b"\r\n\r\n" not in pending:
            data = connection.recv(65536)
            if not data:
                return
            pending += data
        head, _, pending = pending.partition(b"\r\n\r\n")
        method, target = head.split(b" ", 2)[:2]
        if delay:
            time.sleep(delay)
        answer(connection, method, os.path.join(folder, target.decode().partition("?")[0].lstrip("/")), head)


def answer(connection: socket.socket, method: bytes, path: str, head: bytes) -> None:
    if not os.path.isfile(path):
        if os.path.isdir(path):
            links = "".join(f'<a href="/{name}">{name}</a>' for name in sorted(os.listdir(path)))
            page = f"<!doctype html><html><body>{links}</body></html>".encode()
            fields = f"200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(page)}"
        else:
            page, fields = b"", "404 Not Found\r\nContent-Length: 0"
        connection.sendall(f"HTTP/1.1 {fields}\r\n\r\n".encode() + page)
        return
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = RANGE.search(head)
        first = int(found[1]) if found else 0
        status = f"206 Partial Content\r\nContent-Range: bytes {first}-{size - 1}/{size}" if found else "200 OK"
        fields = (
            f'HTTP/1.1 {status}\r\nContent-Length: {size - first}\r\nAccept-Ranges: bytes\r\nETag: "{size}"\r\n\r\n'
        )
        connection.sendall(fields.encode())
        if method != b"GET":
            return
        if not isinstance(connection, ssl.SSLSocket):
            connection.sendfile(file, first)
            return
        # Python's sendfile over TLS sends 8 KiB at a time.
        file.seek(first)
        while data := file.read(CHUNK):
            connection.sendall(data)


def watched(connection: socket.socket, context: ssl.SSLContext | None, folder: str, delay: float) -> None:
    with connection:
        try:
            if context is None:
                serve(connection, folder, delay)
            else:
                with context.wrap_socket(connection, server_side=True) as encrypted:
                    serve(encrypted, folder, delay)
        except OSError:
            pass  # the client closed the connection


def main() -> None:
    folder, delay = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    context = None
    if len(sys.argv) > 3:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[3])
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=watched, args=(connection, context, folder, delay), daemon=True).start()


if __name__ == "__main__":
    main()

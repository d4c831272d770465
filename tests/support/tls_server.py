"""A server with TLS, whose certificate an authority of the tests issued, and a system that trusts that authority.

``AUTHORITY`` is the file of the authority. The server's certificate is valid for 127.0.0.1, ::1 and localhost.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

_FOLDER = Path(__file__).with_name("tls")
AUTHORITY = _FOLDER / "authority.pem"
# OpenSSL finds an authority in a folder by the hash of its name: openssl x509 -noout -hash
AUTHORITY_HASH = "1540b762"


class _Handler(BaseHTTPRequestHandler):
    server: TlsServer

    def do_GET(self) -> None:
        self.server.count += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


class TlsServer(ThreadingHTTPServer):
    """Serves the same bytes at every path, and counts the requests and the connections."""

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = body
        self.count = 0
        self.connections = 0
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_FOLDER / "server.pem")
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """Return the URL of a path."""
        return f"https://{host}:{self.server_address[1]}/{path}"

    def verify_request(self, *_: object) -> bool:
        """Count a connection, before its handshake."""
        self.connections += 1
        return True

    def handle_error(self, *_: object) -> None:
        """Ignore clients that end the connection because they do not trust the certificate."""


def command_with_trusted_authority(folder: Path) -> list[str] | str:
    """Return the start of a command that runs another one on a system that trusts the authority.

    The command sees a bundle of certificates with the authority in place of the system's bundle. It runs in a mount
    namespace of its own, so the system itself is not changed. Return the reason as text if that is not possible.
    """
    bundle = os.path.realpath(ssl.get_default_verify_paths().openssl_cafile)
    if sys.platform != "linux" or not os.path.isfile(bundle):
        return "this system has no bundle of certificates that OpenSSL reads"
    if shutil.which("unshare") is None:
        return "needs the command unshare"
    extended = folder / "system with authority.pem"
    extended.write_text(Path(bundle).read_text("ascii", "replace") + AUTHORITY.read_text("ascii"), "ascii", "replace")
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    for options in ([], ["--map-root-user"]):
        command = ["unshare", "--mount", *options, "sh", "-c", script, "sh", str(extended), bundle]
        if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0:
            return command
    return "needs root, or user namespaces, to mount a file"

"""Tiny but valid wheels: the same arguments give the same bytes on every machine.

They are padded to an exact size if one is given, so that a test can cut, count and compare them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import random
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server import Server

SMALLEST = 2048
"""Every ``size`` from here on can be had, for names and versions of a reasonable length."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def wheel_filename(name: str = "demo", version: str = "1.0") -> str:
    """Return the file name of a wheel: ``demo-1.0-py3-none-any.whl``."""
    return f"{name}-{version}-py3-none-any.whl"


def make_wheel(name: str = "demo", version: str = "1.0", size: int | None = None) -> bytes:
    """Return the bytes of a wheel that installs one module, with exactly ``size`` bytes if given."""
    if size is None:
        return _archive(name, version, None)
    padding = size - len(_archive(name, version, b""))
    if padding < 0:
        raise ValueError(f"a wheel of this name and version has at least {size - padding} bytes, not {size}")
    return _archive(name, version, _noise(f"{name} {version}", padding))


def sha256(data: bytes) -> str:
    """Return ``"sha256:<hex>"`` of some bytes, in the form for ``hashes=``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def hex_of(data: bytes, algorithm: str = "sha256") -> str:
    """Return the hex digits of a hash of some bytes."""
    return hashlib.new(algorithm, data).hexdigest()


@dataclass(frozen=True)
class Wheel:
    """A wheel: its bytes, file name and hashes."""

    filename: str
    data: bytes

    @property
    def digest(self) -> str:
        """``"sha256:<hex>"``."""
        return sha256(self.data)

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def path(self) -> str:
        """Its path on a server."""
        return f"/files/{self.filename}"

    def hex(self, algorithm: str = "sha256") -> str:
        return hex_of(self.data, algorithm)

    def on(self, server: Server, **how: Any) -> str:
        """Serve the wheel, and return its URL."""
        return server.serve(self.path, self.data, **how)


def _noise(seed: str, count: int) -> bytes:
    return random.Random(seed).randbytes(count)


def _archive(name: str, version: str, padding: bytes | None) -> bytes:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"__version__ = {version!r}\n".encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if padding is not None:
        files[f"{name}.bin"] = padding
    # With leading zeros, each byte of padding makes the wheel one byte longer, so every size is possible.
    record = "".join(f"{path},sha256={_urlsafe(content)},{len(content):010d}\n" for path, content in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode("ascii")

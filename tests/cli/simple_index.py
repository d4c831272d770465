"""A package index on the test server: PEP 503 pages with hashes, and the metadata of wheels beside them (PEP 658)."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from server import Answer, Request, Server, plain


@dataclass(frozen=True)
class Built:
    """A wheel that pip and uv can install."""

    name: str
    version: str
    requires: tuple[str, ...] = ()
    tag: str = "py3-none-any"

    @property
    def filename(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}-{self.tag}.whl"

    @property
    def metadata(self) -> bytes:
        lines = [f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}"]
        return "\n".join([*lines, *(f"Requires-Dist: {one}" for one in self.requires), ""]).encode()

    @property
    def data(self) -> bytes:
        module, info = self.name.replace("-", "_"), self.filename.removesuffix(f"-{self.tag}.whl") + ".dist-info"
        files = {
            f"{module}.py": f"version = {self.version!r}\n".encode(),
            f"{info}/METADATA": self.metadata,
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {self.tag}\n".encode(),
        }
        record = "".join(f"{path},sha256={_urlsafe(content)},{len(content)}\n" for path, content in files.items())
        files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for path, content in files.items():
                archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), content)
        return buffer.getvalue()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class Index:
    """An index with some wheels. Its responses can be chosen, for example to require credentials."""

    def __init__(self, server: Server, wheels: Sequence[Built], *, how: Answer = plain, at: str = "/simple") -> None:
        self.server = server
        self.wheels = {wheel.filename: wheel for wheel in wheels}
        self.at = at
        links: dict[str, list[str]] = defaultdict(list)
        for wheel in wheels:
            server.serve(self.file(wheel), wheel.data, how=how)
            server.serve(self.file(wheel) + ".metadata", wheel.metadata, how=how)
            links[wheel.name].append(self._link(wheel))
        for name, lines in links.items():
            server.serve(f"{at}/{name}/", "\n".join(lines).encode(), how=how, Content_Type="text/html")

    def _link(self, wheel: Built) -> str:
        metadata = f"sha256={hashlib.sha256(wheel.metadata).hexdigest()}"
        return (
            f'<a href="{self.file(wheel)}#sha256={wheel.sha256}" data-core-metadata="{metadata}" '
            f'data-dist-info-metadata="{metadata}">{wheel.filename}</a><br>'
        )

    def file(self, wheel: Built) -> str:
        """The path of a wheel on the server."""
        return f"{self.at}/files/{wheel.filename}"

    def url(self, userinfo: str = "") -> str:
        """The URL for ``--index-url``."""
        return self.server.url(f"{self.at}/", userinfo=userinfo)

    def wheel_url(self, wheel: Built, userinfo: str = "") -> str:
        """The URL of a wheel, with its hash."""
        return self.server.url(self.file(wheel), userinfo=userinfo) + f"#sha256={wheel.sha256}"

    def downloads(self, agent: str = "wheelcache/") -> list[Request]:
        """Return the requests for wheels by the program with this User-Agent."""
        return [
            request
            for request in self.server.requests()
            if request.target.endswith(".whl") and request.headers.get("user-agent", "").startswith(agent)
        ]


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode("ascii")

"""Base classes for a transport that serves the clients of httpx and of httpx2, and the types of its arguments.

A client accepts a body only if its class derives from the client's library. Type checkers require the same of a
transport. The classes here therefore derive from those of all installed libraries.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, TypeAlias

from .library import load

if TYPE_CHECKING:
    import httpx
    import httpx2

    AnyRequest: TypeAlias = httpx.Request | httpx2.Request
    AnyResponse: TypeAlias = httpx.Response | httpx2.Response
    SyncTransport: TypeAlias = httpx.BaseTransport | httpx2.BaseTransport
    AsyncTransport: TypeAlias = httpx.AsyncBaseTransport | httpx2.AsyncBaseTransport

    class TransportBase(httpx.BaseTransport, httpx.AsyncBaseTransport, httpx2.BaseTransport, httpx2.AsyncBaseTransport):
        """A transport of both libraries."""

        def handle_request(self, request: Any) -> Any: ...

        async def handle_async_request(self, request: Any) -> Any: ...

    class ByteStreamBase(httpx.SyncByteStream, httpx.AsyncByteStream, httpx2.SyncByteStream, httpx2.AsyncByteStream):
        """A body of both libraries."""

else:

    def _installed_classes(*names: str) -> tuple[type, ...]:
        modules = []
        for library in ("httpx", "httpx2"):
            try:
                modules.append(load(library).httpx)
            except ImportError:
                continue  # httpx2 is optional
        # With httpx2.alias_httpx(), both names are the same module.
        return tuple(getattr(module, name) for module in dict.fromkeys(modules) for name in names)

    AnyRequest = reduce(or_, _installed_classes("Request"))
    AnyResponse = reduce(or_, _installed_classes("Response"))
    SyncTransport = reduce(or_, _installed_classes("BaseTransport"))
    AsyncTransport = reduce(or_, _installed_classes("AsyncBaseTransport"))

    class TransportBase(*_installed_classes("BaseTransport", "AsyncBaseTransport")):
        """A transport of the installed libraries."""

    class ByteStreamBase(*_installed_classes("SyncByteStream", "AsyncByteStream")):
        """A body of the installed libraries."""

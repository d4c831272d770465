"""Send requests with the caller's asynchronous client of httpx or httpx2."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ..._operation import Operation
from ..response import Body
from .httpx_adapter import HttpxAdapter, HttpxBody
from .interface import PreparedRequest
from .library import Library

if TYPE_CHECKING:
    from .async_client import BlockingAsyncClient


class AsyncHttpxAdapter(HttpxAdapter):
    """Sends requests with an asynchronous client: see :class:`.interface.Adapter`.

    Args:
        client: the client.
    """

    def __init__(self, client: BlockingAsyncClient) -> None:
        super().__init__(client.wrapped, None)
        self._blocking = client

    def _send_native(self, request: PreparedRequest) -> Any:
        return self._blocking.send(request.native, **self._options(request))

    def _create_body(self, native: Any) -> Body:
        return AsyncHttpxBody(self._require_library(), native, self._blocking)


class AsyncHttpxBody(HttpxBody):
    """The body of a response of an asynchronous client: see :class:`..response.Body`."""

    def __init__(self, library: Library, native: Any, client: BlockingAsyncClient) -> None:
        super().__init__(library, native, None)
        self._client = client
        self._async_chunks: Any = None

    def interruptible(self, op: Operation) -> AbstractContextManager[None]:  # noqa: ARG002 - see the base class
        """Do nothing, since cancelling an operation cancels the scope of each wait."""
        return nullcontext()

    def _next_chunk(self) -> bytes | None:
        if self._async_chunks is None:
            chunks = self._native.aiter_bytes() if self.is_decoded else self._native.aiter_raw()
            self._async_chunks = chunks.__aiter__()
        return self._client.wait_for(self._read_next)

    def _read_next(self) -> Awaitable[bytes | None]:
        next_chunk: Awaitable[bytes | None] = anext(self._async_chunks, None)
        return next_chunk

    def close(self) -> None:
        """Release the connection."""
        self._client.close_response(self._native)

"""Connections that can be interrupted at every wait, on every platform.

A blocking socket call cannot be interrupted on every platform. On Windows, even Ctrl-C does not end it
(https://github.com/python/cpython/issues/85609). Each wait is therefore divided into short ones. The running operation
is checked between them. Only name lookups have no timeout. They run in a daemon thread that is abandoned when the
operation is cancelled.

TLS runs over memory buffers (:class:`ssl.MemoryBIO`). The same code serves TLS over a socket, and TLS over TLS if the
proxy itself requires TLS.

A connection withholds bodies of a declared size from the pool (:mod:`.detached_body`). The transport reads these bodies
directly from the connection.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  - getaddrinfo would import this module later, without the import lock
import errno
import os
import select
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from ..interrupt import check_running
from .detached_body import detach_body

_T = TypeVar("_T")

# The longest wait between two checks of the operation, in seconds.
_WAIT_SECONDS = 0.25
# The size of a read from the socket below TLS. OpenSSL itself would read from the socket twice per record.
_TLS_READ_SIZE = 1 << 19
_IN_PROGRESS = {errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK)}


class InterruptibleBackend:
    """Creates connections: a ``NetworkBackend`` of httpcore or httpcore2.

    Args:
        httpcore: the library. Its errors are raised.
    """

    def __init__(self, httpcore: Any) -> None:
        self._httpcore = httpcore

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> SocketStream:
        """Connect to the first address of a host that accepts the connection.

        Raises:
            httpcore.ConnectError, httpcore.ConnectTimeout: if no address accepts the connection.
        """
        with _translated_errors(self._httpcore.ConnectTimeout, self._httpcore.ConnectError):
            first_error: OSError | None = None
            options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *(socket_options or ())]
            for family, kind, protocol, _, address in _look_up(host, port):
                try:
                    connection = _connect((family, kind, protocol), address, timeout, local_address, options)
                except OSError as error:
                    first_error = first_error or error
                    continue
                return SocketStream(self._httpcore, connection)
            raise first_error or OSError("the name lookup returned no address")


class InterruptibleStream:
    """A connection. Its ``receive_into`` and ``send`` raise the errors of the operating system.

    Args:
        httpcore: the library. The other methods raise its errors.

    Attributes:
        body_size: the size in bytes of the body that is withheld from the pool, or ``None``.
        expects_head: whether a request was sent and nothing was read after it.
    """

    def __init__(self, httpcore: Any) -> None:
        self.httpcore = httpcore
        self.body_size: int | None = None
        self.expects_head = False
        # Bytes of the body that were received together with the head and are still unread.
        self._unread = b""
        # All reads share this buffer. The system clears newly allocated memory. That takes a tenth of the time of
        # parallel downloads.
        self._buffer = bytearray()

    def close(self) -> None:
        """Close the connection."""
        raise NotImplementedError

    def get_extra_info(self, info: str) -> Any:
        """Return a property of the connection, by the name that httpcore uses."""
        raise NotImplementedError

    def receive_into(self, buffer: memoryview, budget: _TimeBudget) -> int:
        raise NotImplementedError

    def send(self, data: bytes, budget: _TimeBudget) -> None:
        raise NotImplementedError

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes for the pool, or no bytes at the end of the stream."""
        data = bytes(self.read_body(max_bytes, timeout))
        if self.expects_head:
            self.expects_head = False
            if (detached := detach_body(data)) is not None:
                data, body, self.body_size = detached
                self._unread = body + self._unread
        return data

    def read_body(self, max_bytes: int, timeout: float | None = None) -> memoryview:
        """Return the next bytes of a body that is withheld from the pool, or no bytes at the end of the stream.

        The bytes are valid until the next read.
        """
        if self._unread:
            data, self._unread = self._unread[:max_bytes], self._unread[max_bytes:]
            return memoryview(data)
        if len(self._buffer) < max_bytes:
            self._buffer = bytearray(max_bytes)
        buffer = memoryview(self._buffer)[:max_bytes]
        with _translated_errors(self.httpcore.ReadTimeout, self.httpcore.ReadError):
            return buffer[: self.receive_into(buffer, _TimeBudget(timeout))]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of the bytes."""
        if buffer:  # the pool also writes the empty body of each request
            self.body_size = None
            self.expects_head = buffer.startswith(b"GET ")
        with _translated_errors(self.httpcore.WriteTimeout, self.httpcore.WriteError):
            self.send(buffer, _TimeBudget(timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> TlsStream:
        """Return a TLS connection over this one. If the handshake fails, this connection is closed."""
        try:
            with _translated_errors(self.httpcore.ConnectTimeout, self.httpcore.ConnectError):
                return TlsStream(self, ssl_context, server_hostname, _TimeBudget(timeout))
        except BaseException:
            self.close()
            raise


class SocketStream(InterruptibleStream):
    """A plain connection."""

    def __init__(self, httpcore: Any, connection: socket.socket) -> None:
        super().__init__(httpcore)
        connection.settimeout(_WAIT_SECONDS)
        self._socket = connection

    def receive_into(self, buffer: memoryview, budget: _TimeBudget) -> int:
        return budget.spend(partial(self._socket.recv_into, buffer))

    def send(self, data: bytes, budget: _TimeBudget) -> None:
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[budget.spend(partial(self._socket.send, remaining)) :]

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        """Return a property of the connection, by the name that httpcore uses."""
        match info:
            case "socket":
                return self._socket
            case "client_addr":
                return self._socket.getsockname()
            case "server_addr":
                return self._socket.getpeername()
            case "is_readable":
                return bool(self._unread) or self._socket.fileno() < 0 or _is_ready(self._socket, 0.0)
        return None


class TlsStream(InterruptibleStream):
    """A TLS connection over another connection."""

    def __init__(
        self, below: InterruptibleStream, context: ssl.SSLContext, server_hostname: str | None, budget: _TimeBudget
    ) -> None:
        super().__init__(below.httpcore)
        self._below = below
        self._received = memoryview(bytearray(_TLS_READ_SIZE))
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._run(self._tls.do_handshake, budget)

    def _run(self, step: Callable[[], _T], budget: _TimeBudget) -> _T:
        """Run a step of TLS, and the reads and writes that it requires on the connection below."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._flush(budget)
                if size := self._below.receive_into(self._received, budget):
                    self._incoming.write(self._received[:size])
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                # Send the alert. It contains the reason for the peer, such as an untrusted certificate.
                try:
                    self._flush(budget)
                except OSError:
                    pass  # The peer has already closed the connection. The TLS error is the reason.
                raise
            else:
                self._flush(budget)
                return result

    def _flush(self, budget: _TimeBudget) -> None:
        if self._outgoing.pending:
            self._below.send(self._outgoing.read(), budget)

    def receive_into(self, buffer: memoryview, budget: _TimeBudget) -> int:
        try:
            return self._run(partial(self._read_records, buffer), budget)
        except ssl.SSLEOFError:
            # Many servers close the connection without the alert that TLS requires. HTTP itself declares the length of
            # each body.
            return 0

    def _read_records(self, buffer: memoryview) -> int:
        """Decrypt all records that were received completely. OpenSSL decrypts one record of up to 16 KiB per call."""
        read: Any = self._tls.read  # typeshed does not declare a memoryview argument and an int result
        size: int = read(len(buffer), buffer)
        while 0 < size < len(buffer):
            try:
                more = read(len(buffer) - size, buffer[size:])
            except ssl.SSLWantReadError:
                break
            if not more:
                break  # The peer has closed the connection. The next read reports it again.
            size += more
        return size

    def send(self, data: bytes, budget: _TimeBudget) -> None:
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[self._run(partial(self._tls.write, remaining), budget) :]

    def close(self) -> None:
        """Close the connection below."""
        self._below.close()

    def get_extra_info(self, info: str) -> Any:
        """Return a property of the connection, by the name that httpcore uses."""
        match info:
            case "ssl_object":
                return self._tls
            case "is_readable" if self._unread or self._tls.pending() or self._incoming.pending:
                return True
        return self._below.get_extra_info(info)


class _TimeBudget:
    """The time that one call may spend in short waits. Only waits without progress are counted."""

    def __init__(self, seconds: float | None) -> None:
        self._remaining = seconds

    def spend(self, wait: Callable[[], _T]) -> _T:
        """Repeat a wait of at most ``_WAIT_SECONDS`` until it succeeds.

        Raises:
            TimeoutError: if the budget is spent.
            OperationCancelledError: if the running operation is cancelled.
        """
        while True:
            check_running()
            try:
                return wait()
            except TimeoutError:
                if self._remaining is not None:
                    self._remaining -= _WAIT_SECONDS
                    if self._remaining <= 0:
                        raise


@contextmanager
def _translated_errors(timeout: type[Exception], other: type[Exception]) -> Iterator[None]:
    """Translate errors of the operating system into those of httpcore."""
    try:
        yield
    except TimeoutError as error:
        raise timeout(str(error)) from error
    except OSError as error:
        raise other(str(error)) from error


def _look_up(host: str, port: int) -> list[Any]:
    """Return the addresses of a host."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # the host is a name and not an address
    return _run_interruptibly(partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))


def _run_interruptibly(action: Callable[[], _T]) -> _T:
    """Run a blocking action in a daemon thread, and abandon the thread if the running operation is cancelled."""
    results: list[_T] = []
    errors: list[Exception] = []
    done = threading.Event()

    def work() -> None:
        try:
            results.append(action())
        except Exception as error:
            errors.append(error)
        finally:
            done.set()

    try:
        threading.Thread(target=work, name="wheelcache-lookup", daemon=True).start()
    except RuntimeError:
        return action()  # no thread can be started
    while not done.wait(_WAIT_SECONDS):
        check_running()
    if errors:
        raise errors[0]
    return results[0]


def _connect(
    kind: tuple[int, int, int],
    address: Any,
    timeout: float | None,
    local_address: str | None,
    options: Iterable[Any],
) -> socket.socket:
    connection = socket.socket(*kind)
    try:
        if local_address is not None:
            connection.bind((local_address, 0))
        connection.setblocking(False)
        code = connection.connect_ex(address)
        if code in _IN_PROGRESS:
            _TimeBudget(timeout).spend(partial(_wait_until_connected, connection))
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        _check_connected(code)
        for option in options:
            connection.setsockopt(*option)  # macOS refuses this if the server has already closed the connection
    except BaseException:
        connection.close()
        raise
    return connection


def _wait_until_connected(connection: socket.socket) -> None:
    if not _is_ready(connection, _WAIT_SECONDS, write=True):
        raise TimeoutError("timed out")


if sys.platform == "win32":

    def _is_ready(connection: socket.socket, seconds: float, *, write: bool = False) -> bool:
        """Return whether a socket becomes ready within this time."""
        connections = [connection]
        # Windows reports a refused connection as an exceptional condition only.
        return any(select.select([] if write else connections, connections if write else [], connections, seconds))

    def _check_connected(code: int) -> None:
        if code:
            raise OSError(None, socket.errorTab.get(code, f"error {code}"), None, code)

else:

    def _is_ready(connection: socket.socket, seconds: float, *, write: bool = False) -> bool:
        """Return whether a socket becomes ready within this time."""
        # select() refuses descriptors above 1023.
        poll = select.poll()
        poll.register(connection, select.POLLOUT if write else select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _check_connected(code: int) -> None:
        if code:
            raise OSError(code, os.strerror(code))

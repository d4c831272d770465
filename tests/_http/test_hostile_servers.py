"""Servers that send what no correct server sends: odd addresses, words for a terminal, and bytes after the end."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from machines import Machine
from raw_server import Answer, RawServer, chunked, response
from wheels import Wheel

from wheelcache import Cache, DownloadError, requests_client
from wheelcache._http.adapters.library import load

# Under Windows, one library is installed.
LIBRARIES = ["httpx"] if sys.platform == "win32" else ["httpx", "httpx2"]
CLIENTS = ["own", *LIBRARIES, "requests"]


@pytest.fixture
def open_cache(machine: Machine, tmp_path: Path) -> Iterator[Callable[..., Cache]]:
    """Return a function that opens a cache with a client of one library."""
    with ExitStack() as stack:

        def open_with(name: str, **options: Any) -> Cache:
            client: Any = None
            if name == "requests":
                client = requests_client(stack.enter_context(requests.Session()))
            elif name != "own":
                client = stack.enter_context(load(name).httpx.Client(**options))
            return stack.enter_context(machine.cache(tmp_path / "cache", client=client))

        yield open_with


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], RawServer]]:
    """Return a function that starts a server."""
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(RawServer(answer))


Open = Callable[..., Cache]
Serve = Callable[[Answer], RawServer]


@pytest.mark.parametrize("first", ["chunked", "length", "not found", "redirect"])
@pytest.mark.parametrize("body", ["chunked", "length"])
def test_bytes_after_a_response_are_not_the_next_response(
    body: str, first: str, open_cache: Open, serve: Serve, wheel: Wheel, other_wheel: Wheel
) -> None:
    """Our own client does not take a second response to one request for the response to the next request."""
    extra = chunked(other_wheel.data) if body == "chunked" else response(other_wheel.data)

    def answer(head: bytes) -> bytes:
        if b"/first/" not in head:
            return response(wheel.data)
        return {
            "chunked": chunked(wheel.data),
            "length": response(wheel.data),
            "not found": response(b"", "404 Not Found"),
            "redirect": response(b"", "302 Found", f"Location: /{wheel.filename}"),
        }[first] + extra

    server, cache = serve(answer), open_cache("own")
    try:
        assert cache.fetch(server.url(f"/first/{wheel.filename}")).path.read_bytes() == wheel.data
    except DownloadError:
        assert first == "not found"
    assert cache.fetch(server.url(f"/second/{wheel.filename}")).path.read_bytes() == wheel.data


@pytest.mark.parametrize("name", CLIENTS)
def test_a_chunked_body_leaves_the_connection_usable(name: str, open_cache: Open, serve: Serve, wheel: Wheel) -> None:
    """A body of chunks with nothing after it does not close the connection."""
    server, cache = serve(lambda _: chunked(wheel.data)), open_cache(name)
    for folder in "abc":
        assert cache.fetch(server.url(f"/{folder}/{wheel.filename}")).path.read_bytes() == wheel.data
    assert server.connections == 1


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize(
    "location",
    [
        *("http://[::1]@b]/", "http://[::1/", "http://[v1.x]/", "http://", "///", "http://127.0.0.1:99999/"),
        *("http://a..b/", "http://.../", f"http://{'a' * 70}.example/", "http://xn--/", "http://\xe2\x80\x8b/"),
        *("file:///etc/passwd", "file://localhost/etc/passwd", "ftp://127.0.0.1/", "javascript:x", "\xff\xfe://x/"),
        *("http://127.0.0.1:0/", "http://u:p@/", "\x1b[31m://x/", "http://\x1b[31m/", "http://a b/"),
    ],
)
@pytest.mark.parametrize("method", ["fetch", "metadata"])
def test_an_odd_location_is_an_error_of_the_download(
    method: str, location: str, name: str, open_cache: Open, serve: Serve, wheel: Wheel
) -> None:
    """A redirect to an address that is none, or that no client can use, is an error that shows it without commands."""
    server, cache = serve(lambda _: response(b"", "302 Found", f"Location: {location}")), open_cache(name)
    with pytest.raises(DownloadError) as caught:
        getattr(cache, method)(server.url(f"/{wheel.filename}"), hashes=wheel.digest)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", CLIENTS)
def test_the_words_after_a_status_are_shown_without_commands(
    name: str, open_cache: Open, serve: Serve, wheel: Wheel
) -> None:
    """An error does not repeat control characters or a text of any length from the server."""
    sent = response(b"", f"404 \x1b[31mgone\x9b\x07{'z' * 5000}")
    server, cache = serve(lambda _: sent), open_cache(name)
    with pytest.raises(DownloadError) as caught:
        cache.fetch(server.url(f"/{wheel.filename}"), hashes=wheel.digest)
    text = str(caught.value)
    assert text.isprintable()
    assert "?[31mgone" in text
    assert len(text) < 500


def test_an_immense_delay_is_a_number(open_cache: Open, serve: Serve, wheel: Wheel) -> None:
    """A Retry-After with thousands of digits ends the download, and its error contains a finite number."""
    server = serve(lambda _: response(b"", "503 Busy", f"Retry-After: {'9' * 5000}"))
    with pytest.raises(DownloadError) as caught:
        open_cache("own").fetch(server.url(f"/{wheel.filename}"), hashes=wheel.digest)
    assert caught.value.retry_after == float("9" * 12)


@pytest.mark.parametrize("name", CLIENTS)
def test_ranges_of_one_byte_do_not_cause_a_request_for_each_byte(
    name: str, open_cache: Open, serve: Serve, wheel: Wheel
) -> None:
    """If a server sends a part of the requested range only, METADATA is read from the whole wheel."""
    size = wheel.size

    def answer(head: bytes) -> bytes:
        requested = re.search(rb"range: bytes=(-?)(\d+)", head, re.IGNORECASE)
        if b".metadata" in head:
            return response(b"", "404 Not Found")
        if requested is None:
            return response(wheel.data)
        first, count = (size - 22, 22) if requested[1] else (int(requested[2]), 1)
        field = f"Content-Range: bytes {first}-{first + count - 1}/{size}"
        return response(wheel.data[first : first + count], "206 Partial Content", field)

    server, cache = serve(answer), open_cache(name)
    assert b"Metadata-Version" in cache.metadata(server.url(f"/{wheel.filename}"))
    assert len(server.heads) == 4


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("via", ["mirror", "redirect"])
def test_the_parameters_of_a_client_are_not_sent_to_another_origin(
    via: str, name: str, open_cache: Open, serve: Serve, wheel: Wheel
) -> None:
    """The ``params`` of a client, which may be a token, stay with the origin of the requested URL."""
    other = serve(lambda _: response(wheel.data))
    there = other.url(f"/{wheel.filename}?signature=1")
    refused, redirected = response(b"", "404 No"), response(b"", "302 Found", f"Location: {there}")
    server = serve(lambda _: refused if via == "mirror" else redirected)
    cache = open_cache(name, params={"token": "hunter2"})
    cache.fetch(server.url(f"/{wheel.filename}"), hashes=wheel.digest, mirrors=[there] if via == "mirror" else [])
    assert b"token=hunter2" in server.heads[0]
    assert f"GET /{wheel.filename}?signature=1 ".encode() in other.heads[0]


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_parameters_of_a_client_do_not_replace_those_of_a_url(
    name: str, open_cache: Open, serve: Serve, wheel: Wheel
) -> None:
    """The query of a redirect to the same origin is kept, and the ``params`` that it lacks are added."""

    def answer(head: bytes) -> bytes:
        if b"signature" in head:
            return response(wheel.data)
        return response(b"", "302 Found", f"Location: /{wheel.filename}?signature=1&token=new")

    server = serve(answer)
    cache = open_cache(name, params={"token": "old", "other": ["1", "2"]})
    cache.fetch(server.url(f"/{wheel.filename}"), hashes=wheel.digest)
    assert b"?token=old&other=1&other=2 " in server.heads[0]
    assert b"?signature=1&token=new&other=1&other=2 " in server.heads[1]

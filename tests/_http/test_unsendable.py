"""Requests that cannot be sent, with every client: the error is the same, and no request is repeated in vain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from http_clients import KINDS, Kind
from machines import Machine
from marks import any_system
from server import Server
from wheels import Wheel

from wheelcache import AsyncCache, DownloadError
from wheelcache._http.adapters.library import load

pytestmark = any_system

NAME = "demo-1.0-py3-none-any.whl"


def fail(kind: Kind | None, url: str, folder: Path, machine: Machine, **options: Any) -> DownloadError:
    """Fetch a URL with a client, or with that of the cache, and return the error."""

    async def fetch_async() -> None:
        assert kind is not None
        async with kind.library.AsyncClient(**options) as client, AsyncCache(folder, client=client) as cache:
            await cache.fetch(url)

    def fetch() -> None:
        if kind is None:
            with machine.cache(folder) as cache:
                cache.fetch(url)
        elif kind.is_async:
            anyio.run(fetch_async)
        else:
            with kind.library.Client(**options) as client, machine.cache(folder, client=client) as cache:
                cache.fetch(url)

    with pytest.raises(DownloadError) as caught:
        fetch()
    return caught.value


@pytest.mark.parametrize("kind", [None, *KINDS], ids=str)
def test_a_url_that_cannot_be_encoded(kind: Kind | None, machine: Machine, tmp_path: Path) -> None:
    """A lone surrogate in a URL, such as one from a file name, is a DownloadError."""
    error = fail(kind, f"http://127.0.0.1:9/\udc80/{NAME}", tmp_path, machine)
    assert error.problem == "the URL cannot be requested"
    assert error.attempts == 1


@pytest.mark.parametrize("kind", [None, *(kind for kind in KINDS if not kind.is_async)], ids=str)
@pytest.mark.parametrize("host", ["a" * 70 + ".example.org", "a..example.org"])
def test_a_host_name_that_cannot_be_encoded(kind: Kind | None, host: str, machine: Machine, tmp_path: Path) -> None:
    """A label of a host name that is empty or too long is a DownloadError, and the name is looked up once only."""
    error = fail(kind, f"http://{host}/{NAME}", tmp_path, machine)
    assert error.problem == "the URL cannot be requested"
    assert error.attempts == 1


def test_a_redirect_to_a_host_name_that_cannot_be_encoded(
    server: Server, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """A server may name such a host in a redirect. A mirror is used."""
    url = server.serve(
        "/moved/" + wheel.filename, how=lambda e: e.send(302, {"Location": f"http://{'a' * 70}.example/x"})
    )
    with machine.cache(tmp_path / "cache") as cache:
        found = cache.fetch(url, hashes=wheel.digest, mirrors=[wheel.on(server)])
    assert found.path.read_bytes() == wheel.data


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_header_field_of_the_client_that_cannot_be_sent(
    kind: Kind, server: Server, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """A line break in a field of the client, often after a token, is an error that names the client and no value."""
    error = fail(kind, wheel.on(server), tmp_path, machine, headers={"X-Token": "secret\n"})
    assert error.problem == "a header field of the client has characters that cannot be sent"
    assert error.attempts == 1
    assert "secret" not in str(error) + repr(error.__cause__)
    assert server.count() == 0


@pytest.mark.parametrize("name", ["httpx"] if sys.platform == "win32" else ["httpx", "httpx2"])
def test_an_error_of_the_system_that_the_library_does_not_translate(
    name: str, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """An OSError from a transport of the caller, such as one of the certificate store, is an error of the download."""
    httpx = load(name).httpx

    def fail(_: object) -> None:
        raise OSError(22, "Invalid parameter")

    with (
        httpx.Client(transport=httpx.MockTransport(fail)) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
        pytest.raises(DownloadError, match="the connection failed: ") as caught,
    ):
        cache.fetch(f"https://example.org/{wheel.filename}", hashes=wheel.digest)
    assert isinstance(caught.value.__cause__, OSError)

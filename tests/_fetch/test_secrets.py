"""Test that no error, log line, record or file name contains a user name, password or token."""

from __future__ import annotations

import base64
import logging
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from folders import files_in
from machines import Machine
from marks import any_system
from server import (
    Answer,
    Server,
    html,
    not_http,
    plain,
    redirect,
    reset,
    status,
    truncated,
    wrong_bytes,
)
from wheels import Wheel

from wheelcache import Cache, DownloadError, WheelCacheError
from wheelcache._http.errors import FailureKind

pytestmark = any_system

MARK = "x5ecretx"  # in every secret, and in nothing else
USER, PASSWORD, TOKEN, FURTHER = f"alice{MARK}", f"hunter2{MARK}", f"token{MARK}", f"further{MARK}"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode("ascii")


def secrets_in(text: str) -> list[str]:
    """Return the secrets that a text contains, in plain text or base64."""
    return [secret for secret in (MARK, BASIC) if secret in text]


def everything_of(error: BaseException) -> str:
    """Return all that a program may print of an error: text, arguments, data, pickle, and traceback with causes."""
    again = pickle.loads(pickle.dumps(error))
    parts = [
        str(error),
        repr(error),
        repr(error.args),
        repr(vars(error)),
        str(pickle.dumps(error)),
        str(again),
        repr(vars(again)),
        repr(getattr(error, "__notes__", "")),
        *traceback.format_exception(error),
    ]
    return "\n".join(parts)


FAULTS: dict[str, Callable[[Server], Answer]] = {
    "404": lambda server: status(404),
    "401": lambda server: status(401),
    "503": lambda server: status(503),
    "429 and wait": lambda server: status(429, retry_after="3600"),
    "truncated": lambda server: truncated(10),
    "reset": lambda server: reset(),
    "no HTTP": lambda server: not_http,
    "html": lambda server: html,
    "wrong bytes": lambda server: wrong_bytes(b"x" * 100),
    "to a circle": lambda server: redirect(f"/there?token={TOKEN}"),
    "to a missing file": lambda server: redirect(
        f"http://{FURTHER}:{FURTHER}@127.0.0.1:{server.port}/gone?token={TOKEN}#{FURTHER}"
    ),
    "to nobody": lambda server: redirect(f"http://{FURTHER}:{FURTHER}@127.0.0.1:1/gone?token={TOKEN}"),
    "to a bad port": lambda server: redirect(f"http://{USER}:{FURTHER}/{TOKEN}@127.0.0.1/?{TOKEN}"),
    "to a bad host": lambda server: redirect(f"http://{FURTHER}@[bad]/?{TOKEN}"),
    "to another scheme": lambda server: redirect(f"ftp://{FURTHER}@127.0.0.1/?{TOKEN}"),
    "to rubbish": lambda server: redirect(f"http://{FURTHER}\x7f{TOKEN}"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("whose", ["own", "callers"])
def test_no_failure_shows_a_secret(
    name: str,
    hashed: bool,
    whose: str,
    server: Server,
    machine: Machine,
    wheel: Wheel,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error with its causes, the log and the cache folder contain no secret, for any fault of the server."""
    fault = FAULTS[name](server)
    server.serve(wheel.path, wheel.data, how=fault)
    server.serve("/there", how=redirect(f"{wheel.path}?token={TOKEN}&more={FURTHER}"))
    url = server.url(f"{wheel.path}?token={TOKEN}", userinfo=f"{USER}:{PASSWORD}")
    options = {"headers": {"X-Token": TOKEN}} if whose == "callers" else {}
    caplog.set_level(logging.DEBUG)
    with httpx.Client(**options) as client:
        cache = machine.cache(tmp_path / "cache", client=client if whose == "callers" else None)
        with cache, pytest.raises(WheelCacheError) as caught:
            cache.fetch(url, hashes=wheel.digest if hashed else None)
    assert secrets_in(everything_of(caught.value)) == []
    check_folder(tmp_path / "cache")
    check_log(caplog)


def check_folder(folder: Path) -> None:
    for name, content in files_in(folder).items():
        assert secrets_in(name + content.decode("latin-1")) == []


def check_log(caplog: pytest.LogCaptureFixture) -> None:
    """Check that wheelcache logs no secret, and that httpx, which logs each URL, gets none with credentials."""
    for record in caplog.records:
        text = f"{record.getMessage()} {record.args}"
        assert not record.name.startswith("wheelcache") or secrets_in(text) == []
        if record.name in {"httpx", "httpx2"}:
            assert USER not in text
            assert PASSWORD not in text


@pytest.mark.parametrize("hashed", [True, False])
def test_no_success_stores_a_secret(
    hashed: bool, server: Server, cache: Cache, wheel: Wheel, caplog: pytest.LogCaptureFixture
) -> None:
    """A wheel whose URL and redirect contain secrets is stored without them."""
    caplog.set_level(logging.DEBUG)
    wheel.on(server)
    server.serve(f"/from/{wheel.filename}", how=redirect(f"{wheel.path}?token={FURTHER}"))
    url = server.url(f"/from/{wheel.filename}?token={TOKEN}", userinfo=f"{USER}:{PASSWORD}")
    found = cache.fetch(url, hashes=wheel.digest if hashed else None)
    assert secrets_in(repr(found)) == []
    assert found.url == server.url(f"/from/{wheel.filename}?***", userinfo="***")
    check_folder(cache.path)
    check_log(caplog)
    (entry,) = cache.entries()
    assert secrets_in(repr(entry)) == []


@pytest.mark.parametrize("whose", ["own", "callers"])
def test_httpx_logs_no_credentials_of_a_redirect(
    whose: str, server: Server, machine: Machine, wheel: Wheel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Credentials in a Location header are neither sent nor logged by httpx, which logs every requested URL."""
    caplog.set_level(logging.INFO)
    wheel.on(server)
    url = server.serve(f"/from/{wheel.filename}", how=redirect(server.url(wheel.path, userinfo=f"{USER}:{PASSWORD}")))
    with (
        httpx.Client() as client,
        machine.cache(tmp_path / "cache", client=client if whose == "callers" else None) as cache,
    ):
        cache.fetch(url, hashes=wheel.digest)
    assert secrets_in(caplog.text) == []
    assert wheel.path in caplog.text
    assert secrets_in(str(server.requests())) == []


QUOTING = [
    httpx.ConnectError,
    httpx.ReadError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    httpx.DecodingError,
    httpx.InvalidURL,
]


@pytest.mark.parametrize("kind", QUOTING, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("where", ["first", "behind a redirect"])
def test_the_text_of_httpx_errors_is_not_shown(
    kind: type[Exception], where: str, machine: Machine, wheel: Wheel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The text of a transport's error, which may quote the URL, is neither in our error nor in its causes."""
    caplog.set_level(logging.DEBUG)
    host = f"https://{USER}:{PASSWORD}@example.org"

    def fail(request: httpx.Request) -> httpx.Response:
        if where == "behind a redirect" and request.url.path == f"/{wheel.filename}":
            return httpx.Response(302, headers={"Location": f"{host}/there?token={FURTHER}"})
        text = f"cannot reach {request.url} ({request.url.query!r}, {request.headers})"
        raise kind(text) from kind(text)

    with (
        httpx.Client(transport=httpx.MockTransport(fail)) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
        pytest.raises(WheelCacheError) as caught,
    ):
        cache.fetch(f"{host}/{wheel.filename}?token={TOKEN}", hashes=wheel.digest)
    assert secrets_in(everything_of(caught.value)) == []
    assert caught.value.problem.partition(",")[0] in list(FailureKind)
    check_log(caplog)


@pytest.mark.parametrize("code", [None, 200, 302, 503])
def test_the_text_of_a_hooks_error_is_not_shown(
    code: int | None, server: Server, machine: Machine, wheel: Wheel, tmp_path: Path
) -> None:
    """The text of an httpx error that a hook of the caller's client raises is not shown."""

    def refuse(response: httpx.Response) -> None:
        text = f"will not have {response.url}"
        if code is None:
            raise httpx.TooManyRedirects(text, request=response.request)
        raise httpx.HTTPStatusError(text, request=response.request, response=response)

    wheel.on(server, how=plain if code in {None, 200} else status(code))
    with (
        httpx.Client(event_hooks={"response": [refuse]}) as client,
        machine.cache(tmp_path / "cache", client=client) as cache,
        pytest.raises(DownloadError) as caught,
    ):
        cache.fetch(server.url(f"{wheel.path}?token={TOKEN}"), hashes=wheel.digest)
    assert caught.value.status == (code if code in {302, 503} else None)
    assert secrets_in(everything_of(caught.value)) == []


def test_the_system_error_is_the_cause(server: Server, cache: Cache, wheel: Wheel) -> None:
    """The system's error for a connection, with its errno, is the cause of our error, since people search for it."""
    url = wheel.on(server)
    server.close()
    with pytest.raises(WheelCacheError) as caught:
        cache.fetch(url, hashes=wheel.digest)
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno is not None


def test_netrc_is_not_shown(
    server: Server, cache: Cache, wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """Credentials from the netrc file are sent but not shown."""
    caplog.set_level(logging.DEBUG)
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    url = wheel.on(server, how=status(403))
    with pytest.raises(WheelCacheError) as caught:
        cache.fetch(url, hashes=wheel.digest)
    assert server.requests()[0].headers["authorization"] == f"Basic {BASIC}"
    assert secrets_in(everything_of(caught.value)) == []
    wheel.on(server, how=plain)
    cache.fetch(url, hashes=wheel.digest)
    check_folder(cache.path)
    check_log(caplog)


def test_progress_shows_no_secret(server: Server, cache: Cache, wheel: Wheel) -> None:
    """Progress events contain no secret, not even those of failed attempts."""
    events: list[object] = []
    url = wheel.on(server)
    server.script(url, status(503), reset(), redirect(f"http://{FURTHER}@127.0.0.1:1/?{FURTHER}"))
    cache.fetch(
        server.url(f"{wheel.path}?{TOKEN}", userinfo=f"{USER}:{PASSWORD}"), hashes=wheel.digest, progress=events.append
    )
    assert len(events) > 4
    assert secrets_in(repr(events)) == []

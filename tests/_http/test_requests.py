"""A session of requests as the client of a cache."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import requests
from machines import Machine
from marks import any_system
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPDigestAuth
from server import (
    Answer,
    Exchange,
    Server,
    chunked,
    chunked_cut,
    gzipped,
    plain,
    redirect,
    reset,
    stalled,
    status,
    truncated,
    until_closed,
)
from urllib3 import exceptions as urllib3
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import AsyncCache, Cache, DownloadError, Status, requests_client
from wheelcache._http.adapters.requests_client import RequestsClient
from wheelcache._http.adapters.requests_errors import nested_system_error, to_failure

pytestmark = any_system

USER, PASSWORD = "alice", "hunter2"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode("ascii")
# Wine reports the end of the connection.
WHEN_RESET = "the server closed the connection" if sys.platform == "win32" else "the connection broke while reading: "
LARGE = Wheel(wheel_filename("large"), make_wheel("large", size=300_000))


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """A session with the settings of requests."""
    with requests.Session() as session:
        yield session


@pytest.fixture
def client(session: requests.Session) -> RequestsClient:
    """The session as a client."""
    return requests_client(session)


Fetch = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def fetch(request: pytest.FixtureRequest, client: RequestsClient, machine: Machine, tmp_path: Path) -> Fetch:
    """Return a function that fetches a wheel with the session."""

    def with_cache(*args: Any, **kwargs: Any) -> Any:
        with machine.cache(tmp_path / "cache", client=client) as cache:
            return cache.fetch(*args, **kwargs)

    def with_async_cache(*args: Any, **kwargs: Any) -> Any:
        async def run() -> Any:
            async with AsyncCache(tmp_path / "cache", client=client) as cache:
                return await cache.fetch(*args, **kwargs)

        return anyio.run(run)

    return with_cache if request.param == "sync" else with_async_cache


@pytest.mark.parametrize("how", [plain, chunked, until_closed, gzipped])
def test_a_session_downloads(how: Answer, fetch: Fetch, server: Server) -> None:
    """A wheel is downloaded with every framing of the body, and no content coding is requested."""
    found = fetch(LARGE.on(server, how=how), hashes=LARGE.digest)
    assert (found.status, found.path.read_bytes()) == (Status.DOWNLOADED, LARGE.data)
    (request,) = server.requests()
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"].startswith("python-requests/")


@pytest.mark.parametrize("fault", [truncated(1000), chunked_cut(1000)])
def test_a_session_resumes(fault: Answer, fetch: Fetch, server: Server) -> None:
    """After a body that breaks off, the next request asks for the rest."""
    url = LARGE.on(server)
    server.script(url, fault)
    found = fetch(url, hashes=LARGE.digest)
    assert (found.status, found.path.read_bytes()) == (Status.RESUMED, LARGE.data)
    first, second = server.requests()
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=1000-"


def test_a_session_revalidates(session: requests.Session, server: Server, machine: Machine, tmp_path: Path) -> None:
    """A stale response is revalidated, over the same connection."""
    clients: set[tuple[str, int]] = set()

    def answer(exchange: Exchange) -> None:
        clients.add(exchange.client)
        plain(exchange)

    url = LARGE.on(server, how=answer)
    with machine.cache(tmp_path / "cache", client=requests_client(session)) as cache:
        statuses = [cache.fetch(url, refresh=True).status for _ in range(3)]
    assert statuses == [Status.DOWNLOADED, Status.REVALIDATED, Status.REVALIDATED]
    assert len(clients) == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", ["absolute", "path", "relative", "same scheme", "query", "credentials"])
def test_redirects_are_followed(code: int, kind: str, fetch: Fetch, server: Server, wheel: Wheel) -> None:
    """Every status that redirects and every form of Location leads to the wheel."""
    wheel.on(server)
    to = {
        "absolute": server.url(wheel.path),
        "path": wheel.path,
        "relative": f"../files/{wheel.filename}#part",
        "same scheme": f"//127.0.0.1:{server.port}{wheel.path}",
        "query": f"{wheel.path}?signature=abc%2F",
        "credentials": server.url(wheel.path, userinfo="eve:chosen"),
    }[kind]
    url = server.serve(f"/from/{wheel.filename}", how=redirect(to, code))
    found = fetch(url, hashes=wheel.digest)
    assert (found.url, found.path.read_bytes()) == (url, wheel.data)
    _, request = server.requests()
    assert request.target == (to if kind == "query" else wheel.path)
    assert "authorization" not in request.headers


def test_the_body_of_a_redirect_is_not_read(fetch: Fetch, server: Server, wheel: Wheel) -> None:
    """A redirect is followed although its body never ends."""
    wheel.on(server)

    def answer(exchange: Exchange) -> None:
        exchange.start(302, {"Location": wheel.path})
        while True:
            exchange.write(b"x" * 1000)

    url = server.serve(f"/from/{wheel.filename}", how=answer)
    assert fetch(url, hashes=wheel.digest).path.read_bytes() == wheel.data


def test_cookies_of_a_redirect_are_kept(session: requests.Session, fetch: Fetch, server: Server, wheel: Wheel) -> None:
    """A cookie that a redirect sets is sent to its target, and belongs to the session from then on."""
    wheel.on(server)
    url = server.serve(
        f"/from/{wheel.filename}",
        how=lambda exchange: exchange.send(302, {"Location": wheel.path, "Set-Cookie": "a=b; Path=/"}),
    )
    fetch(url, hashes=wheel.digest)
    assert server.requests()[1].headers["cookie"] == "a=b"
    assert dict(session.cookies) == {"a": "b"}


def test_hooks_see_the_location(session: requests.Session, fetch: Fetch, server: Server, wheel: Wheel) -> None:
    """A response hook of the session sees each response as the server sent it, then and later."""
    wheel.on(server)
    seen: list[str | None] = []
    responses: list[requests.Response] = []

    def hook(response: requests.Response, **_: object) -> None:
        seen.append(response.headers.get("Location"))
        responses.append(response)

    session.hooks["response"].append(hook)
    fetch(server.serve(f"/from/{wheel.filename}", how=redirect(wheel.path)), hashes=wheel.digest)
    assert seen == [wheel.path, None]
    assert [response.headers.get("Location") for response in responses] == seen


class PortAuth(AuthBase):
    """Decides for each URL."""

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer for {request.url.split('/')[2]}"
        return request


def set_credentials(session: requests.Session, kind: str) -> None:
    if kind == "basic":
        session.auth = (USER, PASSWORD)
    elif kind == "digest":
        session.auth = HTTPDigestAuth(USER, PASSWORD)
    elif kind == "cookies":
        session.cookies.set("session", PASSWORD)
    elif kind == "params":
        session.params = {"token": PASSWORD}
    else:
        session.headers.update(
            {
                "authorization": {"Authorization": BASIC},
                "token": {"Private-Token": PASSWORD},
                "bytes": {"Private-Token": PASSWORD.encode()},
                "cookie field": {"Cookie": f"session={PASSWORD}"},
            }[kind]
        )


KINDS = ["basic", "digest", "authorization", "token", "bytes", "cookie field", "cookies", "params"]


def is_secret_in(request: Any) -> bool:
    return PASSWORD in str(request) or BASIC in str(request) or "digest" in str(request).lower()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("via", ["mirror", "redirect"])
def test_the_credentials_of_a_session_are_not_sent_to_another_origin(
    via: str, kind: str, session: requests.Session, fetch: Fetch, server: Server, elsewhere: Server, wheel: Wheel
) -> None:
    """A mirror or a redirect target on another origin receives the public fields, and no credentials."""
    there = wheel.on(elsewhere)
    url = server.serve(f"/from/{wheel.filename}", how=status(404) if via == "mirror" else redirect(there))
    set_credentials(session, kind)
    session.headers.update({"User-Agent": "mine", "Accept-Language": "cy"})
    fetch(url, hashes=wheel.digest, mirrors=[there] if via == "mirror" else [])
    (request,) = elsewhere.requests()
    assert not is_secret_in(request)
    assert (request.headers["user-agent"], request.headers["accept-language"]) == ("mine", "cy")
    if kind != "digest":  # which answers a challenge only
        assert is_secret_in(server.requests()[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_credentials_of_a_session_are_sent_to_their_own_origin(
    kind: str, session: requests.Session, fetch: Fetch, server: Server, wheel: Wheel
) -> None:
    """A redirect target on the same origin receives the credentials of the session."""
    wheel.on(server)
    set_credentials(session, kind)
    fetch(server.serve(f"/from/{wheel.filename}", how=redirect(wheel.path)), hashes=wheel.digest)
    assert [is_secret_in(request) for request in server.requests()] == [kind != "digest"] * 2


def test_a_parameter_is_sent_once(session: requests.Session, fetch: Fetch, server: Server, wheel: Wheel) -> None:
    """A redirect that keeps a parameter of the session in its Location does not receive it twice."""
    wheel.on(server)
    session.params = {"token": "1", "other": "2"}
    fetch(server.serve(f"/from/{wheel.filename}", how=redirect(f"{wheel.path}?token=1")), hashes=wheel.digest)
    assert server.requests()[1].target == f"{wheel.path}?token=1&other=2"


def test_a_digest_challenge_is_answered(session: requests.Session, fetch: Fetch, server: Server, wheel: Wheel) -> None:
    """HTTPDigestAuth answers the challenge of its own origin."""
    session.auth = HTTPDigestAuth(USER, PASSWORD)

    def answer(exchange: Exchange) -> None:
        if exchange.request.headers.get("authorization", "").startswith("Digest "):
            plain(exchange)
        else:
            exchange.send(401, {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'}, b"log in")

    assert fetch(wheel.on(server, how=answer), hashes=wheel.digest).path.read_bytes() == wheel.data
    assert server.count() == 2


def test_an_auth_class_of_the_caller_decides_for_each_url(
    session: requests.Session, fetch: Fetch, server: Server, elsewhere: Server, wheel: Wheel
) -> None:
    """An object of a caller's own class is asked for each URL, also for a mirror on another origin."""
    session.auth = PortAuth()
    url = server.serve(f"/from/{wheel.filename}", how=status(404))
    fetch(url, hashes=wheel.digest, mirrors=[wheel.on(elsewhere)])
    sent = [each.requests()[0].headers["authorization"] for each in (server, elsewhere)]
    assert sent == [f"Bearer for 127.0.0.1:{server.port}", f"Bearer for 127.0.0.1:{elsewhere.port}"]


@pytest.mark.parametrize("trusted", [True, False])
def test_a_netrc_file_decides_for_each_host(
    trusted: bool,
    session: requests.Session,
    fetch: Fetch,
    server: Server,
    elsewhere: Server,
    wheel: Wheel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each host receives its own credentials of the netrc file, if the session trusts the environment."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    session.trust_env = trusted
    url = server.serve(f"/from/{wheel.filename}", how=status(404))
    wheel.on(elsewhere)
    elsewhere.script(wheel.path, status(404))
    mirrors = [elsewhere.url(wheel.path, host="localhost"), elsewhere.url(wheel.path)]
    fetch(url, hashes=wheel.digest, mirrors=mirrors)
    sent = [request.headers.get("authorization") for request in server.requests() + elsewhere.requests()]
    assert sent == ([BASIC, None, BASIC] if trusted else [None] * 3)


@pytest.mark.parametrize("kind", [None, "basic"])
def test_the_credentials_in_a_url_are_sent_to_its_own_origin(
    kind: str | None, session: requests.Session, fetch: Fetch, server: Server, elsewhere: Server, wheel: Wheel
) -> None:
    """Each mirror receives the credentials in its own URL, and not those of the first URL or of the session."""
    server.serve(wheel.path, how=status(404))
    wheel.on(elsewhere)
    session.auth = None if kind is None else ("other", "client-secret")
    url = server.url(wheel.path, userinfo=f"{USER}:{PASSWORD}")
    fetch(url, hashes=wheel.digest, mirrors=[elsewhere.url(wheel.path, userinfo="bob:builder")])
    own = "Basic " + base64.b64encode(b"other:client-secret").decode("ascii")
    assert server.requests()[0].headers["authorization"] == (BASIC if kind is None else own)
    mirror = "Basic " + base64.b64encode(b"bob:builder").decode("ascii")
    assert elsewhere.requests()[0].headers["authorization"] == mirror


def test_a_cookie_of_a_host_is_sent_to_this_host(
    session: requests.Session, fetch: Fetch, server: Server, elsewhere: Server, wheel: Wheel
) -> None:
    """A cookie that belongs to the host of a redirect target is sent there, and a cookie without a host is not."""
    wheel.on(elsewhere)
    url = server.serve(f"/from/{wheel.filename}", how=redirect(elsewhere.url(wheel.path, host="localhost")))
    session.cookies.set("mine", "1", domain="localhost.local")
    session.cookies.set("everywhere", PASSWORD)
    fetch(url, hashes=wheel.digest)
    assert elsewhere.requests()[0].headers.get("cookie") == "mine=1"


def fail(session: requests.Session, url: str, machine: Machine, tmp_path: Path, **options: Any) -> DownloadError:
    """Return the error of a fetch."""
    with (
        machine.cache(tmp_path / "cache", client=requests_client(session, **options)) as cache,
        pytest.raises(DownloadError) as caught,
    ):
        cache.fetch(url)
    return caught.value


def test_errors_quote_no_secrets(session: requests.Session, server: Server, machine: Machine, tmp_path: Path) -> None:
    """The error of a refused connection has the words of the system, and neither those of requests nor a secret."""
    session.params = {"token": PASSWORD}
    url = server.url("/demo-1.0-py3-none-any.whl", userinfo=f"{USER}:{PASSWORD}")
    server.close()
    error = fail(session, url, machine, tmp_path)
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert "the connection failed: " in str(error)
    assert error.attempts == 5
    assert PASSWORD not in str(error) + repr(error.__cause__)
    assert "Max retries" not in str(error)


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (lambda exchange: exchange.hang_up(), "the server closed the connection without a response"),
        (reset(), WHEN_RESET),
        (truncated(0), "the body ended before its declared end"),
        (lambda exchange: exchange.write_raw(b"HTTP/1.1 abc\r\n\r\n"), "the server violated HTTP"),
        (
            lambda exchange: exchange.write_raw(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n"
            ),
            "the server violated HTTP",
        ),
        (redirect("http://[::1/x"), "redirected to an invalid URL"),
        (redirect("http://example.org:99999999/x"), "redirected to an invalid URL"),
        (redirect("file:///etc/hosts"), "redirected to an invalid URL"),
        (redirect("ftp://127.0.0.1/x"), "the URL cannot be requested"),
        (redirect("http://a..b/"), "the URL cannot be requested"),
        (redirect(""), "redirect loop"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_failures_of_the_server(
    how: Answer, problem: str, session: requests.Session, server: Server, wheel: Wheel, machine: Machine, tmp_path: Path
) -> None:
    """Every failure is a DownloadError with the words that all HTTP libraries share."""
    error = fail(session, wheel.on(server, how=how), machine, tmp_path)
    assert problem in str(error)


def test_a_silent_server(
    session: requests.Session, server: Server, wheel: Wheel, machine: Machine, tmp_path: Path
) -> None:
    """The timeout ends the wait for a response."""
    never = threading.Event()
    error = fail(session, wheel.on(server, how=stalled(None, never)), machine, tmp_path, timeout=(60, 0.01))
    assert "the server sent nothing in time" in str(error)
    never.set()


def test_a_session_needs_a_wrapper(session: requests.Session, tmp_path: Path) -> None:
    """Passing a session itself is a TypeError with advice."""
    for kind in (Cache, AsyncCache):
        with pytest.raises(TypeError, match=r"client=wheelcache\.requests_client"):
            kind(tmp_path, client=session)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, "https://user:hunter2@example.org", requests.Session, requests])
def test_other_objects_are_refused(value: Any) -> None:
    """Anything but a session is a TypeError that does not quote it."""
    with pytest.raises(TypeError, match=r"needs a requests\.Session") as caught:
        requests_client(value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, True, "3", float("nan"), (1, 0), (1, 2, 3), (1,)])
def test_a_timeout_is_checked(value: Any, session: requests.Session) -> None:
    """A timeout that is not positive is a ValueError at once."""
    with pytest.raises(ValueError, match="timeout"):
        requests_client(session, timeout=value)


@pytest.mark.parametrize("value", [None, 3, 0.5, (None, 2), (1, None)])
def test_the_timeout_is_passed_on(value: Any, session: requests.Session, machine: Machine, tmp_path: Path) -> None:
    """An adapter of the session receives the timeout."""
    seen: list[Any] = []

    class Adapter(HTTPAdapter):
        def send(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(kwargs["timeout"])
            raise requests.ConnectionError

    session.mount("http://", Adapter())
    fail(session, "http://example.org/demo-1.0-py3-none-any.whl", machine, tmp_path, timeout=value)
    assert seen[0] == value


@pytest.mark.parametrize("code", [407, 403, 502])
def test_a_proxy_that_refuses(
    code: int, session: requests.Session, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """The error of a tunnel that the session's proxy refuses has the status of the proxy."""
    session.trust_env = False
    session.proxies = {"https": server.origin}
    server.serve("example.org:443", how=status(code))
    error = fail(session, "https://example.org/demo-1.0-py3-none-any.whl", machine, tmp_path)
    assert f"the proxy refuses to connect, with status {code}" in str(error)
    assert error.status == code


def test_a_proxy_that_is_gone(session: requests.Session, server: Server, machine: Machine, tmp_path: Path) -> None:
    """A proxy that refuses connections is a failed connection, which is tried again."""
    session.trust_env = False
    session.proxies = {"http": server.origin, "https": server.origin}
    server.close()
    for scheme in ("http", "https"):
        error = fail(session, f"{scheme}://example.org/demo-1.0-py3-none-any.whl", machine, tmp_path)
        assert "the connection failed: " in str(error)
        assert error.attempts == 5


def test_a_proxy_of_the_session(
    session: requests.Session, fetch: Fetch, server: Server, wheel: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxies of the session and of the environment are used, with their credentials."""
    wheel.on(server)
    monkeypatch.setenv("http_proxy", server.url("", userinfo=f"{USER}:{PASSWORD}"))
    fetch(f"http://example.org{wheel.path}", hashes=wheel.digest)
    (request,) = server.requests()
    assert request.target == f"http://example.org{wheel.path}"
    assert request.headers["proxy-authorization"] == BASIC


def wrapped(reason: Exception) -> Exception:
    """Return the error of a session for an error of a connection."""
    return requests.ConnectionError(urllib3.MaxRetryError(None, "https://u:hunter2@example.org", reason))  # type: ignore[arg-type]


REFUSED = ConnectionRefusedError(111, "refused")


@pytest.mark.parametrize(
    ("error", "problem", "is_transient"),
    [
        (requests.ConnectTimeout(urllib3.ConnectTimeoutError(None, "x")), "was not established in time", True),
        (wrapped(urllib3.ProxyError("x", urllib3.ConnectTimeoutError(None, "x"))), "not established in time", True),
        (wrapped(urllib3.ProxyError("x", OSError("y"))), "the proxy failed", False),
        (wrapped(urllib3.ProxyError("x", REFUSED)), "the proxy failed: ", False),
        (wrapped(urllib3.SSLError(ssl.SSLError(1, "wrong version"))), "the connection failed: wrong version", True),
        (wrapped(urllib3.ProtocolError("x", BrokenPipeError(32, "pipe"))), "while sending the request", True),
        (urllib3.EmptyPoolError(None, "x"), "no connection of the client's pool", True),
        (requests.exceptions.InvalidProxyURL("x"), "the proxy failed", False),
        (requests.exceptions.InvalidURL("x"), "the URL cannot be requested", False),
        (requests.exceptions.InvalidSchema("x"), "the URL cannot be requested", False),
        (requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support."), "PySocks", False),
        (requests.exceptions.ContentDecodingError("x"), "cannot be decoded", False),
        (requests.exceptions.InvalidHeader(urllib3.InvalidHeader("x")), "the server violated HTTP", True),
        (requests.exceptions.InvalidHeader("x"), "a header field of the session", False),
        (UnicodeEncodeError("latin-1", "\u20ac", 0, 1, "x"), "a header field of the session", False),
        (UnicodeError("label too long"), "the URL cannot be requested", False),
        (OSError("Could not find a suitable TLS CA certificate bundle"), "certificates cannot be read", False),
        (requests.TooManyRedirects("x"), "the request failed", False),
        (PermissionError(13, "no"), "the request failed: ", False),
    ],
    ids=str,
)
def test_errors_of_the_library(error: Exception, problem: str, is_transient: bool) -> None:
    """Every error of requests and urllib3 has words of our own, and no cause that quotes a URL."""
    failure = to_failure(error)
    assert problem in failure.problem
    assert failure.is_transient is is_transient
    assert PASSWORD not in failure.problem
    cause = nested_system_error(error)
    assert not isinstance(cause, requests.RequestException)


def test_the_error_of_the_caller_is_not_the_cause(
    session: requests.Session, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """An exception that the caller is handling does not count as the reason of a failure."""
    url = server.serve("/demo-1.0-py3-none-any.whl", how=lambda exchange: exchange.hang_up())
    try:
        raise socket.gaierror(-2, "of the caller")
    except OSError:
        error = fail(session, url, machine, tmp_path)
    assert "without a response" in str(error)
    assert error.__cause__ is None


def test_requests_is_imported_at_the_first_request() -> None:
    """Neither the package nor its function imports requests, which need not be installed."""
    code = "import sys, wheelcache; wheelcache.requests_client; assert not {'requests', 'urllib3'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

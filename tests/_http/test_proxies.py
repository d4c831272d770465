"""The proxies of the environment: which requests they serve, and what an unusable one means for the others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server import Server, status
from wheels import make_wheel, wheel_filename

from wheelcache import Cache, DownloadError
from wheelcache._http.adapters.library import load
from wheelcache._http.default_client import create, proxies, routes
from wheelcache._http.default_client.proxies import Proxy, ProxySettings
from wheelcache._http.errors import FailedRequestError

BODY, NAME = make_wheel("demo"), wheel_filename("demo")
SECRET = "hunter2"
PROXY = "http://proxy.example.org:3128"


def set_variables(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def choose(url: str) -> str | None:
    """Return the URL of the proxy for a URL, by the settings of the environment."""
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":") if rest.rpartition(":")[2].isdigit() else (rest, "", "")
    proxy = ProxySettings().choose(scheme, [host], int(port) if port else None)
    return proxy and proxy.url


# Which URLs are requested through the proxy, as httpx itself decides for the same settings.
PROXIED: list[tuple[dict[str, str], dict[str, bool]]] = [
    ({}, {"http://example.org": False}),
    ({"http_proxy": "proxy.example.org:3128"}, {"http://example.org": True, "https://example.org": False}),
    (
        {"https_proxy": PROXY, "no_proxy": "example.com, .example.net,localhost,127.0.0.1"},
        {
            "http://example.org": False,
            "https://example.org": True,
            "https://example.com": False,
            "https://www.example.com": False,
            "https://notexample.com": True,
            "https://www.example.net": False,
            "https://example.net": True,
            "https://localhost:8000": False,
            "https://notlocalhost": True,
            "https://127.0.0.1": False,
        },
    ),
    (
        {"all_proxy": PROXY, "no_proxy": "::1,192.168.0.0/16,http://plain.example.com"},
        {
            "http://example.org": True,
            "http://[::1]:80": False,
            "http://plain.example.com": False,
            "https://plain.example.com": True,
        },
    ),
    ({"all_proxy": PROXY, "no_proxy": "example.com,*"}, {"http://example.org": False, "https://example.com": False}),
]


@pytest.mark.parametrize(("settings", "proxied"), PROXIED)
def test_the_proxies_of_the_environment_are_those_of_httpx(
    settings: dict[str, str], proxied: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own client chooses the same proxy for each URL as httpx does by itself."""
    set_variables(monkeypatch, settings)
    assert {url: choose(url) for url in proxied} == {
        url: PROXY if through else None for url, through in proxied.items()
    }


# Entries of NO_PROXY, the URLs that they cover, and similar URLs that they do not cover.
EXCEPTIONS: list[tuple[str, list[str], list[str]]] = [
    ("fd00::/8", ["http://[fd12:3::4]", "https://[fdff::1]:8080"], ["http://[fe80::1]", "http://fd00"]),
    ("[fd00::]/8", ["http://[fd12:3::4]"], ["http://[fe80::1]"]),
    ("[::1]", ["http://[::1]", "http://[::1]:8080"], ["http://[::2]"]),
    ("[::1]:8080", ["http://[::1]:8080"], ["http://[::1]", "http://[::2]:8080"]),
    ("::1", ["http://[::1]", "http://[0:0::1]:8080"], ["http://[::2]"]),
    ("10.0.0.0/8", ["http://10.1.2.3", "https://10.255.0.1:8080"], ["http://11.0.0.1", "http://a10.0.0.0"]),
    ("10.1.2.3/8", ["http://10.9.9.9"], ["http://11.0.0.1"]),
    ("10.0.0.0/255.0.0.0", ["http://10.1.2.3"], ["http://11.0.0.1"]),
    ("127.0.0.1", ["http://127.0.0.1:1"], ["http://127.0.0.2"]),
    ("127.0.0.1:8080", ["http://127.0.0.1:8080"], ["http://127.0.0.1:80", "http://127.0.0.1"]),
    ("host:8080", ["http://host:8080", "http://a.host:8080"], ["http://host", "http://host:80"]),
    ("host:443", ["https://host", "https://host:443"], ["http://host"]),
    ("host:80", ["http://host"], ["https://host"]),
    ("example.org", ["http://example.org", "https://a.b.EXAMPLE.org"], ["http://notexample.org"]),
    ("Example.ORG.", ["http://example.org", "http://example.org."], ["http://example.com"]),
    (".example.org", ["http://a.example.org"], ["http://example.org", "http://aexample.org"]),
    ("*.example.org", ["http://a.example.org"], ["http://example.org", "http://aexample.org"]),
    ("*.example.org:81", ["http://a.example.org:81"], ["http://a.example.org"]),
    ("10.*", ["http://10.1.2.3"], ["http://110.1.2.3"]),
    ("build*.example.org", ["http://build7.example.org"], ["http://abuild.example.org"]),
    ("*", ["http://example.org", "https://[::1]:8080"], []),
    ("*:8080", ["http://example.org:8080"], ["http://example.org"]),
    ("http://example.org", ["http://example.org"], ["https://example.org"]),
    ("http://example.org/", ["http://example.org"], ["https://example.org"]),
    ("all://example.org", ["http://example.org", "https://example.org"], ["http://example.com"]),
    ("http://[::1]:8080", ["http://[::1]:8080"], ["https://[::1]:8080"]),
    (" \ta.org ,\tb.org c.org,, ", ["http://a.org", "http://b.org", "http://c.org"], ["http://d.org"]),
]


@pytest.mark.parametrize(("entry", "covered", "others"), EXCEPTIONS)
def test_each_kind_of_entry_of_no_proxy(
    entry: str, covered: list[str], others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry covers a domain, an address, a network, a port or a scheme, and nothing else."""
    set_variables(monkeypatch, {"ALL_PROXY": PROXY, "NO_PROXY": entry})
    assert [url for url in covered if choose(url) is not None] == []
    assert [url for url in others if choose(url) is None] == []


UNREADABLE = ["fd00::/200", "10.0.0.0/33", "[::1", "::1]", "[]", "[host]", "a/b", "a:b", "a:1:2", "://", "http://"]
UNREADABLE += ["http://[bad", "me@host", ".", "*.", "..", "*..", ":80", "a:123456", "%", "[::1]x", "\x00"]


@pytest.mark.parametrize("entry", UNREADABLE)
def test_an_unreadable_entry_of_no_proxy_is_ignored(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry covers nothing, and those beside it remain."""
    # The environment cannot contain every character.
    settings = {"all": PROXY, "no": f"first.org,{entry},last.org"}
    monkeypatch.setattr(proxies, "getproxies", lambda: settings)
    assert choose("http://first.org") is choose("http://last.org") is None
    assert choose("http://example.org") == choose("https://[::1]") == PROXY


@given(entries=st.text(st.sampled_from("a1:.[]/*@, %-xn")), host=st.sampled_from(["a", "::1", "1.1.1.1", "xn--a", ""]))
def test_no_entry_of_no_proxy_is_an_error(entries: str, host: str) -> None:
    """Whatever NO_PROXY contains, the proxy for a URL is found without an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxies, "getproxies", lambda: {"all": PROXY, "no": entries})
        ProxySettings().choose("http", [host], None)


def test_an_international_name_is_covered_in_both_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry may have the name itself, or its ASCII form."""
    for entry in ("bücher.example", "xn--bcher-kva.example"):
        set_variables(monkeypatch, {"ALL_PROXY": PROXY, "NO_PROXY": entry})
        hosts = ("bücher.example", "xn--bcher-kva.example")
        assert ProxySettings().choose("http", hosts, None) is None


# The variables, and the proxies of http and https URLs.
VARIABLES: list[tuple[dict[str, str], str | None, str | None]] = [
    ({"HTTP_PROXY": "http://a"}, "http://a", None),
    ({"HTTPS_PROXY": "http://a"}, None, "http://a"),
    ({"ALL_PROXY": "http://a"}, "http://a", "http://a"),
    ({"ALL_PROXY": "http://a", "HTTPS_PROXY": "http://b"}, "http://a", "http://b"),
    ({"http_proxy": "http://a", "https_proxy": "http://b", "all_proxy": "http://c"}, "http://a", "http://b"),
    ({"HTTP_PROXY": ""}, None, None),
    ({"HTTP_PROXY": "  "}, None, None),
    ({"HTTP_PROXY": "", "ALL_PROXY": "http://a"}, "http://a", "http://a"),
    ({"HTTP_PROXY": " http://a "}, "http://a", None),
    ({"HTTP_PROXY": "a:3128"}, "http://a:3128", None),
    ({"HTTP_PROXY": "me:pw@a:3128"}, "http://me:pw@a:3128", None),
    ({"HTTP_PROXY": "[::1]:3128"}, "http://[::1]:3128", None),
    ({"HTTPS_PROXY": "HTTPS://[::1]:3128/"}, None, "HTTPS://[::1]:3128/"),
    ({"ALL_PROXY": "socks5h://a:1080"}, "socks5h://a:1080", "socks5h://a:1080"),
    ({"FTP_PROXY": "http://a", "FOO_PROXY": "http://b"}, None, None),
    # A server sets HTTP_PROXY for a CGI script if a request has the field "Proxy": https://httpoxy.org/
    ({"HTTP_PROXY": "http://a", "REQUEST_METHOD": "GET"}, None, None),
    ({"HTTPS_PROXY": "http://a", "REQUEST_METHOD": "GET"}, None, "http://a"),
]


@pytest.mark.parametrize(("settings", "http", "https"), VARIABLES)
def test_each_kind_of_variable(
    settings: dict[str, str], http: str | None, https: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable of the scheme precedes ALL_PROXY, in uppercase or lowercase; an empty one counts as not set."""
    set_variables(monkeypatch, settings)
    assert (choose("http://example.org"), choose("https://example.org")) == (http, https)


@pytest.mark.skipif(sys.platform == "win32", reason="variables of Windows have no case")
def test_the_lowercase_variable_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in curl, the lowercase variable is used, even if it is empty, and for CGI scripts."""
    set_variables(monkeypatch, {"HTTP_PROXY": "http://a", "http_proxy": "http://b", "REQUEST_METHOD": "GET"})
    assert choose("http://example.org") == "http://b"
    monkeypatch.setenv("http_proxy", "")
    assert choose("http://example.org") is None


@pytest.fixture(params=["httpx"] if sys.platform == "win32" else ["httpx", "httpx2"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let our own client use this library."""
    monkeypatch.setattr(create, "default_library", lambda: load(request.param))
    return str(request.param)


def fetch_error(folder: Path, url: str) -> DownloadError:
    with Cache(folder / "cache") as cache, pytest.raises(DownloadError) as caught:
        cache.fetch(url)
    return caught.value


def test_a_proxy_receives_the_requests_that_no_entry_covers(
    library: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request through the proxy has the whole URL as its target; a covered one has not."""
    server.serve(f"/{NAME}", BODY)
    set_variables(monkeypatch, {"HTTP_PROXY": f"me:p%23w@127.0.0.1:{server.port}", "NO_PROXY": "127.0.0.0/8,[bad"})
    with Cache(tmp_path / "cache") as cache:
        cache.fetch(f"http://wheels.example.org/{NAME}")
        cache.fetch(server.url(f"/{NAME}"))
    assert [request.target for request in server.requests()] == [f"http://wheels.example.org/{NAME}", f"/{NAME}"]
    assert [request.headers.get("proxy-authorization") for request in server.requests()] == ["Basic bWU6cCN3", None]


# Values of a variable that no client can use, and the part that an error shows.
UNUSABLE = [
    ("socks://me:{0}@127.0.0.1:1080", "socks://***@127.0.0.1:1080"),
    ("socks4://me:{0}@127.0.0.1:1080", "socks4://***@127.0.0.1:1080"),
    ("gopher://127.0.0.1", "gopher://127.0.0.1"),
    ("http://me:{0}#x@127.0.0.1:3128", "http://***"),
    ("http://me:1#{0}@127.0.0.1:3128", "http://***"),
    ("http://me:1/{0}@127.0.0.1:3128", "http://***"),
    ("http://me:1?{0}@127.0.0.1:3128", "http://***"),
    ("me:{0}#x@127.0.0.1:3128", "http://***"),
    ("me:{0}://x@127.0.0.1:3128", "***"),
    ("http://me:{0}@[::1", "http://***"),
    ("http://me:{0}@127.0.0.1:port", "http://***"),
    ("http://me:{0}@127.0.0.1:99999", "http://***"),
    ("http://me:{0}@", "http://***"),
    ("http://", "http://***"),
    ("::1", "http://***"),
    ("http://me:{0}@a b:3128", "http://***"),
]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize(("value", "shown"), UNUSABLE)
def test_an_unusable_proxy_fails_only_the_requests_that_need_it(
    variable: str,
    value: str,
    shown: str,
    library: str,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A covered host is reached, and its errors mention no proxy. The error of another host names the variable."""
    server.serve(f"/{NAME}", BODY)
    server.serve(f"/missing/{NAME}", how=status(404))
    set_variables(monkeypatch, {variable: value.format(SECRET), "NO_PROXY": "127.0.0.1"})
    with Cache(tmp_path / "cache") as cache:
        assert cache.fetch(server.url(f"/{NAME}")).status == "downloaded"
    assert "proxy" not in str(fetch_error(tmp_path, server.url(f"/missing/{NAME}"))).lower()
    error = fetch_error(tmp_path, f"http://wheels.example.org/missing/{NAME}")
    assert f"the proxy in {variable} ({shown}) cannot be used: " in str(error)
    assert SECRET not in f"{error} {error!r} {error.__cause__} {error.__context__}"
    assert error.attempts == 1


def test_an_unusable_proxy_of_another_scheme_is_not_noticed(
    library: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An http URL does not need the proxy for https URLs."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}#@proxy.example.org")
    with Cache(tmp_path / "cache") as cache:
        assert cache.fetch(server.serve(f"/{NAME}", BODY)).status == "downloaded"
    assert "the proxy in HTTPS_PROXY (http://***)" in str(fetch_error(tmp_path, f"https://example.org/{NAME}"))


def test_a_socks_proxy_without_its_package_is_an_error_with_the_next_step(
    library: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a request that needs the proxy fails, and the error says what to install."""
    monkeypatch.setattr(routes, "find_spec", lambda _: None)
    set_variables(monkeypatch, {"ALL_PROXY": f"socks5h://me:{SECRET}@proxy.example.org", "NO_PROXY": "127.0.0.1"})
    with Cache(tmp_path / "cache") as cache:
        cache.fetch(server.serve(f"/{NAME}", BODY))
    error = str(fetch_error(tmp_path, f"https://example.org/other/{NAME}"))
    assert "the proxy in ALL_PROXY (socks5h://***@proxy.example.org)" in error
    assert f"pip install {library}[socks]" in error
    assert SECRET not in error


def test_a_proxy_of_the_system_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxies in the registry of Windows, which urllib reads, have no variable."""
    registry = {"http": "http://a:80", "https": "http://a:80", "ftp": "http://a:80", "socks": "socks4://b"}
    monkeypatch.setattr(proxies, "getproxies", lambda: registry)
    assert ProxySettings().choose("https", ["example.org"], None) == Proxy("the settings of the system", "http://a:80")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20), st.booleans())
def test_no_error_of_a_proxy_shows_its_password(text: str, has_scheme: bool) -> None:
    """Whatever characters a password has, no error and no repr shows it."""
    url = f"{'http://' if has_scheme else ''}me:{text}{SECRET}@proxy.example.org"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxies, "getproxies", lambda: {"http": url})
        proxy = ProxySettings().choose("http", ["example.org"], None)
    assert proxy is not None
    shown = f"{proxy!r} {proxy.malformed()} {proxy.malformed().hint}"
    try:
        proxy.check()
    except FailedRequestError as error:
        shown += f"{error} {error.hint}"
    assert SECRET not in shown

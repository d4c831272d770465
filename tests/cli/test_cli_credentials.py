"""pip's indexes, proxies and certificates apply to the downloads, and no secret is ever printed or stored."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from marks import any_system
from server import Server, asks_for, redirect
from shell import APP, LIB, Ran, Shell
from simple_index import Index

from wheelcache.cli._redact import redact
from wheelcache.cli.resolve.credentials import Credentials

pytestmark = any_system

SECRET = "s3cret%40word"  # as in a URL
PLAIN = "s3cret@word"


@pytest.fixture
def guarded(server: Server) -> Index:
    """An index that requires credentials for its pages and its files."""
    return Index(server, [APP, LIB], how=asks_for("somebody", PLAIN))


def assert_secret_kept(shell: Shell, *runs: Ran) -> None:
    written = [run.out + run.err for run in runs] + [shell.cached_bytes().decode("latin-1")]
    for text in written:
        assert "s3cret" not in text
        assert "somebody" not in text


def test_credentials_of_the_configured_index_are_found_again_for_the_downloads(shell: Shell, guarded: Index):
    """Downloads work although pip's report omits credentials (PEP 610). None are printed or stored."""
    shell.environment["PIP_INDEX_URL"] = guarded.url(f"somebody:{SECRET}")
    table = shell.fetch("demo-app")
    assert set(table.rows.values()) == {"downloaded"}
    as_json = shell.fetch("demo-app", "--json")
    assert [wheel["status"] for wheel in as_json.json["wheels"]] == ["hit", "hit"]
    assert_secret_kept(shell, table, as_json)


@pytest.mark.parametrize("how", ["option", "configuration file", "requirements file", "netrc file", "URL"])
def test_credentials_are_found_wherever_the_user_may_have_put_them(shell: Shell, guarded: Index, how: str):
    """On the command line, in pip's configuration, an included requirements file, a netrc file or the URL."""
    url = guarded.url(f"somebody:{SECRET}")
    arguments, environment = [guarded.wheel_url(LIB)], {}
    if how == "option":
        arguments += ["--index-url", url]
    elif how == "configuration file":
        shell.folder.joinpath("pip.ini").write_text(f"[install]\nindex-url = {url}\n")
        environment["PIP_CONFIG_FILE"] = str(shell.folder / "pip.ini")
    elif how == "requirements file":
        shell.folder.joinpath("requirements.txt").write_text("-r more.txt\ndemo-lib\n")
        shell.folder.joinpath("more.txt").write_text(f"--index-url {guarded.url('somebody:${PASSWORD}')}\n")
        arguments, environment = ["-r", "requirements.txt"], {"PASSWORD": SECRET}
    elif how == "netrc file":
        shell.folder.joinpath("netrc").write_text(f"machine 127.0.0.1 login somebody password {PLAIN}\n")
        shell.folder.joinpath("netrc").chmod(0o600)
        environment["NETRC"] = str(shell.folder / "netrc")
    else:
        arguments = [guarded.wheel_url(LIB, f"somebody:{SECRET}")]
    ran = shell.fetch(*arguments, **environment)
    assert ran.rows == {LIB.filename: "downloaded"}, ran.err
    assert_secret_kept(shell, ran)


def test_wrong_credentials_are_one_line_that_does_not_show_them(shell: Shell, guarded: Index):
    """A refusal by the index or by the file server is one line without the password."""
    shell.environment["PIP_INDEX_URL"] = guarded.url("somebody:s3cret-too")
    by_pip = shell.fetch("demo-app")
    assert (by_pip.code, by_pip.err.count("\n")) == (1, 1)
    by_us = shell.fetch(guarded.wheel_url(LIB, "somebody:s3cret-too"), "--json")
    assert by_us.code == 1
    assert by_us.json["errors"][0]["error"] == "DownloadError"
    assert "401" in by_us.err
    assert_secret_kept(shell, by_pip, by_us)


def test_credentials_do_not_follow_a_redirect_to_another_server(shell: Shell, server: Server):
    """The file server that the index redirects to receives no credentials of the index."""
    with Server() as storage:
        index = Index(server, [LIB], how=asks_for("somebody", PLAIN))
        target = storage.serve("/bucket/object", LIB.data)
        server.serve(index.file(LIB), how=asks_for("somebody", PLAIN, then=redirect(target)))
        ran = shell.fetch(index.wheel_url(LIB), PIP_INDEX_URL=index.url(f"somebody:{SECRET}"))
        assert ran.rows == {LIB.filename: "downloaded"}
        assert ["authorization" in request.headers for request in storage.requests()] == [False]


def test_credentials_are_chosen_by_origin_and_by_the_nearest_path():
    """If a server has an index for each project, the project's own credentials are used, and only on that origin."""
    found = Credentials(
        [
            "https://a:1@example.org/one/simple https://b:2@example.org/two/simple",
            "--extra-index-url=https://token@example.org:8443/simple  # 'http://c:3@example.org/'",
        ]
    )
    assert found.choose("https://example.org/two/files/x.whl") == ("b", "2")
    assert found.choose("https://EXAMPLE.org:443/one/x.whl") == ("a", "1")
    assert found.choose("https://example.org:8443/x.whl") == ("token", "")
    assert found.choose("http://example.org/x.whl") == ("c", "3")
    assert found.choose("https://example.com/one/simple/x.whl") is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://u:p@example.org/x, then", "see https://***@example.org/x, then"),
        ("https://u:p@ss/word@example.org/x", "https://***@example.org/x"),
        ("git+https://token@example.org/x.git", "git+https://***@example.org/x.git"),
        ("'https://example.org/x.whl?sig=abc#sha256=0'", "'https://example.org/x.whl?***#sha256=0'"),
        ("download https://example.org/x.whl?***: the server", "download https://example.org/x.whl?***: the server"),
        ("(https://example.org/x.whl?sig=a.b:c), and on", "(https://example.org/x.whl?***), and on"),
        ("mail me@example.org", "mail me@example.org"),
    ],
)
def test_redaction_leaves_the_rest_of_a_text_as_it_is(text: str, shown: str):
    """User names, passwords and queries are removed, including those with unquoted special characters."""
    assert redact(text) == shown
    assert redact(shown) == shown


def test_the_proxy_of_pip_is_used_and_its_credentials_are_kept(shell: Shell, server: Server):
    """The proxy setting of pip, which needs no scheme, is used for downloads. Its refusal is one line."""
    server.serve(f"/{LIB.filename}", LIB.data)
    url = f"http://wheels.example.org/{LIB.filename}#sha256={LIB.sha256}"
    proxy = f"somebody:{SECRET}@127.0.0.1:{server.port}"
    ran = shell.fetch(url, PIP_PROXY=proxy)
    assert ran.rows == {LIB.filename: "downloaded"}
    assert [request.target for request in server.requests()] == [url.partition("#")[0]]
    unknown = shell.fetch(url.replace(LIB.sha256, APP.sha256), PIP_PROXY=f"gopher://{proxy}")
    assert (unknown.code, unknown.err.count("\n")) == (1, 1)
    assert_secret_kept(shell, ran, unknown)


CERTIFICATE = Path(__file__).with_name("loopback.pem")


class _TlsHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.shown.append(bool(self.connection.getpeercert()))
        self.send_response(200)
        self.send_header("Content-Length", str(len(LIB.data)))
        self.end_headers()
        self.wfile.write(LIB.data)

    def log_message(self, *_: object) -> None:
        pass


class _TlsServer(ThreadingHTTPServer):
    """Serves one wheel with an untrusted certificate, and records whether the client sends a certificate."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _TlsHandler)
        self.shown: list[bool] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        context.load_verify_locations(CERTIFICATE)
        context.verify_mode = ssl.CERT_OPTIONAL
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_: object) -> None:
        pass  # a client that does not trust it hangs up


@pytest.fixture
def tls_server() -> Iterator[_TlsServer]:
    """A server with TLS."""
    with _TlsServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_certificate_settings_of_pip_hold(shell: Shell, tls_server: _TlsServer, tmp_path: Path):
    """An unknown certificate is refused unless pip trusts it or its host, and pip's client certificate is sent."""
    port = tls_server.server_address[1]
    url = f"https://127.0.0.1:{port}/{LIB.filename}"
    refused = shell.fetch(url)
    assert (refused.code, refused.err.count("\n"), tls_server.shown) == (1, 1, [])
    # Wine cannot check such a certificate, and reports an invalid parameter.
    problem = "the connection failed" if sys.platform == "win32" else "certificate verify failed"
    assert problem in refused.err
    certificate = str(CERTIFICATE)
    for settings in (
        {"PIP_CERT": certificate},
        {"PIP_TRUSTED_HOST": f"elsewhere 127.0.0.1:{port}"},
        {"REQUESTS_CA_BUNDLE": certificate, "PIP_CLIENT_CERT": certificate},
    ):
        cache = str(tmp_path / "-".join(settings))  # one each: what one has downloaded is fresh for the next
        assert shell.fetch(url, WHEELCACHE_DIR=cache, **settings).rows == {LIB.filename: "downloaded"}
    assert tls_server.shown == [False, False, True]


def test_a_certificate_setting_that_cannot_be_followed_is_one_line(shell: Shell, index: Index):
    """A missing certificate file is an error that names the file and the setting."""
    ran = shell.fetch(index.wheel_url(LIB), PIP_CERT="nowhere.pem")
    assert ran.code == 1
    assert ran.err.startswith("error: cannot apply pip's settings (cert = nowhere.pem): ")

"""The authorities that our own client trusts: the system's and certifi's, or those that the environment names."""

from __future__ import annotations

import hashlib
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from marks import not_on_windows, on_windows
from server import Server
from tls_server import AUTHORITY, AUTHORITY_HASH, TlsServer, command_with_trusted_authority
from wheels import make_wheel, sha256, wheel_filename

from wheelcache import Cache, DownloadError
from wheelcache._http.adapters.library import load
from wheelcache._http.default_client import create, routes, trust
from wheelcache._http.errors import FailureKind, failed_request

CHILD = str(Path(__file__).parent.parent / "support" / "children" / "fetch.py")
OTHER_AUTHORITY = Path(__file__).parent.parent / "cli" / "loopback.pem"
# The Windows Python of the tests has one library.
LIBRARIES = ["httpx"] if sys.platform == "win32" else ["httpx", "httpx2"]
BODY, NAME = make_wheel("demo"), wheel_filename("demo")


@pytest.fixture
def tls_server() -> Iterator[TlsServer]:
    """A server that serves a wheel, and whose authority only the tests know."""
    with TlsServer(BODY) as server:
        yield server


@pytest.fixture(autouse=True)
def no_variables(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the system's authorities, which the other tests do not read."""
    monkeypatch.delenv("SSL_CERT_DIR")


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let our own client use this library."""
    monkeypatch.setattr(create, "default_library", lambda: load(request.param))
    return str(request.param)


def fetch(server: TlsServer, folder: Path) -> str:
    with Cache(folder / "cache") as cache:
        return str(cache.fetch(server.url(NAME, host="localhost")).status)


def fetch_error(server: TlsServer, folder: Path) -> DownloadError:
    with Cache(folder / "cache") as cache, pytest.raises(DownloadError) as caught:
        cache.fetch(server.url(NAME, host="localhost"))
    return caught.value


@not_on_windows("the test for Windows is below")
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_private_authority_in_the_systems_store_is_trusted(
    library: str, tls_server: TlsServer, tmp_path: Path
) -> None:
    """Without any option, a wheel is fetched from a server whose authority was added to the system."""
    command = command_with_trusted_authority(tmp_path)
    if isinstance(command, str):
        pytest.skip(command)
    arguments = [sys.executable, CHILD, tls_server.url(NAME), str(tmp_path / "cache"), library]
    ended = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)
    assert (ended.stdout.split(), ended.stderr) == (["downloaded", library], "")


@not_on_windows("the test for Windows is below")
def test_the_command_line_trusts_a_private_authority_in_the_systems_store(
    tls_server: TlsServer, tmp_path: Path
) -> None:
    """``wheelcache fetch`` trusts the same authorities."""
    command = command_with_trusted_authority(tmp_path)
    if isinstance(command, str):
        pytest.skip(command)
    url = tls_server.url(NAME) + f"#{sha256(BODY).replace(':', '=')}"
    arguments = [sys.executable, "-m", "wheelcache.cli", "fetch", "--cache-dir", str(tmp_path / "cache"), url]
    ended = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)
    assert (ended.returncode, tls_server.count) == (0, 1), ended.stderr


@contextmanager
def authority_in_store() -> Iterator[None]:
    """Add the authority to the root certificates of this Windows for the block."""
    assert sys.platform == "win32"
    import winreg

    text = AUTHORITY.read_text("ascii")
    der = ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN") :])
    path = rf"SOFTWARE\Microsoft\SystemCertificates\Root\Certificates\{hashlib.sha1(der).hexdigest().upper()}"
    # A serialized certificate: the identifier of its encoded form, the encoding, the length, and the bytes.
    # https://learn.microsoft.com/windows/win32/api/wincrypt/nf-wincrypt-certserializecertificatestoreelement
    blob = struct.pack("<III", 32, 1, len(der)) + der
    try:
        key = winreg.CreateKey(winreg.HKEY_LOCAL_MACHINE, path)
    except PermissionError:
        pytest.skip("needs an administrator, to add a root certificate")
    try:
        with key:
            winreg.SetValueEx(key, "Blob", 0, winreg.REG_BINARY, blob)
        yield
    finally:
        winreg.DeleteKey(winreg.HKEY_LOCAL_MACHINE, path)


def run_child(server: TlsServer, folder: Path) -> str:
    """Fetch the wheel in a new process, which has not read the certificates of the system yet."""
    # Wine compares names only, and no addresses.
    arguments = [sys.executable, CHILD, server.url(NAME, host="localhost"), str(folder), "httpx"]
    return subprocess.run(arguments, check=False, capture_output=True, text=True).stdout


@on_windows
def test_a_private_authority_in_the_windows_store_is_trusted(tls_server: TlsServer, tmp_path: Path) -> None:
    """Without any option, a wheel is fetched from a server whose authority was added to Windows, and not before."""
    assert run_child(tls_server, tmp_path / "refused") == ""
    with authority_in_store():
        assert run_child(tls_server, tmp_path / "trusted").split() == ["downloaded", "httpx"]
    assert run_child(tls_server, tmp_path / "removed") == ""
    assert tls_server.count == 1


@not_on_windows("Wine 8 refuses to verify with further authorities: its error is of another class")
def test_an_unknown_authority_is_an_error_with_the_next_step(
    library: str, tls_server: TlsServer, tmp_path: Path
) -> None:
    """A certificate that is not trusted is a permanent error, which says where the authority can be added."""
    error = fetch_error(tls_server, tmp_path)
    assert "the server's certificate is not trusted" in str(error)
    assert all(place in str(error) for place in ("certificates of the system", "SSL_CERT_FILE"))
    assert (tls_server.count, tls_server.connections) == (0, 1)


def test_the_authorities_of_certifi_are_trusted(
    library: str, tls_server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authority in certifi's bundle is trusted, even if the system does not know it."""
    if sys.platform == "win32":
        pytest.skip("Wine 8 cannot verify with further authorities")
    monkeypatch.setattr("certifi.where", lambda: str(AUTHORITY))
    assert fetch(tls_server, tmp_path) == "downloaded"


def folder_with_authority(folder: Path) -> Path:
    folder.mkdir()
    (folder / f"{AUTHORITY_HASH}.0").write_bytes(AUTHORITY.read_bytes())
    return folder


def test_a_file_in_the_environment_replaces_all_others(
    library: str, tls_server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE names the only authorities: neither SSL_CERT_DIR nor certifi adds to them."""
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert fetch(tls_server, tmp_path / "trusted") == "downloaded"
    monkeypatch.setenv("SSL_CERT_FILE", str(OTHER_AUTHORITY))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder_with_authority(tmp_path / "certificates")))
    monkeypatch.setattr("certifi.where", lambda: str(AUTHORITY))
    assert "certificate is not trusted" in str(fetch_error(tls_server, tmp_path / "refused"))


def test_a_folder_in_the_environment_replaces_all_others(
    library: str, tls_server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_DIR names the only authorities if SSL_CERT_FILE is not set, or empty."""
    monkeypatch.setenv("SSL_CERT_FILE", "")
    monkeypatch.setenv("SSL_CERT_DIR", str(folder_with_authority(tmp_path / "certificates")))
    assert fetch(tls_server, tmp_path / "trusted") == "downloaded"
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setattr("certifi.where", lambda: str(AUTHORITY))
    assert "certificate is not trusted" in str(fetch_error(tls_server, tmp_path / "refused"))


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAA\n"])
def test_an_unreadable_file_in_the_environment_fails_only_requests_with_tls(
    content: bytes | None, tls_server: TlsServer, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variable and the file; a request without TLS succeeds."""
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    error = str(fetch_error(tls_server, tmp_path))
    assert f"SSL_CERT_FILE={path}" in error
    assert "remove it to trust the authorities of the system" in error
    with Cache(tmp_path / "cache") as cache:
        assert cache.fetch(server.serve(f"/{NAME}", BODY)).status == "downloaded"


def test_a_download_without_tls_reads_no_certificates(
    library: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates are read once, by the first request that uses TLS."""
    calls: list[None] = []
    monkeypatch.setattr(routes, "create_tls_context", lambda: calls.append(None) or ssl.create_default_context())
    with Cache(tmp_path / "cache") as cache, TlsServer(BODY) as tls_server:
        cache.fetch(server.serve(f"/{NAME}", BODY))
        assert not calls
        for _ in range(2):
            with pytest.raises(DownloadError):
                cache.fetch(tls_server.url(NAME))
        assert len(calls) == 1


def handshake(context: ssl.SSLContext) -> None:
    """Connect to a server of the tests over memory buffers, as our own connections do."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(AUTHORITY.with_name("server.pem"))
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(one, other, server_hostname="localhost")
    server = server_context.wrap_bio(other, one, server_side=True)
    while True:
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            if side is client:
                return


@pytest.fixture
def on_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the module choose as under Windows."""
    monkeypatch.setattr(trust, "sys", SimpleNamespace(platform="win32"))


@not_on_windows("the tests for Windows use truststore anyway")
def test_truststore_verifies_over_memory_buffers(on_another_system: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The context of truststore refuses an unknown authority, and accepts one in certifi's bundle."""
    import truststore

    context = trust.create_tls_context()
    assert type(context) is truststore.SSLContext
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context)
    monkeypatch.setattr("certifi.where", lambda: str(AUTHORITY))
    handshake(trust.create_tls_context())


@not_on_windows("truststore is always used there")
def test_where_openssl_finds_no_authorities_truststore_looks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python whose OpenSSL was built for another system uses truststore, which knows where systems keep them."""
    import truststore

    monkeypatch.setattr(ssl, "create_default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert type(trust.create_tls_context()) is truststore.SSLContext


@pytest.mark.parametrize("missing", [("truststore",), ("certifi",), ("truststore", "certifi")], ids="-".join)
def test_missing_packages_are_no_error(
    missing: tuple[str, ...], on_another_system: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without certifi, or without truststore (which needs ctypes), certificates are still verified."""
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    context = trust.create_tls_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_a_system_that_truststore_does_not_support_is_no_error(
    error: type[Exception], on_another_system: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a function of the system is missing, Python's own settings are used."""

    class Loader:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "truststore":
                raise error

    monkeypatch.delitem(sys.modules, "truststore", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Loader(), *sys.meta_path])
    assert type(trust.create_tls_context()) is ssl.SSLContext


@not_on_windows("truststore is used there")
def test_a_damaged_certifi_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If certifi's bundle is missing, the system's authorities remain."""
    monkeypatch.setattr("certifi.where", lambda: str(tmp_path / "missing.pem"))
    assert trust.create_tls_context().cert_store_stats()["x509_ca"] > 0


@pytest.mark.parametrize("variable", [None, "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_private_authorities_may_omit_details(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in pip, a certificate need not have all the extensions that Python 3.13 requires by default."""
    if variable is not None:
        monkeypatch.setenv(variable, str(AUTHORITY if variable == "SSL_CERT_FILE" else AUTHORITY.parent))
    assert not trust.create_tls_context().verify_flags & ssl.VERIFY_X509_STRICT


def test_the_words_of_windows_are_part_of_the_error() -> None:
    """An error of truststore, which has no error number, is a permanent error with the words of the system."""
    error = ssl.SSLCertVerificationError("not trusted by the provider")
    error.verify_message = "not trusted by the provider"
    failure = failed_request(FailureKind.CONNECT, error)
    assert failure.problem == "the server's certificate is not trusted: not trusted by the provider"
    assert not failure.is_transient

"""Requests: parsing URLs, refusing invalid arguments, and redacting secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wheels import Wheel

from wheelcache import Cache, InvalidWheelError
from wheelcache._request import ResolvedRequest, parse_request, redact

HEX = "0123456789abcdef" * 4
NAME = "demo-1.0-py3-none-any.whl"


def wanted(url: str, hashes: object = None, size: int | None = None, filename: str | None = None) -> ResolvedRequest:
    return parse_request(url, hashes, size, filename)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tail", "filename"),
    [
        (NAME, NAME),
        ("demo-1.0%2Blocal-py3-none-any.whl", "demo-1.0+local-py3-none-any.whl"),
        ("demo-1%210.0-py3-none-any.whl", "demo-1!0.0-py3-none-any.whl"),
        (f"{NAME}?token=abc/def-1.0-py3-none-any.whl", NAME),
        (f"{NAME}#sha256={HEX}&egg=demo", NAME),
        ("demo-1.0-1build2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",) * 2,
        ("Demo-1.0-py3-none-any.WHL", "Demo-1.0-py3-none-any.WHL"),
    ],
)
def test_the_file_name_is_the_last_part_of_the_path(tail: str, filename: str) -> None:
    """The file name is percent-decoded, without query and fragment."""
    assert wanted(f"https://example.org/some/where/{tail}").filename == filename


def test_a_given_file_name_rules() -> None:
    """A given file name is used instead of the end of the URL."""
    assert wanted("https://example.org/download?id=7", filename=NAME).filename == NAME


NO_WHEEL_NAMES = [
    "",
    "demo",
    "demo-1.0.tar.gz",
    "demo-1.0-py3-none-any.whl.txt",
    "..%2f..%2fdemo-1.0-py3-none-any.whl",
    "..%5c..%5cdemo-1.0-py3-none-any.whl",
    "%2e%2e",
    "c%3a%5cdemo-1.0-py3-none-any.whl",
    "demo-1.0-py3-none-any.whl%00.txt",
    "demo%00-1.0-py3-none-any.whl",
    "demo%0a-1.0-py3-none-any.whl",
    "demo-1.0-py3-none-any.whl%0a",
    "demo-1.0-py3-none-any.whl%20",
    "demo-1.0-py3-none-any.whl.",
    "demo-1.0-py3-none-any.whl%3astream",
    "d%c3%a9mo-1.0-py3-none-any.whl",
    "demo-1.0-py3-none-any%ff.whl",
    "con.whl",
    "nul",
    "COM1.whl",
    "demo-1.0-py3-none-any-what-more.whl",
    "d" * 300 + "-1.0-py3-none-any.whl",
]


@pytest.mark.parametrize("tail", NO_WHEEL_NAMES)
def test_what_is_no_wheel_file_name_is_refused(tail: str) -> None:
    """Path tricks, reserved and over-long names and other file types are refused before a path is formed."""
    with pytest.raises(InvalidWheelError) as caught:
        wanted(f"https://example.org/a/{tail}")
    assert caught.value.operation == "fetch"
    assert caught.value.url is not None
    assert "filename=" in caught.value.advice


@pytest.mark.parametrize("filename", [tail.replace("%2f", "/").replace("%5c", "\\") for tail in NO_WHEEL_NAMES if tail])
def test_what_is_no_wheel_file_name_is_refused_from_the_caller_too(filename: str, cache: Cache, wheel: Wheel) -> None:
    """fetch, put and get check a given file name like that of a URL, and write nothing."""
    with pytest.raises(InvalidWheelError):
        cache.fetch("https://example.org/x", filename=filename, hashes=wheel.digest)
    with pytest.raises(InvalidWheelError):
        cache.put(__file__, filename=filename)
    with pytest.raises(InvalidWheelError):
        cache.get(wheel.digest, filename=filename)
    assert [path.name for path in (cache.path / "v1").iterdir()] == []


@pytest.mark.parametrize("device", ["con", "PRN", "aux", "nul", "com1", "LPT9"])
def test_a_project_named_like_a_device_keeps_to_its_folder(device: str, cache: Cache, wheel: Wheel, tmp_path) -> None:
    """A project that is named like a Windows device is accepted, since only a name up to the first dot is a device."""
    source = tmp_path / "source"
    source.write_bytes(wheel.data)
    added = cache.put(source, filename=f"{device}-1.0-py3-none-any.whl")
    assert added.path.read_bytes() == wheel.data


@pytest.mark.parametrize(
    "url",
    [
        "",
        "demo-1.0-py3-none-any.whl",
        f"ftp://example.org/{NAME}",
        f"//example.org/{NAME}",
        f"https:///{NAME}",
        f"https://example.org:port/{NAME}",
        f"https://example.org:99999/{NAME}",
        f"https://[::1/{NAME}",
        f"C:\\wheels\\{NAME}",
    ],
)
def test_what_is_no_url_is_a_value_error(url: str) -> None:
    """Only absolute https:, http: and file: URLs are accepted."""
    with pytest.raises(ValueError, match="URL"):
        wanted(url)


@pytest.mark.parametrize("url", [None, b"https://example.org/" + NAME.encode(), 7])
def test_a_url_is_text(url: object) -> None:
    """A URL of another type is a TypeError."""
    with pytest.raises(TypeError):
        wanted(url)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [-1, 1.5, "10", True])
def test_a_size_is_a_number_of_bytes(size: object) -> None:
    """A size that is not a non-negative integer is refused."""
    with pytest.raises(ValueError, match="size"):
        wanted(f"https://example.org/{NAME}", size=size)  # type: ignore[arg-type]


def test_hashes_of_the_fragment_count() -> None:
    """Hashes of the fragment and of the caller are merged, and other parts of the fragment are ignored."""
    found = wanted(f"https://example.org/{NAME}#egg=demo&SHA256={HEX.upper()}&subdirectory=x", {"md5": HEX[:32]})
    assert found.hashes == {"md5": HEX[:32], "sha256": HEX}
    assert "#" not in found.url
    assert "#" not in found.display_url


@pytest.mark.parametrize(
    ("fragment", "hashes"),
    [
        (f"sha256={HEX[:-1]}", None),
        ("sha256=", None),
        (f"md5={HEX[:32]}", None),
        (f"sha256={HEX}", f"sha256:{HEX[::-1]}"),
        (f"sha256={HEX}&sha256={HEX[::-1]}", None),
    ],
)
def test_a_fragment_that_cannot_be_right_is_a_value_error(fragment: str, hashes: str | None) -> None:
    """A malformed, weak-only or contradictory hash in the fragment is refused."""
    with pytest.raises(ValueError):
        wanted(f"https://example.org/{NAME}#{fragment}", hashes)


def test_credentials_travel_beside_the_url() -> None:
    """User name and password are decoded and separated from the URL, and repr shows neither."""
    found = wanted(f"https://al%40ice:s%2fcret@example.org:8443/{NAME}?q=1")
    assert found.auth == ("al@ice", "s/cret")
    assert found.url == f"https://example.org:8443/{NAME}?q=1"
    assert found.display_url == f"https://***@example.org:8443/{NAME}?***"
    assert "cret" not in repr(found)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.org/a.whl", "https://example.org/a.whl"),
        ("https://token@example.org/a.whl", "https://***@example.org/a.whl"),
        ("https://me:pass@word@example.org/a.whl", "https://***@example.org/a.whl"),
        ("https://example.org/a.whl?X-Sig=abc#sha256=1", "https://example.org/a.whl?***"),
        ("https://[::1]:8080/a.whl", "https://[::1]:8080/a.whl"),
        ("me:hunter2@example.org/a.whl", "***"),
        ("file:///a%20b/c@d.whl", "file:///a%20b/c@d.whl"),
        ("file:///a@b/", "file:///a@b/"),
        ("https://h/@scope/x.whl", "https://h/@scope/x.whl"),
        ("https://h:8443/a@b/x@v1.whl", "https://h:8443/a@b/x@v1.whl"),
        ("https://me:pw@h/@scope/x.whl", "https://***@h/@scope/x.whl"),
        ("https://me:pw@example.org/a@b.whl", "https://***@example.org/a@b.whl"),
        ("https://me:pw@[::1]:80/a@b.whl", "https://***@[::1]:80/a@b.whl"),
        ("https://[::1]/a@b.whl", "https://[::1]/a@b.whl"),
        ("https://h/%40scope/x.whl", "https://h/%40scope/x.whl"),
        ("https://me%40corp:p%40w@h/x.whl", "https://***@h/x.whl"),
        ("https://h/a.whl?by=me@h#me@h", "https://h/a.whl?***"),
        ("git+https://h/x@v1", "git+https://h/x@v1"),
        ("git+https://user:pw@h/x@v1", "git+https://***@h/x@v1"),
        ("git+ssh://git@h/x.git@v1.0#egg=x", "git+ssh://***@h/x.git@v1.0"),
        ("/wheels/a@b.whl", "/wheels/a@b.whl"),
        ("./a@b.whl", "./a@b.whl"),
        ("wheels/@scope/a.whl", "wheels/@scope/a.whl"),
        ("C:\\a@b.whl", "C:\\a@b.whl"),
        ("C:/@scope/a.whl", "C:/@scope/a.whl"),
        ("\\\\server\\share\\a@b.whl", "\\\\server\\share\\a@b.whl"),
        ("me@example.org", "***"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    """User name, password and query are replaced by ``***``, the fragment is removed, and the path is kept."""
    assert redact(url) == shown


@pytest.mark.parametrize("path", ["a-1.whl", "C:\\a-1.whl", "C:/a-1.whl"])
def test_a_local_path_is_not_a_url(path: str) -> None:
    """The error for a local path names the method that accepts one."""
    with pytest.raises(ValueError, match="use put for a local file") as caught:
        wanted(path)
    assert path in str(caught.value)


SECRET = "hunter2"
HIDDEN = [
    f"https://me:{SECRET}@example.org/{NAME}",
    f"https://{SECRET}@example.org/{NAME}",
    f"https://example.org/{NAME}?token={SECRET}",
    f"https://me:{SECRET}@[bad/{NAME}",
    f"//me:{SECRET}@[bad/{NAME}",
    f"me:{SECRET}@example.org/{NAME}",
    f"{SECRET}@example.org/{NAME}",
    f"//me:{SECRET}@example.org/{NAME}",
    f"ftp://me:{SECRET}@example.org/{NAME}",
    f"https://me:{SECRET}@example.org:port/{NAME}",
    f"https://me:{SECRET}/more@example.org/{NAME}",
    f"https://me:{SECRET}#more@example.org/{NAME}",
    f"https://me:{SECRET}?more@example.org/{NAME}",
    f"https://me:1234#{SECRET}@example.org/{NAME}",
    f"https://me:1234?{SECRET}@example.org/{NAME}",
    f"https://me:p@{SECRET}/more@example.org/{NAME}",
    f"https://me:{SECRET}%40example.org/{NAME}",
    f"https://{SECRET}%40example.org/{NAME}",
    f"https:///me:{SECRET}@example.org/{NAME}",
    f"me:{SECRET}/more@example.org/{NAME}",
    f"git+https://me:{SECRET}@example.org/x@v1",
    f"https://me:{SECRET}@example.org/@scope/{NAME}",
    f"https://me:{SECRET}",
    f"https:me:{SECRET}@example.org/{NAME}",
    f"https:\\\\me:{SECRET}@example.org\\{NAME}",
]


@pytest.mark.parametrize("url", HIDDEN)
def test_no_error_about_a_url_shows_its_secrets(url: str) -> None:
    """An error about a malformed URL never shows its credentials."""
    try:
        shown = wanted(url, filename=NAME).display_url
    except ValueError as error:
        shown = f"{error} {error!r} {error.__cause__} {error.args}"
    assert SECRET not in shown
    assert SECRET not in redact(url)


USERINFO = st.text(st.characters(exclude_characters="/?#\\[]@", categories=["L", "N", "P", "S"]), max_size=12)


@given(scheme=st.sampled_from(["https", "http", "ftp", "x"]), user=USERINFO, password=USERINFO)
def test_redact_never_shows_what_stands_before_the_host(scheme: str, user: str, password: str) -> None:
    """With any characters in the user name and password, only the host remains of the authority."""
    shown = redact(f"{scheme}://{user}:{password}@example.org/a.whl?{password}")
    assert shown in {f"{scheme}://***@example.org/a.whl{query}" for query in ("", "?***")} | {f"{scheme}://***", "***"}


SEGMENTS = st.lists(st.text(st.sampled_from("a@:%.+-"), min_size=1, max_size=6), min_size=1, max_size=4).map("/".join)


@given(scheme=st.sampled_from(["https", "http", "ftp", "git+https", "git+ssh"]), login=USERINFO, path=SEGMENTS)
def test_redact_keeps_the_path(scheme: str, login: str, path: str) -> None:
    """Any path is kept, and the text in front of the host is removed."""
    assert redact(f"{scheme}://example.org/{path}") == f"{scheme}://example.org/{path}"
    shown = redact(f"{scheme}://{login}:hunter2@example.org/{path}?hunter2#hunter2")
    assert shown in {f"{scheme}://***@example.org/{path}?***", f"{scheme}://***", "***"}


@given(text=st.text(max_size=60))
def test_any_text_is_redacted_without_an_error(text: str) -> None:
    """redact() accepts any text, and never shows text before an @."""
    redact(text)
    if not set(text) & set("/?#\\"):
        assert "hunter2" not in redact(f"https://{text}hunter2@example.org/a.whl")

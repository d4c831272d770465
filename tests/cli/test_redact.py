"""Redacting the secrets of URLs in the output of the command line, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marks import any_system

from wheelcache import WheelRequest
from wheelcache.cli._redact import redact

pytestmark = any_system

SHOWN = [
    ("see https://h/@scope/x.whl, then", "see https://h/@scope/x.whl, then"),
    ("https://h:8443/a@b/x@v1.whl", "https://h:8443/a@b/x@v1.whl"),
    ("https://me:pw@h/@scope/x.whl", "https://***@h/@scope/x.whl"),
    ("https://me:pw@example.org/a@b.whl", "https://***@example.org/a@b.whl"),
    ("(https://me:p'w@[::1]:80/a@b.whl)", "(https://***@[::1]:80/a@b.whl)"),
    ("https://[::1]/a@b.whl", "https://[::1]/a@b.whl"),
    ("https://h/%40scope/x.whl", "https://h/%40scope/x.whl"),
    ("https://me%40corp:p%40w@h/x.whl", "https://***@h/x.whl"),
    ("git+https://h/x@v1", "git+https://h/x@v1"),
    ("git+https://user:pw@h/x@v1", "git+https://***@h/x@v1"),
    ("x @ git+ssh://git@h/x.git@v1.0#egg=x", "x @ git+ssh://***@h/x.git@v1.0#egg=x"),
    ("file:///a@b/", "file:///a@b/"),
    ("file:/a@b/x.whl", "file:/a@b/x.whl"),
    (r"C:\a@b.whl: no such file", r"C:\a@b.whl: no such file"),
    ("wheels/@scope/a@b.whl", "wheels/@scope/a@b.whl"),
    ("user@host", "user@host"),
    ("why https://h/x?", "why https://h/x?"),
    ("https://h:8080: refused", "https://h:8080: refused"),
    ("https://h/x.whl#sha256=ab&egg=x, then", "https://h/x.whl#sha256=ab&egg=x, then"),
    ("https://h/x.whl?by=me@h", "https://h/x.whl?***"),
    ('{"a": "https://u:p@example.org/x@v1", "b": "me@h"}', '{"a": "https://***@example.org/x@v1", "b": "me@h"}'),
]


@pytest.mark.parametrize(("text", "shown"), SHOWN)
def test_an_at_sign_is_not_always_the_end_of_credentials(text: str, shown: str):
    """Paths, revisions, e-mail addresses and local files keep their "@", and credentials are removed beside them."""
    assert redact(text) == shown
    assert redact(shown) == shown


SECRET = "hunter2"
HIDDEN = [
    f"https://me:{SECRET}@example.org/x@v1",
    f"https://me:{SECRET}/more@example.org/x",
    f"https://me:{SECRET}#more@example.org/x",
    f"https://me:{SECRET}?more@example.org/x",
    f"https://me:1234#{SECRET}@example.org/x",
    f"https://me:1234?{SECRET}@example.org/x",
    f"https://me:p@{SECRET}/more@example.org/x",
    f"https://me:{SECRET}%40example.org/x",
    f"https:///me:{SECRET}@example.org/x",
    f"https:me:{SECRET}@example.org/x",
    f"https://me:{SECRET}",
    f"https://me:p'{SECRET}@example.org/x",
    f"'https://example.org/x?sig=a\"{SECRET}'",
    f"https://example.org/x#token={SECRET}",
    f"https://example.org/x,https://me:p/{SECRET}@example.org",
    f"//me:{SECRET}@example.org/x",
    f"proxy = me:{SECRET}@example.org:3128",
    f"proxy = me:p/{SECRET}@example.org:3128",
]


@pytest.mark.parametrize("text", HIDDEN)
def test_secrets_are_hidden_even_in_malformed_urls(text: str):
    """A password is hidden if its special characters are not escaped, too."""
    assert SECRET not in redact(text)
    assert SECRET not in redact(f"pip: cannot fetch '{text}' (me@example.org)")


LOGIN = st.text(st.characters(exclude_characters="/?#\\[]", categories=["L", "N", "P", "S"]), max_size=12)
PATH = st.lists(st.text(st.sampled_from("a@:%.+-"), max_size=6).map("a{}a".format), min_size=1, max_size=4).map(
    "/".join
)


@given(st.sampled_from(["https", "ftp", "git+https", "git+ssh"]), LOGIN, PATH, st.sampled_from(["", "'", '"']))
def test_only_the_credentials_are_replaced(scheme: str, login: str, path: str, quote: str):
    """With any characters in credentials and path, the credentials are hidden and the path is shown."""
    text = f"see {quote}{scheme}://{login}{SECRET}@example.org/{path}{quote} or ask"
    assert redact(text) == f"see {quote}{scheme}://***@example.org/{path}{quote} or ask"


@given(st.sampled_from(["https", "git+https", "file"]), st.text(st.sampled_from("hp@:/?#%.12+"), max_size=30))
def test_the_command_line_hides_what_the_library_hides(scheme: str, rest: str):
    """If the library hides the credentials of a URL, so does the command line."""
    url = f"{scheme}://{rest}"
    library = repr(WheelRequest(url)).partition("'")[2].partition("'")[0]
    if "@" in rest and "***" in library.partition("?")[0]:
        assert "***" in redact(url)


@given(st.text(max_size=60))
def test_any_text_is_redacted_without_an_error(text: str):
    """Any text is accepted, and credentials in front of a host never remain."""
    redact(text)
    if not set(text) & set("/?#\\ \t\r\n\v\f") and not any(map(str.isspace, text)):
        assert SECRET not in redact(f"https://{text}{SECRET}@example.org/a.whl")

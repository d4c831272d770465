"""Test the chain of redirects that another client follows for one wheel."""

from __future__ import annotations

import pytest
from marks import any_system

from wheelcache._fetch.redirect_chain import Redirect, RedirectChain, chain_of

pytestmark = any_system

FIRST = "https://me:hunter2@example.org/repo/demo-1.0-py3-none-any.whl?token=hunter2"
STORAGE = "https://storage.example.org/0123?signature=hunter2"
DEFAULT = ["Host", "Accept", "Accept-Encoding", "Connection", "User-Agent"]


def begin(*headers: str) -> RedirectChain:
    chain = chain_of(FIRST, [*DEFAULT, *headers], None, 1.0)
    assert chain is not None
    return chain


def follow(chain: RedirectChain, url: str, *headers: str) -> RedirectChain | None:
    redirect = Redirect.of(chain, chain.url, url, {"cache-control": "max-age=1", "set-cookie": "hunter2"})
    return chain_of(url, [*DEFAULT, *headers], redirect, 2.0)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [((), (), False), (("Authorization",), (), True), ((), ("Cookie",), True), (("X-JFrog-Art-Api",), (), True)],
)
def test_a_chain_knows_whether_credentials_were_sent(
    first: tuple[str, ...], last: tuple[str, ...], expected: bool
) -> None:
    """Credentials of any request of the chain count, since each of them may have decided the response."""
    chain = follow(begin(*first), STORAGE, *last)
    assert chain is not None
    assert chain.with_credentials is expected
    further = follow(chain, "https://example.org/further")
    assert further is not None
    assert further.with_credentials is expected


def test_a_request_that_is_sent_again_with_credentials_begins_again() -> None:
    """The chain of a request that is sent again has only its own credentials and redirects."""
    redirect = Redirect.of(begin("Authorization"), FIRST, STORAGE, {})
    again = chain_of(FIRST, DEFAULT, redirect, 3.0)
    assert again is not None
    assert (again.with_credentials, again.requested_at, again.hops, again.place) == (False, 3.0, (), "")


def test_a_chain_keeps_no_credentials_and_shows_no_secrets() -> None:
    """Neither the user name and password of a URL nor other header fields than those of freshness are kept."""
    chain = follow(begin(), STORAGE)
    assert chain is not None
    assert chain.request.auth is None
    assert chain.hops == ({"cache-control": "max-age=1"},)
    assert "hunter2" not in f"{chain!r} {chain.redirect!r}"


@pytest.mark.parametrize("target", ["ftp://example.org/0123", "https:///0123", "/0123", "https://example.org:port/"])
def test_a_target_that_is_not_a_url_of_wheels_is_refused(target: str) -> None:
    """A redirect to another kind of URL raises ValueError."""
    with pytest.raises(ValueError, match=r"not an? |invalid host or port"):
        Redirect.of(begin(), FIRST, target, {})

"""Check the test server: correct responses are correct, and faults are the requested ones."""

from __future__ import annotations

import socket
import threading
from email.utils import formatdate

import httpx
import pytest
from marks import any_system
from server import (
    Server,
    chunked,
    refused_range,
    stalled,
    until_closed,
    without_ranges,
    without_validators,
    wrong_range,
)

pytestmark = any_system

BODY = bytes(range(256)) * 10


def get(url: str, **headers: str) -> httpx.Response:
    with httpx.Client() as client:
        return client.get(url, headers={name.replace("_", "-"): text for name, text in headers.items()})


def test_a_file_comes_with_its_validators(server: Server) -> None:
    """A correct response has the bytes, the length, an ETag and a date."""
    answer = get(server.serve("/x", BODY))
    assert (answer.status_code, answer.content) == (200, BODY)
    assert answer.headers["content-length"] == str(len(BODY))
    assert {"etag", "last-modified", "accept-ranges"} <= set(answer.headers)
    assert get(server.url("/y")).status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-", 206, 0, 2559),
        ("bytes=100-199", 206, 100, 199),
        ("bytes=2559-", 206, 2559, 2559),
        ("bytes=100-99999", 206, 100, 2559),
        ("bytes=-10", 206, 2550, 2559),
        ("bytes=-99999", 206, 0, 2559),
    ],
)
def test_a_range_is_answered_with_it(asked: str, status: int, first: int, last: int, server: Server) -> None:
    """A 206 has the requested bytes, and names their range."""
    answer = get(server.serve("/x", BODY), Range=asked)
    assert (answer.status_code, answer.content) == (status, BODY[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/2560"


@pytest.mark.parametrize("asked", ["bytes=2560-", "bytes=9999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_416(asked: str, server: Server) -> None:
    """A 416 contains the length of the file."""
    answer = get(server.serve("/x", BODY), Range=asked)
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */2560")


@pytest.mark.parametrize("asked", ["bytes=-", "bytes=x-", "items=0-1", "bytes=0-1,5-6"])
def test_a_range_that_is_not_understood_is_passed_over(asked: str, server: Server) -> None:
    """Without range support, the response is the whole file."""
    assert get(server.serve("/x", BODY), Range=asked).status_code == 200


def test_if_range_holds_for_the_same_file_only(server: Server) -> None:
    """With the right ETag or date, the range is sent. With another one, the whole file is sent."""
    url = server.serve("/x", BODY)
    whole = get(url)
    for condition, status in {
        whole.headers["etag"]: 206,
        whole.headers["last-modified"]: 206,
        '"other"': 200,
        formatdate(0, usegmt=True): 200,
    }.items():
        assert get(url, Range="bytes=5-", If_Range=condition).status_code == status
    server.serve("/x", BODY[::-1])
    assert get(url, Range="bytes=5-", If_Range=whole.headers["etag"]).content == BODY[::-1]


def test_an_unchanged_file_is_304(server: Server) -> None:
    """A 304 has no body, and the connection can be reused."""
    url = server.serve("/x", BODY, Cache_Control="max-age=60")
    tag = get(url).headers["etag"]
    with httpx.Client() as client:
        answer = client.get(url, headers={"If-None-Match": f'"a", W/{tag}'})
        assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (304, b"", "max-age=60")
        assert client.get(url, headers={"If-None-Match": '"a"'}).status_code == 200
        assert client.get(url, headers={"If-Modified-Since": formatdate(usegmt=True)}).status_code == 304
        assert client.get(url, headers={"If-Modified-Since": formatdate(0, usegmt=True)}).content == BODY


def test_ranges_can_be_answered_wrongly(server: Server) -> None:
    """A range is ignored, shifted or refused on request."""
    assert get(server.serve("/x", BODY, how=without_ranges), Range="bytes=5-").content == BODY
    shifted = get(server.serve("/x", BODY, how=wrong_range(-3)), Range="bytes=5-")
    assert (shifted.content, shifted.headers["content-range"]) == (BODY[2:], "bytes 2-2559/2560")
    assert get(server.serve("/x", BODY, how=refused_range), Range="bytes=5-").status_code == 416
    assert get(server.serve("/x", BODY, how=refused_range)).status_code == 200
    assert "etag" not in get(server.serve("/x", BODY, how=without_validators)).headers


def test_requests_and_bytes_are_counted(server: Server) -> None:
    """Requests and the bytes of bodies are counted for each path, for any query."""
    url = server.serve("/x", BODY, how=chunked)
    get(f"{url}?a=1", X_Mine="yes")
    get(server.serve("/y", BODY[:7], how=until_closed))
    assert (server.count(url), server.count(), server.sent("/x"), server.sent()) == (1, 2, 2560, 2567)
    assert server.requests("/x")[0].target == "/x?a=1"
    assert server.requests("/x")[0].headers["x-mine"] == "yes"
    server.forget()
    assert (server.count(), server.sent()) == (0, 0)


def test_close_lets_go_of_what_waits(server: Server) -> None:
    """A stalled response and an idle connection do not prevent the server from closing, and no thread is left."""
    url = server.serve("/x", BODY, how=stalled(5, threading.Event()))
    with (
        socket.create_connection(("127.0.0.1", server.port)),
        httpx.Client() as client,
        client.stream("GET", url) as answer,
    ):
        assert answer.status_code == 200
        server.close()
    assert [thread for thread in threading.enumerate() if "process_request" in thread.name] == []

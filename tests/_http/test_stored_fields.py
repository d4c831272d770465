"""Fields that a server chose and that are stored or sent back: only printable ASCII, whoever stored them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import Machine
from marks import any_system
from server import Server, truncated
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache, CacheTransport, Status
from wheelcache._http.cache_control import KEPT, freshness, stored_fields
from wheelcache._http.headers import sendable_value
from wheelcache._store.layout import Layout
from wheelcache._store.records import decode, encode

pytestmark = any_system

DATE = "Sun, 13 Sep 2020 12:26:40 GMT"
ODD = {
    "Latin-1": '"caf\xe9"',
    "UTF-8": '"caf\xc3\xa9"',
    "control": '"a\x01b"',
    "tab": '"a\tb"',
    "delete": '"a\x7fb"',
    "long": '"' + "x" * 5000 + '"',
}


def pointer_of(cache: Cache, url: str) -> Path:
    """Return the path of a URL's index entry."""
    return Path(Layout(str(cache.path)).pointer(url))


def stored(path: Path) -> dict[str, Any]:
    """Return the fields of a small file of a cache."""
    fields = decode(path.read_bytes())
    assert fields is not None
    return fields


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
def test_an_odd_validator_is_not_sent_back(name: str, value: str, server: Server, cache: Cache, wheel: Wheel) -> None:
    """A validator with other bytes than printable ASCII is neither stored nor sent, and each fetch downloads."""
    headers = {"ETag": "", "Last-Modified": "", name: value if name == "ETag" else value.strip('"') + DATE}
    url = wheel.on(server, **headers)
    for _ in range(3):
        assert cache.fetch(url).status is Status.DOWNLOADED
        assert name.lower() not in stored(pointer_of(cache, url))["headers"]
    for request in server.requests():
        assert request.headers.keys().isdisjoint({"if-none-match", "if-modified-since"})


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize("name", ["ETag", "Last-Modified", "Date", "Expires", "Cache-Control", "Vary", "Age"])
@pytest.mark.parametrize("through", ["cache", "transport"])
def test_odd_fields_fail_no_later_fetch(
    through: str, name: str, value: str, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """Whatever a field contains, every later request of the URL works, and the index contains printable ASCII."""
    url = wheel.on(server, **{name.replace("-", "_"): value})
    with httpx.Client(transport=CacheTransport(cache, next=httpx.HTTPTransport())) as client:
        for _ in range(3):
            body = cache.fetch(url).path.read_bytes() if through == "cache" else client.get(url).content
            assert body == wheel.data
    for text in stored(pointer_of(cache, url))["headers"].values():
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= 1024


@pytest.mark.parametrize(
    "control", ["no-store, note=caf\xe9", "caf\xe9, no-store", "no-store" + ", x" * 3000, "x, " * 3000 + "no-store"]
)
def test_odd_bytes_do_not_hide_no_store(control: str, server: Server, cache: Cache, wheel: Wheel) -> None:
    """A directive counts whatever stands beside it."""
    url = wheel.on(server, Cache_Control=control)
    cache.fetch(url)
    assert not pointer_of(cache, url).exists()


@pytest.mark.parametrize("field", [{"Cache_Control": "max-age=60, " + "x" * 3000}, {"Vary": "Cookie, " + "x" * 3000}])
def test_a_list_that_is_too_long_is_stored_as_the_most_careful_one(
    field: dict[str, str], server: Server, cache: Cache, wheel: Wheel
) -> None:
    """No directive is lost: the stored response is revalidated each time once the server repeats nothing of it."""
    url = wheel.on(server, **field)
    cache.fetch(url)
    careful = {"cache-control": "no-cache", "vary": "*"}
    fields = stored(pointer_of(cache, url))["headers"]
    assert [fields[name] for name in careful if name in fields] == [careful[name] for name in careful if name in fields]
    assert not fields.keys().isdisjoint(careful)


@pytest.mark.parametrize("value", [*ODD.values(), "", " ", 7, None, ["x"], {"a": "b"}, "\ud800"], ids=repr)
@pytest.mark.parametrize("through", ["cache", "transport"])
def test_entries_of_other_writers_are_filtered_too(
    through: str, value: object, server: Server, cache: Cache, wheel: Wheel
) -> None:
    """An index entry of an older version or another program fails no request, and none of its bad fields is sent."""
    url = wheel.on(server, ETag="")
    cache.fetch(url)
    path = pointer_of(cache, url)
    headers = {"etag": value, "last-modified": value, "cache-control": value, "vary": value, "x": value}
    path.write_bytes(encode({**stored(path), "headers": headers}))
    server.forget()
    with httpx.Client(transport=CacheTransport(cache, next=httpx.HTTPTransport())) as client:
        body = cache.fetch(url).path.read_bytes() if through == "cache" else client.get(url).content
    assert body == wheel.data
    (request,) = server.requests()
    assert request.headers.keys().isdisjoint({"if-none-match", "if-modified-since"})


def test_an_entry_that_is_nested_too_deeply_is_a_miss(server: Server, cache: Cache, wheel: Wheel) -> None:
    """An index entry whose JSON exceeds Python's recursion limit counts as missing, and is replaced."""
    url = wheel.on(server)
    cache.fetch(url)
    path = pointer_of(cache, url)
    body = '{"headers":' + "[" * 100_000 + "]" * 100_000 + "}"
    path.write_text(f'{body[:-1]},"check":"{zlib.crc32(body.encode()):08x}"}}\n', newline="\n")
    assert cache.fetch(url).status is Status.DOWNLOADED
    assert stored(path)["sha256"] == wheel.hex()


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_a_download_is_resumed_whatever_its_validator(value: str, server: Server, cache: Cache) -> None:
    """An odd ETag is no validator for the rest of a wheel, which is then requested by its hash alone."""
    big = Wheel(wheel_filename("big"), make_wheel("big", size=500_000))
    url = big.on(server, ETag=value)
    server.script(url, truncated(300_000))
    assert cache.fetch(url, hashes=big.digest).status is Status.RESUMED
    _, second = server.requests()
    assert "if-range" not in second.headers


@pytest.mark.parametrize(
    ("field", "value"),
    [*(("validator", value) for value in ODD.values()), ("total", -1), ("total", 10**400), ("total", True)],
    ids=str,
)
def test_an_origin_file_of_another_writer_is_filtered_too(
    field: str, value: object, server: Server, machine: Machine, tmp_path: Path
) -> None:
    """The origin file of a partial download may be written by an older version, and fails no resumption."""
    big = Wheel(wheel_filename("big"), make_wheel("big", size=500_000))
    url = server.serve(big.path, big.data, how=truncated(300_000))
    with machine.cache(tmp_path / "cache") as cache:
        with pytest.raises(ZeroDivisionError):
            cache.fetch(url, hashes=big.digest, progress=lambda event: 1 // (event.done < 300_000))
        (origin,) = (cache.path / "v1" / "partial").rglob("*.json")
        origin.write_bytes(encode({**stored(origin), field: value}))
    server.serve(big.path, big.data)
    with machine.cache(tmp_path / "cache") as cache:
        assert cache.fetch(url, hashes=big.digest).status is Status.RESUMED


TEXT = st.text(st.characters(max_codepoint=0x17F), max_size=30) | st.just("x" * 2000)


@given(headers=st.dictionaries(st.sampled_from([*KEPT, "set-cookie"]), TEXT | st.none() | st.integers()))
def test_stored_fields_can_always_be_sent(headers: dict[str, object]) -> None:
    """Stored fields are printable ASCII, stay the same when filtered again, and never keep a response longer."""
    fields = stored_fields(headers)
    assert set(fields) <= set(KEPT)
    assert all(sendable_value(text) == text for text in fields.values())
    assert stored_fields(json.loads(json.dumps(fields))) == fields
    texts = {name: text for name, text in headers.items() if isinstance(text, str)}
    assert freshness(fields, 1000.0, 1001.0).until <= freshness(texts, 1000.0, 1001.0).until

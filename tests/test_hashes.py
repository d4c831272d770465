"""Hashes: every accepted form, and the refused ones."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheelcache._hashes import MultiHash, naming_hash, parse_hash, parse_hashes, require_strong

SHA256 = hashlib.sha256(b"x").hexdigest()
SHA512 = hashlib.sha512(b"x").hexdigest()
MD5 = hashlib.md5(b"x").hexdigest()


@pytest.mark.parametrize(
    ("given_as", "read_as"),
    [
        (None, {}),
        ([], {}),
        ({}, {}),
        (f"sha256:{SHA256}", {"sha256": SHA256}),
        (f"sha256={SHA256}", {"sha256": SHA256}),
        (f"SHA256:{SHA256.upper()}", {"sha256": SHA256}),
        (f" sha256 : {SHA256}\n", {"sha256": SHA256}),
        ({"sha256": SHA256}, {"sha256": SHA256}),
        ({"Sha256": SHA256.upper()}, {"sha256": SHA256}),
        ([f"sha256:{SHA256}", f"md5={MD5}"], {"sha256": SHA256, "md5": MD5}),
        ((f"sha512:{SHA512}", f"sha512={SHA512}"), {"sha512": SHA512}),
        (iter([f"sha512:{SHA512}"]), {"sha512": SHA512}),
        ({"sha256": SHA256, "sha512": SHA512}, {"sha256": SHA256, "sha512": SHA512}),
        ({"sha3-256": SHA256}, {"sha3_256": SHA256}),
        ({"blake2b": SHA512}, {"blake2b": SHA512}),
    ],
)
def test_hashes_are_read_in_every_form(given_as: object, read_as: dict[str, str]) -> None:
    """Colon or equals sign, mapping or strings, capitals and surrounding blanks: all forms mean the same."""
    assert parse_hashes(given_as) == read_as  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given_as",
    [
        "",
        "sha256",
        SHA256,
        "sha256:",
        f"sha256:{SHA256[:-1]}",
        f"sha256:{SHA256}0",
        f"sha256:{SHA256[:-1]}g",
        f"sha256:{SHA256[:-1]}\u0661",
        f"sha256:{SHA512}",
        f"crc32:{SHA256}",
        f":{SHA256}",
        f"shake_256:{SHA256}",
        {"sha256": ""},
        [f"sha256:{SHA256}", "rubbish"],
        [f"sha256:{SHA256}", f"sha256:{SHA256[::-1]}"],
        {"sha256": SHA256, "SHA256": SHA256[::-1]},
    ],
)
def test_what_is_no_hash_is_a_value_error(given_as: object) -> None:
    """Unknown algorithms, malformed digits and contradictory values are refused."""
    with pytest.raises(ValueError):
        parse_hashes(given_as)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "weak", [{"md5": MD5}, {"sha1": "0" * 40}, {"sha224": "0" * 56}, {"md5": MD5, "sha1": "0" * 40}]
)
def test_weak_hashes_alone_are_a_value_error(weak: dict[str, str]) -> None:
    """Weak hashes alone are refused. Together with a strong one they are accepted."""
    with pytest.raises(ValueError, match="too weak"):
        require_strong(weak)
    require_strong({**weak, "sha256": SHA256})
    require_strong({})


def test_every_strong_hash_names_an_entry() -> None:
    """Each strong algorithm alone is enough to find an entry."""
    for algorithm in ("sha256", "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512", "blake2b", "blake2s"):
        digits = hashlib.new(algorithm, b"x").hexdigest()
        assert parse_hash(f"{algorithm}:{digits}") == (algorithm, digits)
        require_strong({algorithm: digits})
        assert naming_hash({"md5": MD5, algorithm: digits}) == f"{algorithm}:{digits}"
    assert naming_hash({"md5": MD5}) is None
    assert naming_hash({"sha512": SHA512, "sha256": SHA256}) == f"sha256:{SHA256}"


@given(data=st.binary(max_size=500), cuts=st.lists(st.integers(0, 500), max_size=8))
def test_the_hash_does_not_depend_on_the_chunks(data: bytes, cuts: list[int]) -> None:
    """The hashes do not depend on how the bytes are split into chunks."""
    running = MultiHash(["sha512", "md5"])
    bounds = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(bounds):
        running.update(memoryview(data)[start:end])
    assert running.hexdigests() == {
        "sha256": hashlib.sha256(data).hexdigest(),
        "sha512": hashlib.sha512(data).hexdigest(),
        "md5": hashlib.md5(data).hexdigest(),
    }

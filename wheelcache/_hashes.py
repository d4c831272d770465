"""Hashes: what a caller may ask for, and the hashing of bytes as they pass.

An entry of the cache is named by its sha256. Other hashes that a caller gives are checked as well and kept in the
record, so that a later caller who knows only the sha512 finds the same entry.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

Hashes: TypeAlias = str | Mapping[str, str] | Iterable[str]
"""What ``hashes=`` takes: ``"sha256:<hex>"``, ``"sha256=<hex>"``, ``{"sha256": hex}``, or several of the strings."""

_DIGEST_BYTES = {
    "md5": 16,
    "sha1": 20,
    "sha224": 28,
    "sha256": 32,
    "sha384": 48,
    "sha512": 64,
    "sha3_224": 28,
    "sha3_256": 32,
    "sha3_384": 48,
    "sha3_512": 64,
    "blake2b": 64,
    "blake2s": 32,
}
# A hash is strong from 256 bits on: https://peps.python.org/pep-0503/ recommends sha256 for the fragment.
_STRONG_BYTES = 32
# sha256 names the entry; after it the order in which an entry is looked for.
_PREFERENCE = ("sha256", "sha512", "sha384", "blake2b", "blake2s", "sha3_256", "sha3_512", "sha3_384")

_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


def is_known(algorithm: str) -> bool:
    """Return whether hashes of this algorithm can be checked."""
    return algorithm in _DIGEST_BYTES


def is_strong(algorithm: str) -> bool:
    """Return whether this algorithm alone says which bytes are meant."""
    return _DIGEST_BYTES[algorithm] >= _STRONG_BYTES


def parse_hash(text: str) -> tuple[str, str]:
    """Split ``"sha256:<hex>"`` or ``"sha256=<hex>"`` into the algorithm and the lowercase hex digits.

    Raises:
        ValueError: for an unknown algorithm, or digits that are not a digest of it.
    """
    if not isinstance(text, str):
        raise TypeError(f"a hash is a str '<algorithm>:<hex>', not {type(text).__name__}")
    algorithm, separator, value = text.replace("=", ":", 1).partition(":")
    if not separator:
        raise ValueError(f"a hash is written '<algorithm>:<hex>', not {text!r}")
    return checked(algorithm, value)


def checked(algorithm: str, value: str) -> tuple[str, str]:
    """Return the pair in its normal form.

    Raises:
        ValueError: for an unknown algorithm, or digits that are not a digest of it.
    """
    name = algorithm.strip().lower().replace("-", "_")
    digits = value.strip().lower()
    if name not in _DIGEST_BYTES:
        raise ValueError(f"unknown hash algorithm {algorithm!r}: known are {', '.join(_DIGEST_BYTES)}")
    if len(digits) != 2 * _DIGEST_BYTES[name] or not _HEX.fullmatch(digits):
        raise ValueError(f"a {name} is {2 * _DIGEST_BYTES[name]} hexadecimal digits, not {value!r}")
    return name, digits


def parse_hashes(hashes: Hashes | None) -> dict[str, str]:
    """Return what the caller gave as ``{algorithm: hex}``; empty for ``None`` and for nothing.

    Raises:
        ValueError: for an unknown algorithm, malformed digits, or two different values of one algorithm.
    """
    if hashes is None:
        return {}
    if isinstance(hashes, str):
        pairs = [parse_hash(hashes)]
    elif isinstance(hashes, Mapping):
        pairs = [checked(algorithm, value) for algorithm, value in hashes.items()]
    else:
        pairs = [parse_hash(text) for text in hashes]
    return merged(pairs)


def merged(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the pairs as a mapping.

    Raises:
        ValueError: where one algorithm comes with two values, since no bytes can have both.
    """
    found: dict[str, str] = {}
    for algorithm, value in pairs:
        if found.setdefault(algorithm, value) != value:
            raise ValueError(f"two different {algorithm} hashes were given: {found[algorithm]} and {value}")
    return found


def require_strong(hashes: Mapping[str, str]) -> None:
    """Refuse a set of hashes that does not say which bytes are meant.

    Raises:
        ValueError: where hashes were given and every one is weak.
    """
    if hashes and not any(map(is_strong, hashes)):
        raise ValueError(f"{', '.join(hashes)} alone is too weak to name a wheel: give a sha256 or better as well")


def naming_hash(hashes: Mapping[str, str]) -> str | None:
    """Return ``"<algorithm>:<hex>"`` of the hash that the entry is looked for by, ``None`` where none is strong."""
    for algorithm in _PREFERENCE:
        if algorithm in hashes:
            return f"{algorithm}:{hashes[algorithm]}"
    return None


def sha256_of(data: bytes) -> str:
    """Return the sha256 of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


class MultiHash:
    """Several hashes of one stream of bytes, computed as the bytes pass; sha256 is always among them."""

    def __init__(self, algorithms: Iterable[str] = ()) -> None:
        # usedforsecurity=False: md5 and sha1 come only beside a strong hash, and FIPS builds refuse them otherwise.
        self._running = {
            name: hashlib.new(name, usedforsecurity=False) for name in dict.fromkeys(("sha256", *algorithms))
        }

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        for running in self._running.values():
            running.update(data)

    def hexdigests(self) -> dict[str, str]:
        """Return every hash of the bytes so far, in hex."""
        return {name: running.hexdigest() for name, running in self._running.items()}

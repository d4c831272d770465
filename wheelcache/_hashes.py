"""Parse the hashes that a caller passes, and compute several hashes of one stream.

An entry of the cache is named by its sha256. Other hashes that a caller passes are also verified and stored in the
record. A later caller that knows only the sha512 finds the same entry.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

Hashes: TypeAlias = str | Mapping[str, str] | Iterable[str]
"""Hashes of a wheel: ``"sha256:<hex>"``, ``"sha256=<hex>"``, ``{"sha256": hex}``, or several such strings."""

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
# Algorithms of at least 256 bits are strong. For the fragment of a URL, https://peps.python.org/pep-0503/ recommends
# sha256.
_STRONG_BYTES = 32
# The order in which hashes are used to find an entry. Entries are named by their sha256.
_PREFERENCE = ("sha256", "sha512", "sha384", "blake2b", "blake2s", "sha3_256", "sha3_512", "sha3_384")

_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


def is_known(algorithm: str) -> bool:
    """Return whether hashes of this algorithm can be verified."""
    return algorithm in _DIGEST_BYTES


def is_strong(algorithm: str) -> bool:
    """Return whether a hash of this algorithm is enough to identify a wheel."""
    return _DIGEST_BYTES[algorithm] >= _STRONG_BYTES


def parse_hash(text: str) -> tuple[str, str]:
    """Split ``"sha256:<hex>"`` or ``"sha256=<hex>"`` into the algorithm and the lowercase hex digits.

    Raises:
        TypeError: if the hash is not a ``str``.
        ValueError: if the algorithm is unknown, or the digits are not a digest of it.
    """
    if not isinstance(text, str):
        raise TypeError(f"a hash must be a str '<algorithm>:<hex>', not {type(text).__name__}")
    algorithm, separator, value = text.replace("=", ":", 1).partition(":")
    if not separator:
        raise ValueError(f"a hash must have the form '<algorithm>:<hex>', not {text!r}")
    return normalize_hash(algorithm, value)


def normalize_hash(algorithm: str, value: str) -> tuple[str, str]:
    """Return an algorithm and its digits in lowercase, without surrounding spaces, and with ``_`` for ``-``.

    Raises:
        ValueError: if the algorithm is unknown, or the digits are not a digest of it.
    """
    name = algorithm.strip().lower().replace("-", "_")
    digits = value.strip().lower()
    if name not in _DIGEST_BYTES:
        raise ValueError(f"unknown hash algorithm {algorithm!r} (known algorithms: {', '.join(_DIGEST_BYTES)})")
    if len(digits) != 2 * _DIGEST_BYTES[name] or not _HEX.fullmatch(digits):
        raise ValueError(f"a {name} hash must have {2 * _DIGEST_BYTES[name]} hexadecimal digits, not {value!r}")
    return name, digits


def parse_hashes(hashes: Hashes | None) -> dict[str, str]:
    """Return hashes in any accepted form as ``{algorithm: hex}``, and ``None`` as an empty mapping.

    Raises:
        ValueError: if an algorithm is unknown, digits are malformed, or one algorithm has two different values.
    """
    if hashes is None:
        return {}
    if isinstance(hashes, str):
        pairs = [parse_hash(hashes)]
    elif isinstance(hashes, Mapping):
        pairs = [normalize_hash(algorithm, value) for algorithm, value in hashes.items()]
    else:
        pairs = [parse_hash(text) for text in hashes]
    return merge_hashes(pairs)


def merge_hashes(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return pairs of an algorithm and its digits as a mapping.

    Raises:
        ValueError: if one algorithm has two different values, since no file can match both.
    """
    hashes: dict[str, str] = {}
    for algorithm, value in pairs:
        if hashes.setdefault(algorithm, value) != value:
            raise ValueError(f"two different {algorithm} hashes were given: {hashes[algorithm]} and {value}")
    return hashes


def require_strong(hashes: Mapping[str, str]) -> None:
    """Check that hashes identify a wheel. An empty mapping is accepted.

    Raises:
        ValueError: if hashes are given and all of them are weak.
    """
    if hashes and not any(map(is_strong, hashes)):
        raise ValueError(f"{', '.join(hashes)} alone is too weak to identify a wheel without a sha256 or stronger hash")


def strong_algorithms() -> tuple[str, ...]:
    """Return the algorithms whose hashes can be used to look up a wheel, sha256 first."""
    return _PREFERENCE


def naming_hash(hashes: Mapping[str, str]) -> str | None:
    """Return the hash that an entry is looked up by, as ``"<algorithm>:<hex>"``, or ``None`` if all hashes are weak."""
    for algorithm in _PREFERENCE:
        if algorithm in hashes:
            return f"{algorithm}:{hashes[algorithm]}"
    return None


def sha256_of(data: bytes) -> str:
    """Return the sha256 of ``data``, in hex."""
    return hashlib.sha256(data).hexdigest()


class MultiHash:
    """Computes several hashes of one stream of bytes at once, always including sha256."""

    def __init__(self, algorithms: Iterable[str] = ()) -> None:
        # FIPS builds refuse md5 and sha1 unless usedforsecurity is False. A weak hash is never the only one.
        self._hashers = {
            name: hashlib.new(name, usedforsecurity=False) for name in dict.fromkeys(("sha256", *algorithms))
        }

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add the next bytes of the stream."""
        for hasher in self._hashers.values():
            hasher.update(data)

    def hexdigests(self) -> dict[str, str]:
        """Return the hashes of all bytes so far, by algorithm, in hex."""
        return {name: hasher.hexdigest() for name, hasher in self._hashers.items()}

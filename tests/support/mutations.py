"""Random changes of files: of their bytes, or of JSON fields behind a valid checksum. A seed determines each one."""

from __future__ import annotations

import json
import os
import random
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# These are raw JSON texts, since most of them cannot be the result of json.dumps.
ODD_TEXTS = [
    *("null", "true", "false", "0", "-1", "1", "255", "4294967296", "9223372036854775808", "1180591620717411303424"),
    *("0.5", "-0.0", "1e308", "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "1E400", "9" * 400, "9" * 4000),
    *("9" * 100_000, '""', '"a"', '"."', '".."', '"../../outside"', '"/etc/hostname"', '"a/b"', '"a\\\\b"', '"C:x"'),
    *('"a\\u0000b"', '"\\ud800"', '"\\udfff\\ud800"', '"\\ud83d\\ude00"', '"nul"', '"-"', '"x"', '"~1"', '"a."'),
    '"' + "x" * 300 + '"',
    '"' + "é" * 70_000 + '"',
    '"' + "../" * 2000 + '"',
    '"' + "f" * 64 + '"',
    '"' + "0" * 63 + '"',
    *("[]", "{}", "[[]]", "[null]", "[0]", '["a"]', '[""]', '[".."]', '{"a":1}', '{"":""}', '{"sha256":"x"}'),
    *("[" * depth + "]" * depth for depth in (20, 900, 980, 995, 1000, 3000, 100_000)),
    *('{"a":' * depth + "0" + "}" * depth for depth in (20, 900, 980, 3000, 100_000)),
    "[" + ",".join(["0"] * 20_000) + "]",
    '{"a":1,"a":2}',
]
_CHECK = re.compile(rb',"check":"[0-9a-f]{8}"}\n\Z')


def with_check(body: str) -> bytes:
    """Return JSON text of an object as a small file of a cache, with a valid checksum."""
    data = re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], body).encode("ascii")
    return data[:-1] + f',"check":"{zlib.crc32(data):08x}"}}\n'.encode("ascii")


def without_check(data: bytes) -> str | None:
    """Return the JSON text in a small file without its checksum, or ``None`` for another file."""
    found = _CHECK.search(data)
    return None if found is None else data[: found.start()].decode("ascii") + "}"


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return bytes with a few random changes: bits, cuts, and copied, moved or foreign parts."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at, size = rng.randrange(len(changed) + 1), rng.choice([1, 2, 8, 64, 4096])
        match rng.choice(["bit", "cut", "end", "double", "move", "noise", "zeros"]):
            case "bit" if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case "cut":
                del changed[at : at + size]
            case "end":
                del changed[at:]
            case "double":
                changed[at:at] = changed[at : at + size]
            case "move":
                part = changed[at : at + size]
                del changed[at : at + size]
                to = rng.randrange(len(changed) + 1)
                changed[to:to] = part
            case "noise":
                changed[at : at + size] = rng.randbytes(rng.choice([0, 1, size]))
            case "zeros":
                changed[at : at + size] = bytes(size)
    return bytes(changed)


def change_fields(rng: random.Random, body: str) -> str:
    """Return the JSON text of an object with one to three random changes of its fields."""
    for _ in range(rng.randint(1, 3)):
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return body
        if not isinstance(value, dict):
            return body
        body = _change_field(rng, value)
    return body


def _change_field(rng: random.Random, value: dict[str, Any]) -> str:
    # A placeholder is replaced by raw text, which may not be valid JSON.
    mark = "<<placeholder>>"
    holders = list(_containers(value))
    holder = rng.choice([value, *holders])
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    raw = rng.choice(ODD_TEXTS)
    if not keys:
        if isinstance(holder, dict):
            holder[rng.choice(["a", "sha512", "..", ""])] = mark
        else:
            holder.append(mark)
        return _dumps(value).replace(f'"{mark}"', raw)
    key, other = rng.choice(keys), rng.choice(keys)
    match rng.choice(["replace", "replace", "replace", "swap", "delete", "double", "add", "similar"]):
        case "replace":
            holder[key] = mark
        case "swap":
            holder[key], holder[other] = holder[other], holder[key]
        case "delete":
            del holder[key]
        case "double" if isinstance(holder, dict):
            # The second field of the same name follows the first.
            text = _dumps(value)
            name = json.dumps(key)
            return text.replace(f"{name}:", f"{name}:{raw},{name}:", 1)
        case "add" if isinstance(holder, dict):
            holder[rng.choice(["zzz", "sha256", "..", "boot"])] = mark
        case "add" | "double":
            holder.append(mark)
        case _:
            holder[key] = _similar(rng, holder[key])
    return _dumps(value).replace(f'"{mark}"', raw)


def _similar(rng: random.Random, value: Any) -> Any:
    """Return a value of the same type that is slightly different."""
    match value:
        case bool():
            return not value
        case int():
            return value + rng.choice([-1, 1, 256, -(2**40), 2**62])
        case str():
            at = rng.randrange(len(value) + 1)
            part = rng.choice(
                ["", "/", "..", "../", "\\", "\0", "A", "0", ":", " ", ".", "é", "\ud800", "\n", "x" * 256]
            )
            return value[:at] + part + value[at + rng.choice([0, 1, 4]) :]
        case list():
            return rng.choice([[*value, *value], value[:-1], [value], value[::-1]])
        case dict():
            return list(value.items())
    return 0


def _containers(value: Any) -> Iterator[Any]:
    """Yield the objects and arrays in a decoded JSON value, at most a hundred."""
    queue = [value]
    for container in queue:
        children = container.values() if isinstance(container, dict) else container
        queue += [child for child in children if isinstance(child, dict | list)][: max(0, 100 - len(queue))]
        yield container


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def change_file(rng: random.Random, data: bytes) -> bytes:
    """Return a small file with random changes. Two thirds of the files with a checksum have a valid one afterwards."""
    body = without_check(data)
    if body is None or rng.random() < 1 / 3:
        return change_bytes(rng, data)
    return with_check(change_fields(rng, body))


def iterations(default: int) -> int:
    """Return the number of iterations of a fuzz test. ``WHEELCACHE_FUZZ_COUNT`` sets another one."""
    return int(os.environ.get("WHEELCACHE_FUZZ_COUNT", default))


def first_seed() -> int:
    """Return the first seed of the fuzz tests, 0 unless ``WHEELCACHE_FUZZ_SEED`` sets another one."""
    return int(os.environ.get("WHEELCACHE_FUZZ_SEED", "0"))


@contextmanager
def described(*parts: object, data: bytes | None = None) -> Iterator[None]:
    """Add these parts and the beginning of the data to an exception in the block, to replay a failure."""
    try:
        yield
    except BaseException as error:
        error.add_note(" ".join(map(str, parts)) + ("" if data is None else f": {data[:4000]!r}"))
        raise

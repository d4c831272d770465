"""Lock files with random changes are read, or are an error with their path.

``WHEELCACHE_FUZZ_SEED`` sets the first seed, and ``WHEELCACHE_FUZZ_COUNT`` the number of iterations.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from marks import any_system
from mutations import ODD_TEXTS, change_bytes, described, first_seed, iterations

from wheelcache import Cache
from wheelcache.cli._errors import LockError
from wheelcache.cli.resolve.pylock import read_lock

pytestmark = any_system

LOCK = f"""lock-version = "1.0"
environments = ["python_version >= '3'"]
requires-python = ">=3.8"
created-by = "test"

[[packages]]
name = "demo"
version = "1.0"
marker = "python_version >= '3'"
requires-python = ">=3"
index = "https://example.org/simple"

[[packages.wheels]]
name = "demo-1.0-py3-none-any.whl"
url = "https://example.org/demo-1.0-py3-none-any.whl"
size = 1000
upload-time = 2024-10-01T10:00:00Z
hashes = {{sha256 = "{"a" * 64}", sha512 = "{"b" * 128}"}}

[[packages]]
name = "archive"

[packages.archive]
path = "./sub/archive-1.0-py3-none-any.whl"
size = 5
hashes = {{sha256 = "{"c" * 64}"}}

[[packages]]
name = "checkout"
[packages.vcs]
type = "git"
url = "https://example.org/repository"
commit-id = "0123456789"
"""
ODD_VALUES = [
    *ODD_TEXTS,
    *("inf", "-nan", "0x7fffffff", "0b1", "1979-05-27", "9999-12-31T23:59:60Z", "'''\n'''", '"\\U0010ffff"', "{}"),
    *('{sha256 = ["a"]}', '{md5 = "00"}', '{sha256 = ""}', '"https://[x/"', '"file:///etc"', '"//host/share"'),
    *('">=3,<"', "\"python_version >= '3' and\"", '"' + "(" * 3000 + '"', "{a = " * 500 + "1" + "}" * 500),
]


def changed(rng: random.Random) -> bytes:
    """Return the lock file with random changes of values, lines or bytes."""
    lines = LOCK.splitlines()
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        key, separator, _ = lines[at].partition(" = ")
        match rng.choice(["value", "value", "value", "delete", "double", "swap", "key", "bytes"]):
            case "value" if separator:
                lines[at] = f"{key} = {rng.choice(ODD_VALUES)}"
            case "delete" if len(lines) > 1:
                del lines[at]
            case "double":
                lines.insert(rng.randrange(len(lines)), lines[at])
            case "swap":
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case "key":
                lines[at] = rng.choice(
                    [f"{'a.' * 2000}b = 1", f'"\\u0000" = {key}', f"[{'a.' * 900}b]", "[[packages]]"]
                )
            case "bytes":
                return change_bytes(rng, "\n".join(lines).encode())
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def error_of(read: Callable[..., object], *arguments: object, **options: object) -> Exception | None:
    """Return the documented error of a function, or ``None`` if it succeeds."""
    try:
        read(*arguments, **options)
    except (ValueError, LockError) as error:
        return error
    return None


def fuzz(folder: Path, seed: int, count: int) -> None:
    rng = random.Random(seed)
    lock = folder / "pylock.toml"
    with Cache(folder / "cache") as cache:
        for number in range(count):
            data = changed(rng)
            lock.write_bytes(data)
            with described("seed", seed, "number", number, data=data):
                for error in (error_of(cache.prune, keep=lock), error_of(read_lock, lock)):
                    assert error is None or str(lock) in str(error)
    assert {path.name for path in folder.iterdir()} == {"cache", "pylock.toml"}


def test_changed_lock_files_are_read_or_refused(tmp_path: Path) -> None:
    """A changed lock file is an error with its path at most, and needs little memory."""
    tracemalloc.start()
    try:
        fuzz(tmp_path, first_seed(), iterations(20))
        assert tracemalloc.get_traced_memory()[1] < 128 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(1, 4))
def test_many_changed_lock_files_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    """The same holds for thousands of changes."""
    fuzz(tmp_path, first_seed() + seed, iterations(3000))

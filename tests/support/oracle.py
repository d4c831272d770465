"""Invariants of a cache, checked without trusting the cache's own results."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

from machines import Machine
from wheels import sha256

from wheelcache import CommitError, WheelCacheError
from wheelcache._fs.tempnames import OwnerTag


def check_sound(machine: Machine, root: str | os.PathLike[str], wheels: Mapping[str, bytes]) -> None:
    """Check a cache with a fresh object: it has no problems, and none of these entries is lost.

    ``wheels`` maps the file names of entries to their bytes.
    """
    with machine.cache(root) as cache:
        seen = set()
        for wheel in cache.entries():
            data = Path(wheel).read_bytes()
            assert sha256(data) == wheel.digest, f"{wheel.path} is an entry with wrong bytes"
            assert len(data) == wheel.size
            assert wheel.path.name == wheel.filename
            seen.add((wheel.filename, wheel.digest))
        for filename, data in wheels.items():
            assert (filename, sha256(data)) in seen, f"{filename} is no longer an entry"
            found = cache.get(sha256(data), filename=filename)
            assert found is not None, f"{filename} cannot be found"
            assert found.filename == filename
            assert Path(found).read_bytes() == data


def leftovers(root: str | os.PathLike[str]) -> list[str]:
    """Return the unfinished files of a cache, and check that each name states its owner and age."""
    found = []
    for folder in ("tmp", "partial", "quarantine", "wheels"):
        for parent, _, names in os.walk(os.path.join(root, "v1", folder)):
            for name in names:
                if folder == "wheels" and name.endswith((".whl", ".json")):
                    continue
                assert OwnerTag.of(name) is not None, f"{name} in {folder} does not contain its owner"
                if folder != "quarantine":
                    found.append(os.path.join(parent, name))
    return found


def check_error(error: BaseException, *codes: str) -> None:
    """Check that an error has the operation, paths, attempts, duration and one of these codes, and can be pickled."""
    assert isinstance(error, WheelCacheError), f"a raw {type(error).__name__} was raised: {error!r}"
    text = str(error)
    assert error.operation, text
    assert error.operation in text
    assert error.path is not None or error.url is not None, text
    for path in (error.path, error.target):
        assert path is None or os.path.isabs(path), text
        assert path is None or path in text
    assert error.attempts >= 1
    assert error.elapsed >= 0.0
    assert not codes or any(code in text for code in codes), f"none of {codes} is in: {text}"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == text
    if isinstance(error, CommitError):
        assert error.errno is not None or error.winerror is not None
        assert error.advice

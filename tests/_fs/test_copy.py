"""Copies: a short copy is an error, and a cancellation takes effect between two chunks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from faulty import FaultyFiles, Plan
from machines import Machine

from wheelcache._fs import copy
from wheelcache._fs.copy import copy_contents
from wheelcache._fs.robustio import RobustIO
from wheelcache._hashes import MultiHash
from wheelcache._operation import CancelToken, Operation, OperationCancelledError

DATA = os.urandom(50_000)


class ShortFiles(FaultyFiles):
    """A system whose fast copy ends after some bytes and reports the end of the file, as copy_file_range can."""

    copied = 0

    def copy(self, source: object, target: object, count: int) -> int:
        self.copied += (done := super().copy(source, target, min(count, 1000)) if self.copied < 3000 else 0)
        return done


def fs_of(files: FaultyFiles, *tokens: CancelToken) -> RobustIO:
    return RobustIO(Operation(Machine(files).cache_class._system, tokens=tokens))


def copied(fs: RobustIO, tmp_path: Path, **options: object) -> bytes:
    (tmp_path / "source").write_bytes(DATA)
    target = tmp_path / "target"
    with fs.files.open_read(str(tmp_path / "source")) as reader, fs.files.create(str(target)) as writer:
        copy_contents(fs, reader, writer, **options)
    return target.read_bytes()


def test_a_copy(tmp_path: Path) -> None:
    """The bytes are copied, and hashed on the way if requested."""
    fs = fs_of(FaultyFiles())
    assert copied(fs, tmp_path) == DATA
    (tmp_path / "target").unlink()
    hasher, expected = MultiHash(), MultiHash()
    expected.update(DATA)
    assert copied(fs, tmp_path, hasher=hasher) == DATA
    assert hasher.hexdigests() == expected.hexdigests()


def test_a_copy_that_the_system_ends_early_is_completed(tmp_path: Path) -> None:
    """If the system's fast copy reports the end too early, the rest is read and written."""
    assert copied(fs_of(ShortFiles()), tmp_path, size=len(DATA)) == DATA


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_a_copy_of_another_size_is_an_error(tmp_path: Path, size: int) -> None:
    """A file that is shorter or longer than it should be is not copied."""
    with pytest.raises(OSError, match="bytes instead of"):
        copied(fs_of(FaultyFiles()), tmp_path, size=size)


@pytest.mark.parametrize("hashed", [False, True])
def test_a_cancelled_copy_ends_before_the_next_chunk(
    tmp_path: Path, hashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation during one chunk prevents the next."""
    monkeypatch.setattr(copy, "_COPY_CHUNK", 1000)
    monkeypatch.setattr(copy, "_READ_CHUNK", 1000)
    token = CancelToken()

    class Cancelling(Plan):
        def after(self, call: object) -> None:
            if call.operation in {"copy", "file.write"}:
                token.cancel()

    files = FaultyFiles(Cancelling())
    with pytest.raises(OperationCancelledError):
        copied(fs_of(files, token), tmp_path, hasher=MultiHash() if hashed else None)
    assert files.count("copy file.write") == 1

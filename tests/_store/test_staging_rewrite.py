"""Convert a staged file: into a new file, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from wheels import hex_of, make_wheel

from wheelcache import SizeMismatchError
from wheelcache._fs.robustio import RobustIO
from wheelcache._operation import CancelToken, Operation, OperationCancelledError
from wheelcache._os.system import System
from wheelcache._store.staging import StagedFile

DATA = make_wheel(size=5000)


def flip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the complement of each byte, in small pieces."""
    for chunk in chunks:
        for start in range(0, len(chunk), 700):
            yield bytes(byte ^ 0xFF for byte in chunk[start : start + 700])


FLIPPED = b"".join(flip(iter([DATA])))


def stage(folder: Path, token: CancelToken | None = None, **options: object) -> StagedFile:
    op = Operation(System(), io_timeout=0.0, tokens=(token,) if token else ())
    options.setdefault("expected", {"sha256": hex_of(DATA)})
    return StagedFile(RobustIO(op), str(folder / "received"), **options)


def test_the_converted_bytes_replace_the_file(tmp_path: Path) -> None:
    """After the conversion, path, size and hashes are those of the new file, and the old file is deleted."""
    with stage(tmp_path, size=len(DATA)) as staged:
        for start in range(0, len(FLIPPED), 333):
            staged.write(FLIPPED[start : start + 333])
        staged.rewrite(str(tmp_path / "converted"), flip)
        assert not (tmp_path / "received").exists()
        sealed = staged.seal()
        staged.mark_moved()
    assert sealed == (str(tmp_path / "converted"), len(DATA), {"sha256": hex_of(DATA)})
    assert (tmp_path / "converted").read_bytes() == DATA


def test_a_converted_file_that_is_not_committed_is_deleted(tmp_path: Path) -> None:
    """Neither file remains if the download ends without a commit."""
    with stage(tmp_path) as staged:
        staged.write(FLIPPED)
        staged.rewrite(str(tmp_path / "converted"), flip)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [LookupError("mine"), KeyboardInterrupt()])
def test_a_failed_conversion_leaves_the_old_file(error: BaseException, tmp_path: Path) -> None:
    """An error of the conversion propagates, the new file is deleted, and the old one can be written again."""

    def fail(chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield next(chunks)
        raise error

    with stage(tmp_path) as staged:
        staged.write(FLIPPED)
        with pytest.raises(type(error)):
            staged.rewrite(str(tmp_path / "converted"), fail)
        assert [path.name for path in tmp_path.iterdir()] == ["received"]
        assert staged.written == len(FLIPPED)
        staged.restart()
        staged.write(DATA)
        staged.seal()
        assert (tmp_path / "received").read_bytes() == DATA


def test_a_conversion_can_be_cancelled(tmp_path: Path) -> None:
    """A conversion ends at its next piece when its operation is cancelled, even if the old file was read already."""
    token = CancelToken()

    def cancel(chunks: Iterator[bytes]) -> Iterator[bytes]:
        read = b"".join(chunks)
        yield read[:10]
        token.cancel()
        yield read[10:]

    with stage(tmp_path, token) as staged:
        staged.write(FLIPPED)
        with pytest.raises(OperationCancelledError):
            staged.rewrite(str(tmp_path / "converted"), cancel)
        assert [path.name for path in tmp_path.iterdir()] == ["received"]


def test_the_expected_size_holds_for_the_converted_bytes(tmp_path: Path) -> None:
    """Encoded bytes may exceed the expected size, and converted bytes may not."""
    with stage(tmp_path, size=len(DATA) - 1) as staged:
        staged.write(FLIPPED, check_size=False)
        with pytest.raises(SizeMismatchError):
            staged.rewrite(str(tmp_path / "converted"), flip)
        with pytest.raises(SizeMismatchError):
            staged.check()


def test_the_first_bytes(tmp_path: Path) -> None:
    """A file begins with its first bytes, and not with others or with more than it has."""
    with stage(tmp_path) as staged:
        assert not staged.starts_with(b"PK")
        staged.write(DATA)
        assert staged.starts_with(b"PK\x03\x04")
        assert not staged.starts_with(b"\x1f\x8b")
        assert not staged.starts_with(DATA + b"x")

"""Errors hold data, derive their message from it, and can be pickled."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

import wheelcache
from wheelcache import (
    Cause,
    CommitError,
    DownloadError,
    HashMismatchError,
    InvalidWheelError,
    OfflineError,
    ReadOnlyError,
    SizeMismatchError,
    UnsafeWheelError,
    WheelCacheError,
)

FACTS = {
    "operation": "download",
    "path": "/cache/v1/tmp/x",
    "target": "/cache/v1/wheels/x",
    "url": "https://***@example.org/demo-1.0-py3-none-any.whl?***",
    "attempts": 5,
    "elapsed": 12.34,
    "advice": "Try again.",
}
EXAMPLES = [
    WheelCacheError("it failed", **FACTS),
    WheelCacheError(),
    HashMismatchError(expected={"sha256": "aa", "md5": "bb"}, actual={"sha256": "aa", "md5": "cc"}, **FACTS),
    SizeMismatchError(expected=10, actual=11, **FACTS),
    DownloadError("no", status=503, retry_after=3600.0, tried=("first: HTTP 503", "second: HTTP 503"), **FACTS),
    DownloadError("no connection", **FACTS),
    OfflineError("not there", **FACTS),
    ReadOnlyError("read-only", **FACTS),
    CommitError(
        "refused",
        winerror=32,
        errno=13,
        cause=Cause.HELD,
        steps=(("rename", "winerror 32"), ("copy", "errno 1")),
        **FACTS,
    ),
    CommitError("full", errno=28, cause=Cause.FULL, **FACTS),
    InvalidWheelError("no zip", **FACTS),
    UnsafeWheelError("leaves its folder", **FACTS),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_errors_pickle(error: WheelCacheError, protocol: int) -> None:
    """An unpickled error has the same class, data, message and arguments."""
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)
    assert repr(again) == repr(error)
    assert again.args == error.args


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_copy(error: WheelCacheError) -> None:
    """A copied error, such as one copied by concurrent.futures, has the same data and message."""
    assert str(copy.copy(error)) == str(error)
    assert vars(copy.deepcopy(error)) == vars(error)


@pytest.mark.parametrize(
    "error", [error for error in EXAMPLES if error.operation], ids=lambda error: type(error).__name__
)
def test_the_text_has_all_that_is_known(error: WheelCacheError) -> None:
    """The message contains the operation, paths, URL, problem, attempts, seconds and advice."""
    text = str(error)
    for part in ("download", FACTS["path"], FACTS["target"], FACTS["url"], error.problem, "5 attempts", "12.3 s"):
        assert str(part) in text
    assert text.endswith("Try again.")


def test_the_text_has_the_code() -> None:
    """The message contains what users search for: hashes, sizes, HTTP status, winerror or errno, and the methods."""
    texts = {type(error).__name__: str(error) for error in reversed(EXAMPLES)}
    assert "md5: expected bb, got cc" in texts["HashMismatchError"]
    assert "sha256" not in texts["HashMismatchError"]
    assert "expected 10 bytes, got 11" in texts["SizeMismatchError"]
    assert "HTTP 503" in texts["DownloadError"]
    assert "winerror 32" in texts["CommitError"]
    assert "errno 13" not in texts["CommitError"]
    assert "rename: winerror 32" in texts["CommitError"]
    assert "errno 28" in str(EXAMPLES[9])


def test_a_commit_error_is_an_os_error() -> None:
    """Code that handles OSError finds errno, strerror, winerror and both file names."""
    error = EXAMPLES[8]
    assert isinstance(error, OSError)
    assert (error.errno, error.winerror, error.strerror) == (13, 32, "refused")
    assert (error.filename, error.filename2) == (FACTS["path"], FACTS["target"])
    assert isinstance(EXAMPLES[9], OSError)
    assert EXAMPLES[9].winerror is None


def test_the_tree_of_errors() -> None:
    """Every exported error derives from WheelCacheError, and only CommitError also from OSError."""
    exported = [getattr(wheelcache, name) for name in wheelcache.__all__]
    errors = [each for each in exported if inspect.isclass(each) and issubclass(each, BaseException)]
    assert len(errors) == 9
    assert all(issubclass(error, WheelCacheError) for error in errors)
    assert [error for error in errors if issubclass(error, OSError)] == [CommitError]
    assert issubclass(UnsafeWheelError, InvalidWheelError)


def test_the_empty_error_has_a_text() -> None:
    """An error without data has a message."""
    assert str(WheelCacheError()) == " (1 attempt, 0.0 s)"

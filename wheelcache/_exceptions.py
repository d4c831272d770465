"""All exceptions of wheelcache.

An error has its details as attributes: the operation, absolute paths, the redacted URL, the error code, the number of
attempts, the elapsed seconds and advice. The message is derived from these attributes. Pickling preserves both.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Cause(StrEnum):
    """The reason why the file system refused an operation, as far as it can be determined.

    ``UNSAFE`` means that wheelcache itself refused the operation, because a link in the cache folder could lead to a
    file elsewhere.
    """

    HELD = "held by another process"
    DENIED = "permission denied"
    MAPPED = "not supported on a container, mapped or network volume"
    CLOUD = "not supported in a folder that a cloud service synchronises"
    UNSUPPORTED = "not supported by this volume"
    REMOVED = "removed or blocked by security software"
    IN_THE_WAY = "another file or folder exists at this path"
    FULL = "no space left"
    TOO_LONG = "path too long"
    UNSAFE = "unsafe link or special file in the cache"
    BROKEN = "I/O error of the volume or the system"


def _rebuild(kind: type[WheelCacheError], facts: dict[str, Any]) -> WheelCacheError:
    return kind(**facts)


class WheelCacheError(Exception):
    """The base class of all errors of wheelcache.

    Attributes:
        problem: a short description of the error.
        operation: the operation that failed: ``"download"``, ``"rename"``, ``"read"``, ...
        path: the absolute path of the file or folder, or ``None``.
        target: the second absolute path, if the operation has two, or ``None``.
        url: the URL, without credentials and query, or ``None``.
        attempts: the number of attempts.
        elapsed: seconds from the first attempt to the error.
        advice: a suggestion for the user. May be empty.
        tried: one line for each failed attempt of a download, oldest first. Empty for other operations.
    """

    def __init__(
        self,
        problem: str = "",
        *,
        operation: str = "",
        path: str | os.PathLike[str] | None = None,
        target: str | os.PathLike[str] | None = None,
        url: str | None = None,
        attempts: int = 1,
        elapsed: float = 0.0,
        advice: str = "",
        tried: tuple[str, ...] = (),
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.operation = operation
        self.path: str | None = None if path is None else os.fspath(path)
        self.target: str | None = None if target is None else os.fspath(target)
        self.url = url
        self.attempts = attempts
        self.elapsed = elapsed
        self.advice = advice
        self.tried: tuple[str, ...] = tuple(tried)

    def _facts(self) -> dict[str, Any]:
        return {
            "problem": self.problem,
            "operation": self.operation,
            "path": self.path,
            "target": self.target,
            "url": self.url,
            "attempts": self.attempts,
            "elapsed": self.elapsed,
            "advice": self.advice,
            "tried": self.tried,
        }

    def _details(self) -> str:
        """Return the details that the message shows in brackets, such as ``"winerror 32"``, or an empty string."""
        return ""

    def __reduce__(self) -> tuple[Callable[..., WheelCacheError], tuple[type[WheelCacheError], dict[str, Any]]]:
        return _rebuild, (type(self), self._facts())

    def __str__(self) -> str:
        subject = self.url or ""
        if self.path is not None:
            subject = self.path if self.target is None else f"{self.path} -> {self.target}"
            if self.url:
                subject = f"{self.url} ({subject})"
        head = " ".join(part for part in (self.operation, subject) if part)
        text = ": ".join(part for part in (head, self.problem) if part)
        if details := self._details():
            text += f" [{details}]"
        attempts = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        text += f" ({attempts}, {self.elapsed:.1f} s)"
        if self.advice:
            text += f". {self.advice}"
        return text


class HashMismatchError(WheelCacheError):
    """The content does not have the requested hashes. It is neither stored nor returned.

    Attributes:
        expected: the requested hashes, by algorithm, in hex.
        actual: the hashes of the content, by algorithm, in hex.
    """

    def __init__(
        self, problem: str = "", *, expected: Mapping[str, str], actual: Mapping[str, str], **facts: Any
    ) -> None:
        super().__init__(problem or "the content does not have the requested hash", **facts)
        self.expected: dict[str, str] = dict(expected)
        self.actual: dict[str, str] = dict(actual)

    def _facts(self) -> dict[str, Any]:
        return {**super()._facts(), "expected": self.expected, "actual": self.actual}

    def _details(self) -> str:
        wrong = [name for name, value in self.expected.items() if self.actual.get(name) != value]
        return ", ".join(f"{name}: expected {self.expected[name]}, got {self.actual.get(name)}" for name in wrong)


class SizeMismatchError(WheelCacheError):
    """The content is longer or shorter than the requested size.

    Attributes:
        expected: the requested size in bytes.
        actual: the size that the server declared, or the number of bytes that were received before the download was
            aborted.
    """

    def __init__(self, problem: str = "", *, expected: int, actual: int, **facts: Any) -> None:
        super().__init__(problem or "the content does not have the requested size", **facts)
        self.expected = expected
        self.actual = actual

    def _facts(self) -> dict[str, Any]:
        return {**super()._facts(), "expected": self.expected, "actual": self.actual}

    def _details(self) -> str:
        return f"expected {self.expected} bytes, got {self.actual}"


class DownloadError(WheelCacheError):
    """The wheel could not be downloaded.

    Attributes:
        status: the status code of the last HTTP response, or ``None`` if there was no response.
        retry_after: the delay in seconds that the server requested, if it was too long to wait for, or ``None``.
    """

    def __init__(
        self,
        problem: str = "",
        *,
        status: int | None = None,
        retry_after: float | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(problem, **facts)
        self.status = status
        self.retry_after = retry_after

    def _facts(self) -> dict[str, Any]:
        return {**super()._facts(), "status": self.status, "retry_after": self.retry_after}

    def _details(self) -> str:
        return "" if self.status is None else f"HTTP {self.status}"


class OfflineError(WheelCacheError):
    """The wheel is not in a cache that was opened with ``offline=True``."""


class ReadOnlyError(WheelCacheError):
    """The operation must write to a cache that was opened with ``read_only=True``."""


class CommitError(WheelCacheError, OSError):
    """The file system refused an operation on the cache, permanently or until the timeout.

    The error is also an :class:`OSError`, with ``errno``, ``strerror``, ``filename`` and ``filename2``. It has a
    ``winerror`` on every platform. The value is ``None`` unless Windows reported the error.

    Attributes:
        cause: the reason for the refusal.
        steps: the methods that were tried in the last round, as ``("rename", "winerror 32")`` pairs, in order.
        holders: the processes that had the file open meanwhile, as ``"MsMpEng.exe (pid 4711)"``, if the system reports
            them.
    """

    # The attributes are typed as Any, because the types of OSError do not fit. Its winerror is an int, and exists only
    # on Windows.
    errno: Any
    winerror: Any
    strerror: Any
    filename: Any
    filename2: Any

    def __init__(
        self,
        problem: str = "",
        *,
        errno: int | None = None,
        winerror: int | None = None,
        cause: Cause = Cause.BROKEN,
        steps: tuple[tuple[str, str], ...] = (),
        holders: tuple[str, ...] = (),
        **facts: Any,
    ) -> None:
        super().__init__(problem, **facts)
        self.errno = errno
        self.winerror = winerror
        self.cause: Cause = Cause(cause)
        self.strerror = problem
        self.filename = self.path
        self.filename2 = self.target
        self.steps: tuple[tuple[str, str], ...] = tuple(steps)
        self.holders: tuple[str, ...] = tuple(holders)

    def _facts(self) -> dict[str, Any]:
        return {
            **super()._facts(),
            "errno": self.errno,
            "winerror": self.winerror,
            "cause": self.cause,
            "steps": self.steps,
            "holders": self.holders,
        }

    def _details(self) -> str:
        code = f"winerror {self.winerror}" if self.winerror is not None else ""
        if not code and self.errno is not None:
            code = f"errno {self.errno}"
        tried = ", ".join(f"{method}: {refusal}" for method, refusal in self.steps)
        text = "; tried ".join(part for part in (code, tried) if part)
        return "; held by ".join(part for part in (text, ", ".join(self.holders)) if part)


class InvalidWheelError(WheelCacheError):
    """The file is not a wheel, by its name or by its content."""


class UnsafeWheelError(InvalidWheelError):
    """The archive would write outside its folder, or two readers could read it differently."""

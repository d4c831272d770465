"""Everything that wheelcache raises.

An error holds data (operation, absolute paths, redacted URL, code, attempts, seconds, advice) and derives its text from
it, so that a program can act on the data, a person can act on the text, and both survive a pickle to another process.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Cause(StrEnum):
    """Why the file system refused, as far as it can be told."""

    HELD = "held by another process"
    DENIED = "denied by permissions"
    MAPPED = "not possible on a container, mapped or network volume"
    CLOUD = "not possible in a folder that is kept in the cloud"
    UNSUPPORTED = "not possible on this volume"
    REMOVED = "removed by security software"
    IN_THE_WAY = "something else stands at this path"
    FULL = "no room"
    TOO_LONG = "path too long"
    BROKEN = "the volume or the system failed"


def _rebuild(kind: type[WheelCacheError], facts: dict[str, Any]) -> WheelCacheError:
    return kind(**facts)


class WheelCacheError(Exception):
    """The root of every error that wheelcache raises on its own account.

    Attributes:
        problem: what went wrong, in a few words.
        operation: what wheelcache was doing: ``"download"``, ``"rename"``, ``"read"``, ...
        path: the absolute path it was doing it to, or ``None``.
        target: the second absolute path of an operation that has two, or ``None``.
        url: the URL, without credentials and query, or ``None``.
        attempts: how often it was tried.
        elapsed: seconds from the first try to the error.
        advice: what to do next; empty where nothing useful can be said.
        tried: one line for each try of a download that failed, oldest first; empty elsewhere.
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

    def _code(self) -> str:
        """Return the code as people search for it, ``""`` where there is none."""
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
        if code := self._code():
            text += f" [{code}]"
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        text += f" ({tries}, {self.elapsed:.1f} s)"
        if self.advice:
            text += f". {self.advice}"
        return text


class HashMismatchError(WheelCacheError):
    """The bytes are not the ones asked for: nothing of them is kept or shown.

    Attributes:
        expected: the hashes asked for, by algorithm, in hex.
        actual: the hashes of the bytes that came, by algorithm, in hex.
    """

    def __init__(
        self, problem: str = "", *, expected: Mapping[str, str], actual: Mapping[str, str], **facts: Any
    ) -> None:
        super().__init__(problem or "the bytes do not have the hash asked for", **facts)
        self.expected: dict[str, str] = dict(expected)
        self.actual: dict[str, str] = dict(actual)

    def _facts(self) -> dict[str, Any]:
        return {**super()._facts(), "expected": self.expected, "actual": self.actual}

    def _code(self) -> str:
        wrong = [name for name, value in self.expected.items() if self.actual.get(name) != value]
        return ", ".join(f"{name}: expected {self.expected[name]}, got {self.actual.get(name)}" for name in wrong)


class SizeMismatchError(WheelCacheError):
    """The body is longer or shorter than the size asked for.

    Attributes:
        expected: the size asked for, in bytes.
        actual: the size declared by the server, or what had come when it was too much, in bytes.
    """

    def __init__(self, problem: str = "", *, expected: int, actual: int, **facts: Any) -> None:
        super().__init__(problem or "the wheel does not have the size asked for", **facts)
        self.expected = expected
        self.actual = actual

    def _facts(self) -> dict[str, Any]:
        return {**super()._facts(), "expected": self.expected, "actual": self.actual}

    def _code(self) -> str:
        return f"expected {self.expected} bytes, got {self.actual}"


class DownloadError(WheelCacheError):
    """The wheel could not be had from the network.

    Attributes:
        status: the last HTTP status, or ``None`` where no answer came.
        retry_after: the seconds that the server asked to wait, where it asked for more than is waited.
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

    def _code(self) -> str:
        return "" if self.status is None else f"HTTP {self.status}"


class OfflineError(WheelCacheError):
    """The wheel is not in the cache, and the cache was told not to use the network."""


class ReadOnlyError(WheelCacheError):
    """The operation would write, and the cache was opened with ``read_only=True``."""


class CommitError(WheelCacheError, OSError):
    """The file system refused an operation on the cache, and no other way was left or the time was up.

    It is an :class:`OSError` too: ``errno``, ``strerror``, ``filename``, ``filename2`` and ``winerror`` (``None``
    where the refusal did not come from Windows) are set.

    Attributes:
        cause: the class of the cause; see :class:`Cause`.
        steps: what was tried in the last round, as ``("rename", "winerror 32")`` pairs, in order.
        holders: who held the file while it was waited for, as ``"MsMpEng.exe (pid 4711)"``, where the system told.
    """

    # As OSError types them, which differs from system to system: winerror is an int there, and on Windows only.
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

    def _code(self) -> str:
        code = f"winerror {self.winerror}" if self.winerror is not None else ""
        if not code and self.errno is not None:
            code = f"errno {self.errno}"
        tried = ", ".join(f"{step}: {answer}" for step, answer in self.steps)
        text = "; tried ".join(part for part in (code, tried) if part)
        return "; held by ".join(part for part in (text, ", ".join(self.holders)) if part)


class InvalidWheelError(WheelCacheError):
    """This is not a wheel, by its file name or by its bytes."""


class UnsafeWheelError(InvalidWheelError):
    """The archive would write outside its folder, or two readers could read it differently: it is refused."""

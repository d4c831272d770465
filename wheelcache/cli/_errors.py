"""Exceptions of the command line, and the text of any exception."""

from __future__ import annotations

from wheelcache import WheelCacheError


class CommandError(Exception):
    """An expected failure of a command. Its message is one line for users."""


class PipError(CommandError):
    """pip is not installed, or it failed."""


class LockError(CommandError):
    """A lock file that cannot be read or does not apply to this environment."""


class NoWheelError(CommandError):
    """A requested package that is not available as a wheel."""


def error_text(error: Exception) -> str:
    """Return the message of an error.

    In an OSError, unlike Python's own text, the backslashes of paths are not doubled.
    """
    if not isinstance(error, OSError) or isinstance(error, WheelCacheError) or not error.filename:
        return str(error)
    paths = [str(path) for path in (error.filename, error.filename2) if path]
    return f"{' -> '.join(paths)}: {error.strerror}"

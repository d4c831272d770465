"""The errors of the command line, and how an error is put into words."""

from __future__ import annotations

from wheelcache import WheelCacheError


class CommandError(Exception):
    """Something that stops a command, in one line for people."""


class PipError(CommandError):
    """pip is not there, or could not do what it was asked."""


class LockError(CommandError):
    """A lock file cannot be read, or is not for this environment."""


class NoWheelError(CommandError):
    """What is wanted is not to be had as a wheel."""


def text_of(error: Exception) -> str:
    """Return an error as people read it: what Python makes of an OSError doubles the backslashes of Windows."""
    if not isinstance(error, OSError) or isinstance(error, WheelCacheError) or not error.filename:
        return str(error)
    paths = [str(path) for path in (error.filename, error.filename2) if path]
    return f"{' -> '.join(paths)}: {error.strerror}"

"""Put a file into a folder by the first method that works there: clone, hard link or copy.

If a volume would refuse a method for every file, the refusal is remembered, so that the next file and the next call
skip the method. A refusal that is transient or concerns one file, such as one with too many links, is never remembered.

Refusals are remembered per pair of volumes, not per folder. So one attempt is enough for 50 new environments on one
volume. Two kinds of refusals apply to a folder and not to its volume. They are remembered for the destination that the
caller gave:

- A cloud service refuses hard links in its own folders only (winerror 396).
- "Another device", although both folders report the same volume, means a bind mount or a project quota:
  https://man7.org/linux/man-pages/man2/link.2.html.
"""

from __future__ import annotations

import errno
import os
import stat as modes
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from .._exceptions import Cause, CommitError
from .._models import LinkMode
from .errors import ErrorKind, classify, is_limited_to_folder, is_permanently_unsupported
from .robustio import RobustIO

# Destinations on the same pair of volumes share an entry. Only destinations in cloud folders or behind bind mounts have
# one each.
_MAX_REMEMBERED = 256

Method = tuple[str, Callable[[], object]]
"""The name of a method, and the call that applies it to one file."""

OnRefusal = Callable[[str, OSError, ErrorKind], object]
"""A function that receives the method, its error and the kind of the error. It raises to end the attempt."""


class AllRefusedError(Exception):
    """Every method was refused.

    Attributes:
        refusals: the name of each method, and its error.
    """

    def __init__(self, refusals: list[tuple[str, OSError]]) -> None:
        super().__init__()
        self.refusals = refusals


WRITABLE_BY_OTHERS = modes.S_IWGRP | modes.S_IWOTH
"""The bits of a mode that prevent a hard link out of a cache."""


def may_share(stat: os.stat_result) -> bool:
    """Return whether a file of a cache may be hard-linked out of it, given its status.

    The owner must be one of :func:`trusted_owners`, and no other user may be able to write to the file. Otherwise
    another user could change installed files later. On Windows, a hard link keeps the access list of the cache, and
    this function returns true.
    """
    if sys.platform == "win32":
        return True
    return stat.st_uid in trusted_owners() and not stat.st_mode & WRITABLE_BY_OTHERS


def trusted_owners() -> tuple[int, ...]:
    """Return the users whose files may be hard-linked out of a cache: the effective user and root."""
    if sys.platform == "win32":
        return ()
    return (os.geteuid(), 0)


def unshareable_error(source: str, target: str) -> CommitError:
    """Return the error for a file that the caller wants to hard-link, although :func:`may_share` forbids it."""
    return CommitError(
        "another user can write to the file, and could change the hard link later",
        errno=errno.EPERM,
        cause=Cause.DENIED,
        operation=f"link ({LinkMode.HARDLINK})",
        path=source,
        target=target,
        advice='Use another mode. The mode "auto" clones or copies such a file.',
    )


class _Root(Protocol):
    """A cache folder."""

    def holds(self, path: str) -> bool: ...


class LinkStrategy:
    """The methods that the destinations of one cache do not support.

    Args:
        never_hardlink_from: caches whose files are only hard-linked if the caller names that mode. A hard link changes
            the link count of the file. This must not happen in layers and read-only caches.
    """

    def __init__(self, never_hardlink_from: Sequence[_Root] = ()) -> None:
        self._never_hardlink_from = never_hardlink_from
        self._unsupported: OrderedDict[object, None] = OrderedDict()
        self._lock = threading.Lock()

    def destination(self, fs: RobustIO, source: str, dest: str) -> Destination:
        """Return the destination ``dest``, an existing folder, for files of the folder ``source``."""
        return Destination(self, fs, source, dest)

    def may_hardlink(self, source: str) -> bool:
        """Return whether the mode "auto" may hard-link files of this folder."""
        return not any(root.holds(source) for root in self._never_hardlink_from)

    @property
    def remembered(self) -> int:
        """The number of remembered refusals."""
        return len(self._unsupported)

    def is_remembered(self, *keys: object) -> bool:
        """Return whether one of these keys is remembered."""
        with self._lock:
            for key in keys:
                if key in self._unsupported:
                    self._unsupported.move_to_end(key)
                    return True
        return False

    def remember(self, key: object) -> None:
        """Remember a key. If there are too many keys, forget the least recently used one."""
        with self._lock:
            self._unsupported[key] = None
            if len(self._unsupported) > _MAX_REMEMBERED:
                self._unsupported.popitem(last=False)


class Destination:
    """A folder of the caller, as the destination for files of one folder."""

    __slots__ = ("_dest", "_fs", "_source", "_strategy", "_volumes")

    def __init__(self, strategy: LinkStrategy, fs: RobustIO, source: str, dest: str) -> None:
        self._strategy = strategy
        self._fs = fs
        self._source = source
        self._dest = dest
        self._volumes: tuple[int | None, int | None] | None = None

    def candidate_modes(self, mode: LinkMode) -> list[LinkMode]:
        """Return the modes to try, in order. If ``mode`` is not "auto", it is the only one."""
        if mode is not LinkMode.AUTO:
            return [mode]
        modes = [LinkMode.CLONE]
        if self._strategy.may_hardlink(self._source):
            modes.append(LinkMode.HARDLINK)
        return [*(mode for mode in modes if self.supports(mode)), LinkMode.COPY]

    def supports(self, method: str) -> bool:
        """Return whether no refusal of this method is remembered for this destination."""
        # This check is first, because the lookup of the volumes takes system calls.
        if not self._strategy.remembered:
            return True
        return not self._strategy.is_remembered((method, self._volume_ids()), (method, self._dest))

    def mark_unsupported(self, method: str, error: OSError) -> None:
        """Remember the refusal of a method, if the error means that the method never works here."""
        if not is_permanently_unsupported(error):
            return
        source, dest = volumes = self._volume_ids()
        by_folder = None in volumes or is_limited_to_folder(error, same_volume=source == dest)
        self._strategy.remember((method, self._dest) if by_folder else (method, volumes))

    def _volume_ids(self) -> tuple[int | None, int | None]:
        if self._volumes is None:
            self._volumes = self._volume_id(self._source), self._volume_id(self._dest)
        return self._volumes

    def _volume_id(self, folder: str) -> int | None:
        try:
            return self._fs.files.volume_id(folder)
        except OSError:
            return None

    def attempt(self, methods: Iterable[Method], target: str, on_refusal: OnRefusal) -> str:
        """Apply the methods in this order until one succeeds, and return its name.

        Raises:
            AllRefusedError: if every method was refused.
        """
        refusals: list[tuple[str, OSError]] = []
        for name, action in methods:
            try:
                action()
            except OSError as error:
                refusal = refusal_behind(error)
                kind = classify(refusal, target)
                on_refusal(name, error, kind)
                if kind is ErrorKind.UNSUPPORTED and name != LinkMode.COPY:
                    self.mark_unsupported(name, refusal)
                refusals.append((name, error))
            else:
                return name
        raise AllRefusedError(refusals)


def refusal_behind(error: OSError) -> OSError:
    """Return the system's own error behind a :class:`CommitError`."""
    return error.__cause__ if isinstance(error, CommitError) and isinstance(error.__cause__, OSError) else error

"""Link wheels from the cache to a path, or into a folder where installers find them.

The target appears as a whole or not at all. A clone or copy is created under a temporary name beside the target,
because even a clone takes several system calls and starts as an empty file.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Callable, Iterable
from pathlib import Path

from .._exceptions import CommitError
from .._fs.copy import copy_contents
from .._fs.errors import ErrorKind
from .._fs.hashing import hash_file
from .._fs.link import AllRefusedError, Destination, LinkStrategy, Method, may_share, unshareable_error
from .._fs.persist import persist_noclobber
from .._fs.robustio import RobustIO, commit_error, reading
from .._fs.tempnames import OwnerTag, spare_name
from .._models import CachedWheel, LinkMode, require_wheel
from .._os.confined.entries import UnsafePathError
from .._os.confined.small import not_regular


class WheelLinker:
    """Links wheels of a cache to paths of the caller.

    Args:
        strategy: chooses the modes, and remembers the modes that a destination does not support.
        is_shared: returns whether other users can write to the cache or one of its layers.
    """

    def __init__(self, strategy: LinkStrategy, is_shared: Callable[[RobustIO], bool]) -> None:
        self._strategy = strategy
        self._is_shared = is_shared

    def link(self, fs: RobustIO, wheel: CachedWheel, dest: str | os.PathLike[str], mode: LinkMode) -> LinkMode:
        """Link a wheel into a folder or to a path, and return the mode that was used.

        ``Cache.link`` documents the modes and errors.
        """
        target = os.path.abspath(dest)
        if os.fspath(dest).endswith(("/", os.sep)) or fs.files.is_dir(target):
            target = os.path.join(target, wheel.filename)
        folder, source = os.path.dirname(target), str(wheel.path)
        existing = _require_existing(fs, wheel)
        fs.make_folder(folder)
        destination = self._strategy.destination(fs, os.path.dirname(source), folder)
        link = _WheelLink(fs, destination, wheel, target, existing, is_shared=self._is_shared(fs))
        try:
            methods = link.methods(mode)
            return LinkMode(destination.attempt(methods, target, link.on_refusal))
        except _ExistsError:
            return _check_same(fs, wheel, target)
        except AllRefusedError as refused:
            last, error = refused.refusals[-1]
            cause = None if isinstance(error, CommitError) else fs.cause(error, target)
            raise commit_error(error, f"link ({last})", source, target=target, cause=cause) from error


class _WheelLink:
    """The linking of one wheel, with the file status ``existing``, to one path."""

    def __init__(
        self,
        fs: RobustIO,
        destination: Destination,
        wheel: CachedWheel,
        target: str,
        existing: os.stat_result,
        *,
        is_shared: bool,
    ) -> None:
        self._fs = fs
        self._is_shared = is_shared
        self._destination = destination
        self._wheel = wheel
        self._source = str(wheel.path)
        self._target = target
        self._existing = existing

    def methods(self, mode: LinkMode) -> list[Method]:
        """Return the methods to try, in order.

        Raises:
            CommitError: if a hard link is the only method, and is not allowed.
        """
        actions: dict[LinkMode, Method] = {
            LinkMode.CLONE: (LinkMode.CLONE, self._clone),
            LinkMode.HARDLINK: (LinkMode.HARDLINK, self._hardlink),
            LinkMode.COPY: (LinkMode.COPY, self._copy),
        }
        candidates = self._destination.candidate_modes(mode)
        if not may_share(self._existing):
            candidates = [candidate for candidate in candidates if candidate is not LinkMode.HARDLINK]
            if not candidates:
                raise unshareable_error(self._source, self._target)
        return [actions[candidate] for candidate in candidates]

    def on_refusal(self, _: str, error: OSError, kind: ErrorKind) -> None:
        """End the attempt if another method cannot help."""
        if kind is ErrorKind.EXISTS:
            raise _ExistsError from error
        if kind is ErrorKind.MISSING:
            _require_existing(self._fs, self._wheel)

    def _hardlink(self) -> None:
        self._fs.files.link(self._source, self._target)
        linked = self._fs.files.stat(self._target)
        # The inode is not compared, since an overlay file system may change it when it creates the link.
        is_same = (linked.st_size, linked.st_mtime_ns) == (self._existing.st_size, self._existing.st_mtime_ns)
        if not (is_same and modes.S_ISREG(linked.st_mode) and may_share(linked)):
            # Another user of the cache has replaced the wheel, perhaps by a link.
            self._fs.discard(self._target)
            raise UnsafePathError(errno.EBUSY, "the wheel was replaced while it was linked", self._source)
        try:
            self._check(self._target)
        except BaseException:
            self._fs.discard(self._target)
            raise

    def _check(self, path: str) -> None:
        """Raise an error if a new link or copy has other bytes, since another user may have changed the wheel."""
        if self._is_shared:
            hashes = hash_file(self._fs, path, (), self._wheel.size)
            if hashes is None or self._wheel.digest != f"sha256:{hashes['sha256']}":
                raise OSError(errno.EIO, "another process has changed the wheel", self._source)

    def _clone(self) -> None:
        spare = self._new_spare()
        try:
            self._fs.files.clone(self._source, spare)
            self._persist(spare)
        except BaseException:
            self._fs.discard(spare)
            raise

    def _copy(self) -> None:
        fs, spare = self._fs, self._new_spare()
        try:
            with (
                reading(fs.perform("open", self._source, lambda: fs.files.open_read(self._source))) as reader,
                fs.create(spare) as writer,
            ):
                copy_contents(fs, reader, writer, size=self._wheel.size)
            self._persist(spare)
        except BaseException:
            fs.discard(spare)
            raise

    def _new_spare(self) -> str:
        system = self._fs.system
        return os.path.join(os.path.dirname(self._target), spare_name(OwnerTag.new(system.now(), system.boot())))

    def _persist(self, spare: str) -> None:
        sha256 = self._wheel.digest.removeprefix("sha256:")
        self._check(spare)
        persist_noclobber(self._fs, spare, self._target, destination=self._destination, sha256=sha256)


class _ExistsError(Exception):
    """The target already exists."""


def _check_same(fs: RobustIO, wheel: CachedWheel, target: str) -> LinkMode:
    """Accept an existing file with the bytes of the wheel, and return the mode by which it shares them."""
    existing, ours = fs.stat(target), fs.stat(str(wheel.path))
    if existing is not None and ours is not None:
        is_same_size = modes.S_ISREG(existing.st_mode) and existing.st_size == ours.st_size
        if is_same_size and (existing.st_dev, existing.st_ino) == (ours.st_dev, ours.st_ino):
            return LinkMode.HARDLINK
        hashes = hash_file(fs, target, (), existing.st_size) if is_same_size else None
        if hashes is not None and wheel.digest == f"sha256:{hashes['sha256']}":
            return LinkMode.COPY
    raise FileExistsError(errno.EEXIST, "a file with other bytes exists", target)


def _require_existing(fs: RobustIO, wheel: CachedWheel) -> os.stat_result:
    """Return the status of a wheel.

    Raises:
        FileNotFoundError: if it was pruned after it was returned.
        CommitError: if it is not a regular file.
    """
    stat = fs.stat(str(wheel.path))
    if stat is None:
        raise FileNotFoundError(
            errno.ENOENT, "the wheel is no longer in the cache and must be fetched again", str(wheel.path)
        ) from None
    if not modes.S_ISREG(stat.st_mode):
        raise commit_error(not_regular(str(wheel.path)), "link", str(wheel.path))
    return stat


def export(
    fs: RobustIO,
    linker: WheelLinker,
    wheels: Iterable[CachedWheel],
    dest: str | os.PathLike[str],
    mode: LinkMode,
    *,
    require_all: bool,
) -> list[Path]:
    """Link wheels into a folder, and return their paths.

    With ``require_all``, a wheel that was pruned meanwhile is an error. Otherwise it is omitted. ``Cache.export``
    documents the errors.
    """
    if isinstance(wheels, CachedWheel):
        raise TypeError("wheels must be a collection of wheels, not one wheel")
    folder = os.path.abspath(dest)
    chosen = _by_filename(wheels)
    fs.make_folder(folder)
    paths = []
    for wheel in chosen:
        path = os.path.join(folder, wheel.filename)
        try:
            linker.link(fs, wheel, path, mode)
        except FileNotFoundError:
            if require_all:
                raise
            continue  # the wheel was pruned after it was listed
        paths.append(Path(path))
    return paths


def _by_filename(wheels: Iterable[CachedWheel]) -> list[CachedWheel]:
    """Return the wheels, without duplicate file names.

    Raises:
        ValueError: if two different wheels have the same file name.
    """
    chosen: dict[str, CachedWheel] = {}
    for wheel in wheels:
        require_wheel(wheel)
        # The names are compared in lower case, because the file system of the folder may ignore case.
        other = chosen.setdefault(wheel.filename.lower(), wheel)
        if other.digest != wheel.digest:
            raise ValueError(
                f"two different wheels are named {wheel.filename}, so they cannot be in one folder: {other.digest} and "
                f"{wheel.digest}. Pass the wheels to export, or remove one of the two by its digest"
            )
    return list(chosen.values())

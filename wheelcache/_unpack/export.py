"""Deliver: a wheel out of the cache to where the caller wants it, by clone, hard link or copy.

The target appears whole or not at all: what needs more than one call is made under a temporary name beside it.

Export: many wheels out of the cache into one folder, under their true names, for installers to find.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Iterable, Sequence
from pathlib import Path

from .._exceptions import CommitError
from .._fs.errors import ErrorKind, classify, is_permanently_unsupported
from .._fs.persist import Persister
from .._fs.robustio import RobustIO, commit_error, hash_file, reading
from .._fs.tempnames import OwnerTag, spare_name
from .._models import CachedWheel, LinkMode, require_wheel
from .._store.layout import Layout

_COPY_CHUNK = 1 << 26


class Deliver:
    """The way out of a cache.

    Args:
        ladder: how a copy gets its name.
        untouched: the caches whose files get no second name unless that is asked for, since it is written to the file.
    """

    def __init__(self, ladder: Persister, never_hardlink_from: Sequence[Layout] = ()) -> None:
        self._ladder = ladder
        self._never_hardlink_from = never_hardlink_from
        # Per folder: the modes that its volume refused for good, so that the second wheel pays nothing.
        self._lacking: set[tuple[LinkMode, str]] = set()

    def link(self, fs: RobustIO, wheel: CachedWheel, dest: str | os.PathLike[str], mode: LinkMode) -> LinkMode:
        """Put a wheel into a folder, or make a file of it; return how. ``Cache.link`` is the contract."""
        target = os.path.abspath(dest)
        if os.fspath(dest).endswith(("/", os.sep)) or fs.files.is_dir(target):
            target = os.path.join(target, wheel.filename)
        _require(fs, wheel)
        fs.make_folder(os.path.dirname(target))
        scope = os.path.dirname(target)
        ways = self._ways(str(wheel.path)) if mode is LinkMode.AUTO else [mode]
        ways = [way for way in ways[:-1] if (way, scope) not in self._lacking] + ways[-1:]
        for way in ways:
            try:
                self._take(way, fs, wheel, target)
            except OSError as error:
                refusal = classify(error, target)
                if refusal is ErrorKind.EXISTS:
                    return self._existing(fs, wheel, target)
                if refusal is ErrorKind.MISSING:
                    _require(fs, wheel)
                if way is ways[-1]:
                    cause = None if isinstance(error, CommitError) else fs.cause(error, target)
                    raise commit_error(
                        error, f"link out ({way})", str(wheel.path), target=target, cause=cause
                    ) from error
                if refusal is ErrorKind.UNSUPPORTED and is_permanently_unsupported(error):
                    self._lacking.add((way, scope))
            else:
                break
        return way

    def _ways(self, source: str) -> list[LinkMode]:
        if any(layout.holds(source) for layout in self._never_hardlink_from):
            return [LinkMode.CLONE, LinkMode.COPY]
        return [LinkMode.CLONE, LinkMode.HARDLINK, LinkMode.COPY]

    def _take(self, way: LinkMode, fs: RobustIO, wheel: CachedWheel, target: str) -> None:
        source = str(wheel.path)
        if way is LinkMode.HARDLINK:
            fs.files.link(source, target)
            return
        # Cloning is one call to us, and several to the system: it makes an empty file first.
        folder = os.path.dirname(target)
        spare = os.path.join(folder, spare_name(OwnerTag.new(fs.system.now(), fs.system.boot())))
        try:
            if way is LinkMode.CLONE:
                fs.files.clone(source, spare)
            else:
                _copy(fs, source, spare, wheel.size)
            self._ladder.place(fs, spare, target, scope=folder, sha256=wheel.digest.removeprefix("sha256:"))
        except BaseException:
            fs.discard(spare)
            raise

    def _existing(self, fs: RobustIO, wheel: CachedWheel, target: str) -> LinkMode:
        """Look at what stands at the target: the same bytes are what was asked for."""
        there, ours = fs.stat(target), fs.stat(str(wheel.path))
        if there is not None and ours is not None and modes.S_ISREG(there.st_mode) and there.st_size == ours.st_size:
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                return LinkMode.HARDLINK
            hashes = hash_file(fs, target, (), there.st_size)
            if hashes is not None and wheel.digest == f"sha256:{hashes['sha256']}":
                return LinkMode.COPY
        raise FileExistsError(errno.EEXIST, "a file with other bytes is there", target)


def _copy(fs: RobustIO, source: str, target: str, size: int) -> None:
    with (
        reading(fs.perform("open", source, lambda: fs.files.open_read(source))) as reader,
        fs.create(target) as writer,
    ):
        while fs.files.copy(reader, writer, _COPY_CHUNK):
            pass
        if os.fstat(writer.fileno()).st_size != size:
            raise OSError(errno.EIO, "the wheel became shorter or longer while it was copied", source, None, target)


def _require(fs: RobustIO, wheel: CachedWheel) -> None:
    """See that a wheel is still there: it may have been pruned since it was given."""
    if fs.stat(str(wheel.path)) is None:
        raise FileNotFoundError(
            errno.ENOENT, "the wheel is no longer in the cache: fetch it again", str(wheel.path)
        ) from None


def export(
    fs: RobustIO,
    deliver: Deliver,
    wheels: Iterable[CachedWheel],
    dest: str | os.PathLike[str],
    mode: LinkMode,
    *,
    each: bool,
) -> list[Path]:
    """Link wheels into a folder; with ``each``, one that is gone is an error. ``Cache.export`` is the contract."""
    if isinstance(wheels, CachedWheel):
        raise TypeError("wheels is a list of wheels, not one wheel")
    folder = os.path.abspath(dest)
    chosen: dict[str, CachedWheel] = {}
    for wheel in wheels:
        require_wheel(wheel)
        # Folded, since the folder may be on a file system that folds case.
        other = chosen.setdefault(wheel.filename.lower(), wheel)
        if other.digest != wheel.digest:
            raise ValueError(
                f"two different wheels are called {wheel.filename}, and one folder cannot hold both: "
                f"{other.digest} and {wheel.digest}. Say which by wheels, or remove one by its digest"
            )
    fs.make_folder(folder)
    paths = []
    for wheel in chosen.values():
        path = os.path.join(folder, wheel.filename)
        try:
            deliver.link(fs, wheel, path, mode)
        except FileNotFoundError:
            if each:
                raise
            continue  # it was pruned since it was listed
        paths.append(Path(path))
    return paths

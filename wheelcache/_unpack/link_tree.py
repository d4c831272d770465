"""Spread: a tree out to a folder that may hold other packages, by clone, hard link or copy.

It looks before it writes: where a file is there with other bytes, nothing is written at all. A hard link appears whole;
a clone or a copy is made under a temporary name and then given its own, so that whoever comes after a killed process
finds whole files only, takes them for what they are, and adds the rest.

What ``auto`` chooses, and why: a clone where the volume can share blocks, since then nobody can spoil the cache through
it; else a hard link; else a copy. On Windows, programs and libraries are copied and not linked: one that is loaded
anywhere cannot be deleted under any of its names, and an environment could not be upgraded while another one runs.
"""

from __future__ import annotations

import errno
import os
import stat as modes
import threading
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from .._exceptions import CommitError
from .._fs.errors import ErrorKind, classify, is_permanently_unsupported
from .._fs.persist import Persister
from .._fs.robustio import RobustIO, commit_error, hash_file, is_missing
from .._fs.tempnames import OwnerTag, is_spare, spare_name
from .._models import LinkMode
from .._os.files import OpenFolder
from .._store.layout import Layout
from .._threads import ThreadGroup
from .manifest import Manifest, ManifestDir, is_executable, is_image
from .trees import remove_folder, untrusted

# A second thread costs more than it brings where the system answers within some microseconds, since both want the
# interpreter's lock after each call: a warm install on a local disk of Linux takes a quarter longer with it. Where a
# file takes longer than this, a network drive, a scanner that looks at each, copies of large ones, waiting overlaps.
_SLOW_SECONDS = 60e-6
_SAMPLE = 100
_THREADS = 4
_COPY_CHUNK = 1 << 26
# Seconds after which nobody is still copying one file, and its temporary one was left by a killed process.
_LEFT_OVER_AFTER = 3600
_WRITABLE, _EXECUTABLE = 0o666, 0o777


# How the files of a call went is told by the one that shares most with the cache.
_SHARED_MOST = (LinkMode.HARDLINK, LinkMode.CLONE, LinkMode.COPY)


class TreeRemovedError(Exception):
    """A file of the tree is not there any more: it was pruned meanwhile, or damaged. It is made again."""


class TreeLinker:
    """The way out of the trees of a cache.

    Args:
        ladder: how a copy gets its name.
        untouched: the caches whose files get no second name unless that is asked for, since it is written to the file.
    """

    def __init__(self, ladder: Persister, never_hardlink_from: Sequence[Layout] = ()) -> None:
        self._ladder = ladder
        self._never_hardlink_from = never_hardlink_from
        # Per target folder: the modes that its volume refused for good, so that the second wheel pays nothing.
        self._lacking: set[tuple[LinkMode, str]] = set()

    def out(
        self, fs: RobustIO, root: str, listing: Manifest, dest: str, mode: LinkMode, *, check: bool = False
    ) -> LinkMode:
        """Put the files of the tree at ``root`` into the folder ``dest``, and return how. ``Cache.unpack`` tells more.

        With ``check``, the tree is one of this boot that was not looked at yet: each folder is, before its files go.

        Raises:
            FileExistsError: where a file is there with other bytes, or something that is no file or folder.
            TreeGoneError: where the tree lost a file, or one changed.
            CommitError: where the file system refuses.
        """
        look = _Look(fs, root, listing, dest)
        missing, there = look.look()
        fs.make_folder(dest)
        spreading = _Spreading(fs, self, root, dest, mode, check=check)
        spreading.used |= look.seen
        spreading.run([_Task(each, each.path in missing, there.get(each.path, _NONE)) for each in listing.folders])
        return next(way for way in _SHARED_MOST if way in spreading.used)

    def one(self, fs: RobustIO, root: str, folder: ManifestDir, number: int, *, target: str, mode: LinkMode) -> None:
        """Put one file of a tree to the absolute path ``target``, under its own name.

        Raises:
            As :meth:`out`.
        """
        source, target_folder = _below(root, folder.path), os.path.dirname(target)
        fs.make_folder(target_folder)
        spreading = _Spreading(fs, self, root, target_folder, mode, check=False)
        spreading.put(folder.only(number), _NONE, source, target_folder)

    def ways(self, mode: LinkMode, root: str, dest: str) -> list[LinkMode]:
        """Return what is to be tried for the tree at ``root``, in this order."""
        if mode is not LinkMode.AUTO:
            return [mode]
        ways = [LinkMode.CLONE, LinkMode.HARDLINK]
        if any(layout.holds(root) for layout in self._never_hardlink_from):
            ways.remove(LinkMode.HARDLINK)
        return [way for way in ways if (way, dest) not in self._lacking] + [LinkMode.COPY]

    def lacks(self, way: LinkMode, dest: str) -> None:
        """Remember that there is no such way to this folder."""
        self._lacking.add((way, dest))

    def place(self, fs: RobustIO, spare: str, target: str, *, scope: str, sha256: str) -> None:
        """Give a finished temporary file its name."""
        self._ladder.place(fs, spare, target, scope=scope, sha256=sha256)


class _Look:
    """What is in the target folder already, before anything is written."""

    def __init__(self, fs: RobustIO, root: str, listing: Manifest, dest: str) -> None:
        self.seen: set[LinkMode] = set()
        self._fs = fs
        self._root = root
        self._listing = listing
        self._dest = dest

    def look(self) -> tuple[set[str], dict[str, frozenset[str]]]:
        """Return the folders that are missing, and by folder the files that are there with the same bytes."""
        missing: set[str] = set()
        there: dict[str, frozenset[str]] = {}
        for folder in self._listing.folders:
            if folder.path and folder.path.rpartition("/")[0] in missing:
                missing.add(folder.path)
                continue
            names = self._names(_below(self._dest, folder.path))
            if names is None:
                missing.add(folder.path)
            elif names:
                there[folder.path] = frozenset(self._same(folder, names))
        return missing, there

    def _names(self, path: str) -> set[str] | None:
        """Return the names in a folder, ``None`` where there is no such folder."""
        fs = self._fs
        try:
            names = {entry.name for entry in fs.perform("scan", path, lambda: fs.files.scan(path))}
        except OSError as error:
            # Found out by looking: Windows has several codes for it, and a link that leads nowhere says "missing".
            there = fs.stat(path) is not None
            if is_missing(error, path) and not there:
                return None
            if there and not fs.files.is_dir(path):
                raise FileExistsError(errno.EEXIST, "a file is there where a folder should go", path) from error
            raise
        for name in names:
            if is_spare(name) and _is_left_over(fs, name):
                remove_folder(fs, os.path.join(path, name))
        return names

    def _same(self, folder: ManifestDir, names: Collection[str]) -> Iterator[str]:
        # Where case is folded, a file may be there under another spelling; whether it is, looking at it tells.
        folded = {name.lower() for name in names}
        for number, name in enumerate(folder.names):
            if name in names or name.lower() in folded:
                source = _below(self._root, folder.relative(name))
                there = check_same(self._fs, source, folder, number, _below(self._dest, folder.relative(name)))
                if there is not None:
                    self.seen.add(there)
                    yield name


class _Task(NamedTuple):
    """A folder to fill: whether it must be made, and the files that are there already."""

    folder: ManifestDir
    missing: bool
    there: frozenset[str]


_NONE: frozenset[str] = frozenset()


class _Spreading:
    """One tree on its way to one folder."""

    def __init__(self, fs: RobustIO, spread: TreeLinker, root: str, dest: str, mode: LinkMode, *, check: bool) -> None:
        self._fs = fs
        self._fs = fs
        self._check = check
        self._spread = spread
        self._root = root
        self._dest = dest
        self._mode = mode
        self.used: set[LinkMode] = set()
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def run(self, tasks: list[_Task]) -> None:
        """Do all of it, in more threads where that pays; the first error is raised when all have stopped."""
        rest = iter(tasks)
        count = _THREADS - 1 if self._is_slow(rest) else 0
        workers = ThreadGroup(lambda: self._work(rest), count, "wheelcache-unpack")
        workers.run(self._fail, in_caller=lambda: self._work(rest))
        if self._error is not None:
            raise self._error

    def _is_slow(self, rest: Iterator[_Task]) -> bool:
        """Do the first of it, and return whether the rest is worth threads."""
        clock = self._fs.system.monotonic
        start, done = clock(), 0
        for task in rest:
            self._folder(*task)
            done += 1 + len(task.folder.names)
            if done >= _SAMPLE:
                return clock() - start > done * _SLOW_SECONDS
        return False

    def _work(self, rest: Iterator[_Task]) -> None:
        try:
            while True:
                with self._lock:
                    task = next(rest, None) if self._error is None else None
                if task is None:
                    return
                self._folder(*task)
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error

    def _folder(self, folder: ManifestDir, missing: bool, there: frozenset[str]) -> None:
        source, target = _below(self._root, folder.path), _below(self._dest, folder.path)
        if missing:
            # The folder above it may be the other thread's, and not there yet: then it is made here.
            _make_folder(self._fs, target)
        if folder.names:
            self.put(folder, there, source, target)

    def put(self, folder: ManifestDir, there: frozenset[str], source: str, target: str) -> None:
        """Put the files of a folder that are not there yet into one that is."""
        with self._open(source) as opened, self._open(target) as made:
            if self._check and untrusted(self._fs, opened, folder):
                raise TreeRemovedError
            self._files(folder, there, _Way(source, target, (opened, made)))

    def _files(self, folder: ManifestDir, there: frozenset[str], way: _Way) -> None:
        opened, made = way.opened
        link_first = self._spread.ways(self._mode, self._root, self._dest)[0] is LinkMode.HARDLINK
        protects_loaded_images = self._fs.files.protects_loaded_images and self._mode is LinkMode.AUTO
        linked = False
        for number, name in enumerate(folder.names):
            if name in there:
                continue
            if link_first and not (protects_loaded_images and is_image(folder.kinds[number])):
                # What nearly every file of a warm install is: one call, and nothing else.
                try:
                    opened.link(name, made)
                except OSError:
                    pass  # it is tried again below, where it is found out why
                else:
                    linked = True
                    continue
            file = _File(self._fs, self._spread, folder, number, way)
            file.put(self._ways(folder.kinds[number]), self._dest, self.used)
        if linked:
            self.used.add(LinkMode.HARDLINK)

    def _ways(self, kind: str) -> list[LinkMode]:
        ways = self._spread.ways(self._mode, self._root, self._dest)
        if self._mode is LinkMode.AUTO and self._fs.files.protects_loaded_images and is_image(kind):
            ways = [way for way in ways if way is not LinkMode.HARDLINK]
        return ways

    def _open(self, path: str) -> OpenFolder:
        files = self._fs.files
        try:
            return files.open_folder(path)
        except OSError:
            pass  # it is tried again, with patience
        try:
            return self._fs.perform("open", path, lambda: files.open_folder(path))
        except OSError as error:
            if is_missing(error, path) and path.startswith(self._root):
                raise TreeRemovedError from error
            raise commit_error(error, "unpack", path) from error


class _Way(NamedTuple):
    """From a folder of a tree to one of the caller's."""

    source: str
    target: str
    opened: tuple[OpenFolder, OpenFolder]


class _File:
    """One file, by whichever way is open."""

    def __init__(self, fs: RobustIO, spread: TreeLinker, folder: ManifestDir, number: int, way: _Way) -> None:
        self._fs = fs
        self._fs = fs
        self._spread = spread
        self._folder = folder
        self._number = number
        self._name = folder.names[number]
        self._from, self._to = way.opened
        self._source = os.path.join(way.source, self._name)
        self._target = os.path.join(way.target, self._name)
        self._target_folder = way.target

    def put(self, ways: list[LinkMode], dest: str, used: set[LinkMode]) -> None:
        """Put it there, and take down how."""
        for way in ways:
            last = way is ways[-1]
            try:
                # Where another way is open, nobody waits for this one.
                self._take(way, self._fs if last else self._fs.without_waiting())
            except OSError as error:
                refusal = _refusal_behind(error, self._target)
                if refusal is ErrorKind.EXISTS:
                    there = check_same(self._fs, self._source, self._folder, self._number, self._target)
                    used.add(there or LinkMode.COPY)
                    return
                if refusal is ErrorKind.MISSING and self._fs.stat(self._source) is None:
                    raise TreeRemovedError from error
                if last:
                    raise commit_error(error, f"link out ({way})", self._source, target=self._target) from error
                if refusal is ErrorKind.UNSUPPORTED and is_permanently_unsupported(error):
                    self._spread.lacks(way, dest)
            else:
                used.add(way)
                return

    def _take(self, way: LinkMode, fs: RobustIO) -> None:
        if way is LinkMode.HARDLINK:
            fs.perform("link", self._source, lambda: self._from.link(self._name, self._to), target=self._target)
            return
        spare_file = spare_name(OwnerTag.new(fs.system.now(), fs.system.boot()))
        spare = os.path.join(self._target_folder, spare_file)
        permissions = _EXECUTABLE if is_executable(self._folder.kinds[self._number]) else _WRITABLE
        try:
            if way is LinkMode.CLONE:
                clone = self._from.clone
                fs.perform("clone", self._source, lambda: clone(self._name, self._to, spare_file, permissions))
            else:
                self._copy(fs, spare_file, spare, permissions)
            sha256 = self._folder.digest(self._number)
            self._spread.place(fs, spare, self._target, scope=self._target_folder, sha256=sha256)
        except BaseException:
            fs.discard(spare)
            raise

    def _copy(self, fs: RobustIO, name: str, spare: str, permissions: int) -> None:
        with (
            fs.perform("open", self._source, lambda: fs.files.open_read(self._source)) as reader,
            fs.perform("create", spare, lambda: self._to.create(name, permissions)) as writer,
        ):
            while fs.files.copy(reader, writer, _COPY_CHUNK):
                pass


def check_same(fs: RobustIO, source: str, folder: ManifestDir, number: int, target: str) -> LinkMode | None:
    """See that what stands at the target is the file that should go there; ``None`` where nothing does.

    Returns:
        Whether it shares its bytes with the tree (a hard link) or not: a clone cannot be told from a copy.

    Raises:
        FileExistsError: where it is not.
    """
    there = fs.stat(target)
    if there is None:
        return None
    if modes.S_ISREG(there.st_mode) and there.st_size == folder.sizes[number]:
        ours = fs.stat(source)
        if ours is not None and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            return LinkMode.HARDLINK
        hashes = hash_file(fs, target, (), there.st_size)
        if hashes is not None and hashes["sha256"] == folder.digest(number):
            return LinkMode.COPY
    raise FileExistsError(errno.EEXIST, "a file with other bytes is there, or no file", target)


def _make_folder(fs: RobustIO, path: str) -> None:
    try:
        fs.files.mkdir(path)
    except OSError as error:
        if classify(error, path) is ErrorKind.EXISTS and fs.files.is_dir(path):
            return
        fs.make_folder(path)


def _refusal_behind(error: OSError, path: str) -> ErrorKind:
    behind = error.__cause__ if isinstance(error, CommitError) and isinstance(error.__cause__, OSError) else error
    return classify(behind, path)


def _is_left_over(fs: RobustIO, name: str) -> bool:
    stamp = OwnerTag.of(name)
    return stamp is not None and fs.system.now() - stamp.time > _LEFT_OVER_AFTER


def _below(root: str, relative: str) -> str:
    if not relative:
        return root
    # Not os.path.join: a thousand folders are formed so in a warm install, and the parts are known to be plain.
    return root + os.sep + (relative if os.sep == "/" else relative.replace("/", os.sep))

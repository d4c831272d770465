"""Link the files of a tree into a folder that may contain other packages, by clone, hard link or copy.

The folder is examined before anything is written. If one of its files has other bytes, nothing is written at all. A
hard link is complete as soon as it exists. A clone or copy is created under a temporary name and then renamed. A killed
process therefore leaves only complete files. The next process accepts these files and adds the rest.

A file that another user can write to is never hard-linked, because that user could later change the installed file. It
is cloned or copied. If the caller asked for hard links, it is an error.

The mode "auto" prefers a clone if the volume can share blocks, since writing to a clone cannot damage the cache. "auto"
then tries a hard link, then a copy. On Windows, programs and libraries are copied instead of hard-linked. A loaded one
cannot be deleted under any of its names, so an environment could not be upgraded while another one runs.
"""

from __future__ import annotations

import os
import stat as modes
import threading
from collections.abc import Collection, Iterator
from typing import NamedTuple

from .._fs.copy import copy_contents
from .._fs.errors import ErrorKind, classify
from .._fs.hashing import hash_file
from .._fs.link import AllRefusedError, Destination, LinkStrategy, Method, may_share, unshareable_error
from .._fs.persist import persist_noclobber
from .._fs.robustio import RobustIO, commit_error, is_missing
from .._fs.tempnames import OwnerTag, spare_name
from .._models import LinkMode
from .._operation import CancelToken
from .._os.files import OpenFolder
from .._threads import ThreadGroup
from .check import examine
from .existing import ExistingFiles, check_same, join
from .manifest import Manifest, ManifestDir, is_executable, is_image

# Seconds per file from which several threads link the files. If the system responds within microseconds, a second
# thread costs more than it gains, because both need the interpreter's lock after each call. With threads, a warm
# install on a local Linux disk takes a quarter longer. If a network drive, a scanner or copies of large files take
# longer, the waits of the threads overlap.
_SLOW_SECONDS = 60e-6
_SAMPLE_FILES = 100
_THREADS = 4
# A hard link takes microseconds, so checking for cancellation before each one would slow a warm install down.
_FILES_PER_CHECK = 16
_WRITABLE, _EXECUTABLE = 0o666, 0o777

# The first of these modes that a call used is reported, since it shares the most with the cache.
_MODES_BY_SHARING = (LinkMode.HARDLINK, LinkMode.CLONE, LinkMode.COPY)
_NO_NAMES: frozenset[str] = frozenset()


class TreeRemovedError(Exception):
    """A file of the tree is missing or damaged, because the tree was pruned meanwhile.

    The caller unpacks the wheel again.
    """


class TreeLinker:
    """Links trees of a cache into folders of the caller.

    Args:
        strategy: chooses the modes, and remembers those that a destination does not support.
    """

    def __init__(self, strategy: LinkStrategy) -> None:
        self._strategy = strategy

    def link_tree(
        self,
        fs: RobustIO,
        root: str,
        manifest: Manifest,
        dest: str,
        mode: LinkMode,
        *,
        check: bool = False,
        shared: bool = False,
    ) -> LinkMode:
        """Link the files of the tree at ``root`` into the folder ``dest``, and return the mode that was used.

        ``Cache.unpack`` documents the modes. With ``check``, each folder of the tree is compared with the manifest
        before its files are linked. A trusted tree that has not been compared yet needs this check. With ``shared``,
        other users can write to the tree. Its files are checked before and after they are linked or copied.

        Raises:
            FileExistsError: if an existing file has other bytes or is not a regular file. Nothing is written then.
            TreeRemovedError: if a file of the tree was removed or changed.
            CommitError: if the file system refuses an operation.
        """
        existing = ExistingFiles(fs, root, manifest, dest)
        absent_folders, existing_names = existing.find()
        fs.make_folder(dest)
        run = _LinkRun(fs, self._strategy.destination(fs, root, dest), root, dest, mode, check=check, shared=shared)
        run.modes_used |= existing.modes_used
        run.link_folders(
            [
                _Task(folder, folder.path in absent_folders, existing_names.get(folder.path, _NO_NAMES))
                for folder in manifest.folders
            ]
        )
        return next(mode for mode in _MODES_BY_SHARING if mode in run.modes_used)

    def link_file(
        self, fs: RobustIO, root: str, folder: ManifestDir, number: int, *, target: str, mode: LinkMode, shared: bool
    ) -> None:
        """Link one file of a tree to the absolute path ``target``, which has the same file name.

        With ``shared``, the file is checked as by :meth:`link_tree`.

        Raises:
            FileExistsError, TreeRemovedError, CommitError: as for :meth:`link_tree`.
        """
        source_folder, target_folder = join(root, folder.path), os.path.dirname(target)
        fs.make_folder(target_folder)
        destination = self._strategy.destination(fs, root, target_folder)
        run = _LinkRun(fs, destination, root, target_folder, mode, check=False, shared=shared)
        run.link_files(folder.only(number), _NO_NAMES, source_folder, target_folder)


class _Task(NamedTuple):
    """A folder to fill.

    Attributes:
        folder: the files of the folder.
        is_absent: whether the folder must be created.
        existing: the names of the existing files with the same bytes.
    """

    folder: ManifestDir
    is_absent: bool
    existing: frozenset[str]


class _LinkRun:
    """The linking of one tree into one folder.

    Attributes:
        modes_used: the modes that were used so far.
    """

    def __init__(
        self,
        fs: RobustIO,
        destination: Destination,
        root: str,
        dest: str,
        mode: LinkMode,
        *,
        check: bool,
        shared: bool,
    ) -> None:
        # An error in one thread or Ctrl-C ends the waits of the other threads.
        self._token = CancelToken()
        self._fs = fs.with_token(self._token)
        self._destination = destination
        self._root = root
        self._dest = dest
        self._mode = mode
        self._check = check or shared
        self._is_shared = shared
        self._candidates: list[LinkMode] = []
        self.modes_used: set[LinkMode] = set()
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def link_folders(self, tasks: list[_Task]) -> None:
        """Perform all tasks, in several threads if they are slow.

        Raise the first error after all threads have ended.
        """
        remaining = iter(tasks)
        count = _THREADS - 1 if self._is_slow(remaining) else 0
        workers = ThreadGroup(lambda: self._work(remaining), count, "wheelcache-unpack")
        workers.run(self._fail, in_caller=lambda: self._work(remaining))
        if self._error is not None:
            raise self._error

    def _is_slow(self, remaining: Iterator[_Task]) -> bool:
        """Perform the first tasks, and return whether threads would speed up the others."""
        clock = self._fs.system.monotonic
        start, done = clock(), 0
        for task in remaining:
            self._link_folder(*task)
            done += 1 + len(task.folder.names)
            if done >= _SAMPLE_FILES:
                return clock() - start > done * _SLOW_SECONDS
        return False

    def _work(self, remaining: Iterator[_Task]) -> None:
        try:
            while True:
                with self._lock:
                    task = next(remaining, None) if self._error is None else None
                if task is None:
                    return
                self._link_folder(*task)
        except BaseException as error:
            self._fail(error)
        finally:
            self._fs.close_folders()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
        self._token.cancel()

    def _link_folder(self, folder: ManifestDir, is_absent: bool, existing: frozenset[str]) -> None:
        source, target = join(self._root, folder.path), join(self._dest, folder.path)
        if is_absent:
            # This call also creates the parent folder, because another thread may not have created it yet.
            _make_folder(self._fs, target)
        if folder.names:
            self.link_files(folder, existing, source, target)

    def link_files(self, folder: ManifestDir, existing: frozenset[str], source: str, target: str) -> None:
        """Link the files of a folder that do not exist yet into the existing folder ``target``."""
        with self._open(source) as opened_source, self._open(target) as opened_target:
            unshareable = self._examine(opened_source, folder)
            pair = _FolderPair(source, target, opened_source, opened_target)
            self._link_each(folder, existing, unshareable, pair)

    def _examine(self, files: OpenFolder, folder: ManifestDir) -> Collection[int]:
        """Return the numbers of the files that may not be hard-linked.

        Raises:
            TreeRemovedError: if a file has changed, and the files must be compared with the manifest.
        """
        may_hardlink = self._fs.files.has_permissions and self._mode in {LinkMode.AUTO, LinkMode.HARDLINK}
        if not (self._check or may_hardlink):
            return ()
        changed, unshareable = examine(self._fs, files, folder)
        if changed and self._check:
            raise TreeRemovedError
        # A file without the recorded fingerprint may have another owner, too.
        return {*unshareable, *changed} if changed and may_hardlink else unshareable

    def _link_each(
        self, folder: ManifestDir, existing: frozenset[str], unshareable: Collection[int], pair: _FolderPair
    ) -> None:
        link, opened_target, check = pair.opened_source.link, pair.opened_target, self._fs.op.check
        candidates = self._candidates = self._candidates or self._destination.candidate_modes(self._mode)
        links_first = candidates[0] is LinkMode.HARDLINK and not self._is_shared
        protects_loaded_images = self._fs.files.protects_loaded_images and self._mode is LinkMode.AUTO
        is_linked = False
        for number, name in enumerate(folder.names):
            if name in existing:
                continue
            copies = number in unshareable or (protects_loaded_images and is_image(folder.kinds[number]))
            if links_first and not copies:
                # In a warm install, this one call links nearly every file.
                if not number % _FILES_PER_CHECK:
                    check()
                try:
                    link(name, opened_target)
                except OSError:
                    pass  # the link is retried below, with the handling of errors
                else:
                    is_linked = True
                    continue
            candidates = self._destination.candidate_modes(self._mode)
            if copies:
                candidates = [mode for mode in candidates if mode is not LinkMode.HARDLINK]
                if not candidates:
                    raise unshareable_error(os.path.join(pair.source, name), os.path.join(pair.target, name))
            file = _FileLink(self._fs, self._destination, folder, number, pair, shared=self._is_shared)
            self.modes_used.add(file.put(candidates))
            # A refusal may have removed modes from the list. Later folders use the new list, too.
            self._candidates = self._destination.candidate_modes(self._mode)
        if is_linked:
            self.modes_used.add(LinkMode.HARDLINK)

    def _open(self, path: str) -> OpenFolder:
        files = self._fs.files
        try:
            return files.open_folder(path)
        except OSError:
            pass  # the caller opens the folder again, with retries
        try:
            return self._fs.perform("open", path, lambda: files.open_folder(path))
        except OSError as error:
            if is_missing(error, path) and path.startswith(self._root):
                raise TreeRemovedError from error
            raise commit_error(error, "unpack", path) from error


class _FolderPair(NamedTuple):
    """A folder of a tree and the folder that its files are linked into, each as a path and opened."""

    source: str
    target: str
    opened_source: OpenFolder
    opened_target: OpenFolder


class _FileLink:
    """The linking of one file by the first mode that works."""

    def __init__(
        self,
        fs: RobustIO,
        destination: Destination,
        folder: ManifestDir,
        number: int,
        pair: _FolderPair,
        *,
        shared: bool,
    ) -> None:
        self._fs = fs
        self._is_shared = shared
        self._destination = destination
        self._folder = folder
        self._number = number
        self._name = folder.names[number]
        self._pair = pair
        self._source = os.path.join(pair.source, self._name)
        self._target = os.path.join(pair.target, self._name)

    def put(self, candidates: list[LinkMode]) -> LinkMode:
        """Link the file to its target, and return the mode that was used."""
        # Only the last mode may wait, since the earlier ones have an alternative.
        methods: list[Method] = [
            (mode, lambda mode=mode: self._put_by(mode, self._fs.without_waiting()))  # type: ignore[misc]
            for mode in candidates[:-1]
        ]
        methods.append((candidates[-1], lambda: self._put_by(candidates[-1], self._fs)))
        try:
            return LinkMode(self._destination.attempt(methods, self._target, self._on_refusal))
        except _ExistsError:
            same = check_same(self._fs, self._source, self._folder, self._number, self._target)
            return same or LinkMode.COPY
        except AllRefusedError as refused:
            mode, error = refused.refusals[-1]
            raise commit_error(error, f"link ({mode})", self._source, target=self._target) from error

    def _on_refusal(self, _: str, error: OSError, kind: ErrorKind) -> None:
        if kind is ErrorKind.EXISTS:
            raise _ExistsError from error
        if kind is ErrorKind.MISSING and self._fs.stat(self._source) is None:
            raise TreeRemovedError from error

    def _put_by(self, mode: LinkMode, fs: RobustIO) -> None:
        source, target = self._pair.opened_source, self._pair.opened_target
        if mode is LinkMode.HARDLINK:
            fs.perform("link", self._source, lambda: source.link(self._name, target), target=self._target)
            if self._is_shared:
                self._check_link(fs)
            return
        spare_file = spare_name(OwnerTag.new(fs.system.now(), fs.system.boot()))
        spare = os.path.join(self._pair.target, spare_file)
        permissions = _EXECUTABLE if is_executable(self._folder.kinds[self._number]) else _WRITABLE
        try:
            if mode is LinkMode.CLONE:
                fs.perform("clone", self._source, lambda: source.clone(self._name, target, spare_file, permissions))
            else:
                self._copy(fs, spare_file, spare, permissions)
            sha256 = self._folder.digest(self._number)
            if self._is_shared:
                self._check_copy(fs, spare, sha256)
            persist_noclobber(fs, spare, self._target, destination=self._destination, sha256=sha256)
        except BaseException:
            fs.discard(spare)
            raise

    def _check_link(self, fs: RobustIO) -> None:
        """Delete a new hard link if another user has put another file in place of the checked one.

        Raises:
            TreeRemovedError: if the link leads to another file.
        """
        stat = self._pair.opened_target.stat(self._name)
        folder, number = self._folder, self._number
        is_same = stat.st_size == folder.sizes[number] and stat.st_mtime_ns == folder.stamps[number]
        if not (is_same and modes.S_ISREG(stat.st_mode) and may_share(stat)):
            fs.discard(self._target)
            raise TreeRemovedError
        # Several files of a tree may have the same size and time stamp. An overlay file system may change the inode
        # when it creates the link.
        if stat.st_ino != folder.inodes[number]:
            try:
                self._check_copy(fs, self._target, folder.digest(number))
            except BaseException:
                fs.discard(self._target)
                raise

    def _check_copy(self, fs: RobustIO, spare: str, sha256: str) -> None:
        """Raise :class:`TreeRemovedError` if a copy of the file has other bytes, since others may have changed it."""
        hashes = hash_file(fs, spare, (), self._folder.sizes[self._number])
        if hashes is None or hashes["sha256"] != sha256:
            raise TreeRemovedError

    def _copy(self, fs: RobustIO, name: str, spare: str, permissions: int) -> None:
        target = self._pair.opened_target
        with (
            fs.perform("open", self._source, lambda: fs.files.open_read(self._source)) as reader,
            fs.perform("create", spare, lambda: target.create(name, permissions)) as writer,
        ):
            copy_contents(fs, reader, writer, size=self._folder.sizes[self._number])


class _ExistsError(Exception):
    """The target already exists."""


def _make_folder(fs: RobustIO, path: str) -> None:
    try:
        fs.files.mkdir(path)
    except OSError as error:
        if classify(error, path) is ErrorKind.EXISTS and fs.files.is_dir(path):
            return
        fs.make_folder(path)

"""Adapters for pypa/installer: a source that reads a tree in the cache, and a destination that links the tree's files.

installer is not a dependency, but users of these classes have it installed. Only methods that installer itself calls
import it. At run time, both classes implement the interfaces of installer without inheriting from them.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from ._cache import Cache, core_of
from ._fs.link import LinkStrategy
from ._fs.robustio import RobustIO
from ._fs.small import read_small
from ._imports import import_lock
from ._models import CachedWheel, LinkMode
from ._operation import Operation
from ._os.system import System
from ._store.layout import Layout
from ._unpack.link_tree import TreeLinker, TreeRemovedError
from ._unpack.manifest import ManifestDir, is_executable

if TYPE_CHECKING:
    from installer.destinations import SchemeDictionaryDestination, WheelDestination
    from installer.records import RecordEntry
    from installer.scripts import ScriptSection
    from installer.sources import WheelContentElement, WheelSource
    from installer.utils import Scheme
else:
    WheelSource = WheelDestination = object

_IO_TIMEOUT = 60.0


class _TreeStream(io.BufferedReader):
    """An open file of a tree with its location, so that the file can be linked instead of read.

    Attributes:
        root: the absolute path of the tree.
        folder: the files of the folder.
        number: the number of the file in this folder.
        never_hardlink_from: caches whose files are hard-linked only if the caller requests that mode.
        is_shared: whether other users can write to the tree.
        system: the operating system, with the file layer of the cache.
    """

    def __init__(
        self,
        raw: io.RawIOBase,
        root: str,
        folder: ManifestDir,
        number: int,
        *,
        never_hardlink_from: Sequence[Layout],
        is_shared: bool,
        system: System,
    ) -> None:
        super().__init__(raw)
        self.system = system
        self.never_hardlink_from = never_hardlink_from
        self.root = root
        self.folder = folder
        self.number = number
        self.is_shared = is_shared


class TreeSource(WheelSource):
    """A wheel in a cache as the source of an installation by pypa/installer.

    The files are read from the tree of the wheel. The tree is created if it does not exist. They were checked against
    ``RECORD`` when the tree was created. This class checks them against the marker of the tree, so installer need not
    validate them.

    Args:
        cache: the :class:`Cache` that contains the wheel. The cache must be writable or contain the tree.
        wheel: a wheel that this cache returned.

    Raises:
        TypeError: if ``cache`` is not a :class:`Cache`. An :class:`AsyncCache` cannot be used, since installer is
            synchronous.
        WheelCacheError: the errors of :meth:`Cache.unpack`.

    Example::

        destination = LinkDestination(SchemeDictionaryDestination(schemes, interpreter=python, script_kind="posix"))
        installer.install(TreeSource(cache, wheel), destination, {"INSTALLER": b"mine"})
    """

    def __init__(self, cache: Cache, wheel: CachedWheel) -> None:
        if not isinstance(cache, Cache):
            raise TypeError(f"TreeSource needs a Cache, not {type(cache).__name__}")
        distribution, version = wheel.filename.split("-")[:2]
        self.distribution: str = distribution
        self.version: str = version
        core = core_of(cache)
        # The file layer of the cache follows no link in its folder.
        self._fs = RobustIO(Operation(core.system, io_timeout=_IO_TIMEOUT))
        with core.begin(wheel.filename) as op:
            tree = core.unpacker.tree(op, wheel)
            self._is_shared = core.unpacker.is_shared(RobustIO(op))
        self._root = tree.folder
        self._never_hardlink_from = core.never_hardlink_from
        # The marker is not read again, since another user could have replaced it since the check.
        self._folders = tree.manifest.folders
        self._dist_info = tree.manifest.dist_info()

    @property
    def dist_info_dir(self) -> str:
        """The name of the ``.dist-info`` folder."""
        return self._dist_info

    @property
    def dist_info_filenames(self) -> list[str]:
        """The paths of the files in the ``.dist-info`` folder, relative to it."""
        names = [folder.relative(name) for folder in self._folders for name in folder.names]
        return [name.removeprefix(self._dist_info + "/") for name in names if name.startswith(self._dist_info + "/")]

    @property
    def data_dir(self) -> str:
        """The name of the ``.data`` folder. The folder may be missing."""
        return f"{self.distribution}-{self.version}.data"

    def read_dist_info(self, filename: str) -> str:
        """Return the text of a file in the ``.dist-info`` folder.

        Raises:
            KeyError: if the wheel has no such file.
            FileNotFoundError: if the tree was pruned.
        """
        relative = f"{self._dist_info}/{filename}"
        size = next(
            (
                size
                for folder in self._folders
                for name, size in zip(folder.names, folder.sizes, strict=True)
                if folder.relative(name) == relative
            ),
            None,
        )
        if size is None:
            raise KeyError(filename)
        path = os.path.join(self._root, *relative.split("/"))
        data = read_small(self._fs, path, size)
        if data is None:
            raise FileNotFoundError(errno.ENOENT, "the unpacked wheel was pruned and must be unpacked again", path)
        return data.decode("utf-8")

    def validate_record(self, *, validate_contents: bool = True) -> None:
        """Do nothing, because every file was checked against ``RECORD`` when the tree was created."""

    def get_contents(self) -> Iterator[WheelContentElement]:
        """Yield each file: its row of ``RECORD``, a stream, and whether it is executable."""
        for folder in self._folders:
            for number, name in enumerate(folder.names):
                relative = folder.relative(name)
                path = os.path.join(self._root, *relative.split("/"))
                row = (relative, f"sha256={_urlsafe(folder.digest(number))}", str(folder.sizes[number]))
                if relative == f"{self._dist_info}/RECORD":
                    row = (relative, "", "")
                with self._fs.perform("open", path, lambda path=path: self._fs.files.open_read(path)) as raw:  # type: ignore[misc]
                    # Until the end of the block, only the file is open. Another thread may continue.
                    self._fs.close_folders()
                    stream = _TreeStream(
                        raw,  # type: ignore[arg-type]
                        self._root,
                        folder,
                        number,
                        never_hardlink_from=self._never_hardlink_from,
                        is_shared=self._is_shared,
                        system=self._fs.system,
                    )
                    yield row, stream, is_executable(folder.kinds[number])


class LinkDestination(WheelDestination):
    """A destination for pypa/installer that links the files of a :class:`TreeSource` into place.

    The inner destination writes ``RECORD``, byte code, files of other sources, and scripts. The first line of a script
    changes. An existing file with the same bytes is accepted.

    Args:
        inner: the inner destination. Its ``overwrite_existing`` applies to linked files too.
        mode: as for :meth:`Cache.unpack`.
        io_timeout: the seconds that contended file operations may wait in total.
    """

    def __init__(
        self, inner: SchemeDictionaryDestination, *, mode: LinkMode | str = LinkMode.AUTO, io_timeout: float = 60.0
    ) -> None:
        self._inner = inner
        self._mode = LinkMode(mode)
        self._io_timeout = io_timeout
        self._fs = RobustIO(Operation(System(), io_timeout=io_timeout))
        # The list is set for each file, since one destination may receive files of several sources, one after another.
        self._never_hardlink_from: list[Layout] = []
        self._linker = TreeLinker(LinkStrategy(self._never_hardlink_from))

    def write_script(self, name: str, module: str, attr: str, section: ScriptSection) -> RecordEntry:
        """Write a script for an entry point."""
        return self._inner.write_script(name, module, attr, section)

    def write_file(
        self, scheme: Scheme, path: str | os.PathLike[str], stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        """Link or write one file.

        Raises:
            FileExistsError: if the target exists with other bytes.
            CommitError: if a file operation is refused.
        """
        linkable = isinstance(stream, _TreeStream) and scheme != "scripts" and self._inner.hash_algorithm == "sha256"
        if not linkable:
            return self._inner.write_file(scheme, path, stream, is_executable)
        with import_lock:
            from installer.records import Hash, RecordEntry

        assert isinstance(stream, _TreeStream)
        relative = os.fspath(path)
        self._link(stream, self._target(scheme, relative))
        digest = _urlsafe(stream.folder.digest(stream.number))
        return RecordEntry(relative, Hash("sha256", digest), stream.folder.sizes[stream.number])

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        """Let the inner destination write ``RECORD`` and compile byte code."""
        self._inner.finalize_installation(scheme, record_file_path, records)

    def _target(self, scheme: Scheme, relative: str) -> str:
        target = os.path.abspath(os.path.join(self._inner.scheme_dict[scheme], relative))
        if self._inner.destdir is None:
            return target
        return os.path.join(os.path.abspath(self._inner.destdir), os.path.splitdrive(target)[1].lstrip("\\/"))

    def _link(self, stream: _TreeStream, target: str) -> None:
        self._never_hardlink_from[:] = stream.never_hardlink_from
        if stream.system is not self._fs.system:
            self._fs = RobustIO(Operation(stream.system, io_timeout=self._io_timeout))

        def put() -> None:
            self._linker.link_file(
                self._fs,
                stream.root,
                stream.folder,
                stream.number,
                target=target,
                mode=self._mode,
                shared=stream.is_shared,
            )

        try:
            try:
                put()
            except FileExistsError:
                if not self._inner.overwrite_existing or not self._fs.discard(target):
                    raise
                put()
        except TreeRemovedError as error:
            raise _gone_error(stream.root) from error
        finally:
            self._fs.close_folders()


def _gone_error(root: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "the unpacked wheel was pruned and must be unpacked again", root)


def _urlsafe(digest: str) -> str:
    with import_lock:  # only installations need base64
        import base64

    return base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode("ascii")

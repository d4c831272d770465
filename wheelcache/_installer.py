"""The adapter for pypa/installer: a source that reads from the tree in the cache, a destination that links out of it.

installer is no dependency: who calls it has it. So nothing of it is imported here but in the calls that it makes, and
both classes are what it asks for without being derived from its own when they run.
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
from ._models import CachedWheel, LinkMode
from ._operation import Operation
from ._os.system import System
from ._store.layout import Layout, marker_path
from ._unpack.link_tree import TreeLinker
from ._unpack.manifest import ManifestDir, decode_marker, is_executable

if TYPE_CHECKING:
    from installer.destinations import SchemeDictionaryDestination, WheelDestination
    from installer.records import RecordEntry
    from installer.scripts import ScriptSection
    from installer.sources import WheelContentElement, WheelSource
    from installer.utils import Scheme
else:
    WheelSource = WheelDestination = object


class _TreeStream(io.BufferedReader):
    """A file of a tree that knows where it is, so that it can be linked instead of read.

    ``untouched`` are the caches whose files get no second name unless that is asked for.
    """

    def __init__(
        self, raw: io.RawIOBase, root: str, folder: ManifestDir, number: int, never_hardlink_from: Sequence[Layout] = ()
    ) -> None:
        super().__init__(raw)
        self.never_hardlink_from = never_hardlink_from
        self.root = root
        self.folder = folder
        self.number = number


class TreeSource(WheelSource):
    """A wheel of a cache as the source of an installation by pypa/installer, which reads from the unpacked tree.

    The tree is made where it is not there. Contents were checked against ``RECORD`` then, and against the tree's marker
    now, so there is nothing left to validate.

    Args:
        cache: the :class:`Cache` where the wheel is; it must not be read-only, unless it has the tree.
        wheel: one that this cache gave.

    Raises:
        TypeError: where ``cache`` is no :class:`Cache`: installer awaits nothing.
        WheelCacheError: as :meth:`Cache.unpack`.

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
        self._fs = _new_fs()
        self._root = str(cache.unpack(wheel).path)
        self._never_hardlink_from = core_of(cache).never_hardlink_from
        data = self._fs.read(marker_path(self._root))
        listing = None if data is None else decode_marker(data)
        if listing is None:
            raise FileNotFoundError(errno.ENOENT, "the unpacked wheel was pruned at once: try again", self._root)
        self._folders = listing.folders
        self._dist_info = listing.dist_info()

    @property
    def dist_info_dir(self) -> str:
        """The name of the ``.dist-info`` folder."""
        return self._dist_info

    @property
    def dist_info_filenames(self) -> list[str]:
        """The names of the files in it, relative to it."""
        names = [folder.relative(name) for folder in self._folders for name in folder.names]
        return [name.removeprefix(self._dist_info + "/") for name in names if name.startswith(self._dist_info + "/")]

    @property
    def data_dir(self) -> str:
        """The name of the ``.data`` folder, whether there is one or not."""
        return f"{self.distribution}-{self.version}.data"

    def read_dist_info(self, filename: str) -> str:
        """Return the text of a file in the ``.dist-info`` folder."""
        path = os.path.join(self._root, self._dist_info, *filename.split("/"))
        data = self._fs.read(path)
        if data is None and filename in self.dist_info_filenames:
            raise FileNotFoundError(errno.ENOENT, "the unpacked wheel was pruned meanwhile: make it again", path)
        if data is None:
            raise KeyError(filename)
        return data.decode("utf-8")

    def validate_record(self, *, validate_contents: bool = True) -> None:
        """Do nothing: every file was checked against ``RECORD`` when the tree was made, whatever is asked for now."""

    def get_contents(self) -> Iterator[WheelContentElement]:
        """Yield every file: what ``RECORD`` says of it, a stream, and whether it is executable."""
        for folder in self._folders:
            for number, name in enumerate(folder.names):
                relative = folder.relative(name)
                path = os.path.join(self._root, *relative.split("/"))
                row = (relative, f"sha256={_urlsafe(folder.digest(number))}", str(folder.sizes[number]))
                if relative == f"{self._dist_info}/RECORD":
                    row = (relative, "", "")
                with self._fs.perform("open", path, lambda path=path: self._fs.files.open_read(path)) as raw:  # type: ignore[misc]
                    stream = _TreeStream(raw, self._root, folder, number, self._never_hardlink_from)  # type: ignore[arg-type]
                    yield row, stream, is_executable(folder.kinds[number])


class LinkDestination(WheelDestination):
    """A destination of pypa/installer's that links the files of a :class:`TreeSource` into place.

    Scripts, whose first line is rewritten, ``RECORD`` and bytecode are the business of the destination that it is put
    in front of; so is every file that comes from another source. A file that is there with the same bytes is fine.

    Args:
        inner: where to, and how scripts are made. ``overwrite_existing`` holds for linked files too.
        mode: as for :meth:`Cache.unpack`.
        io_timeout: seconds that refused file operations may wait in all.
    """

    def __init__(
        self, inner: SchemeDictionaryDestination, *, mode: LinkMode | str = LinkMode.AUTO, io_timeout: float = 60.0
    ) -> None:
        self._inner = inner
        self._mode = LinkMode(mode)
        self._fs = _new_fs(io_timeout)
        # Those of the source whose file it is; one destination may be given several sources, one after the other.
        self._never_hardlink_from: list[Layout] = []
        self._spread = TreeLinker(LinkStrategy(self._never_hardlink_from))

    def write_script(self, name: str, module: str, attr: str, section: ScriptSection) -> RecordEntry:
        """Write a script for an entry point."""
        return self._inner.write_script(name, module, attr, section)

    def write_file(
        self, scheme: Scheme, path: str | os.PathLike[str], stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        """Put one file in its place.

        Raises:
            FileExistsError: where a file is there with other bytes.
            CommitError: where the file system refuses.
        """
        linkable = isinstance(stream, _TreeStream) and scheme != "scripts" and self._inner.hash_algorithm == "sha256"
        if not linkable:
            return self._inner.write_file(scheme, path, stream, is_executable)
        from installer.records import Hash, RecordEntry

        assert isinstance(stream, _TreeStream)
        relative = os.fspath(path)
        self._link(stream, self._target(scheme, relative))
        digest = _urlsafe(stream.folder.digest(stream.number))
        return RecordEntry(relative, Hash("sha256", digest), stream.folder.sizes[stream.number])

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        """Write ``RECORD`` and compile, as the inner destination does."""
        self._inner.finalize_installation(scheme, record_file_path, records)

    def _target(self, scheme: Scheme, relative: str) -> str:
        target = os.path.abspath(os.path.join(self._inner.scheme_dict[scheme], relative))
        if self._inner.destdir is None:
            return target
        return os.path.join(os.path.abspath(self._inner.destdir), os.path.splitdrive(target)[1].lstrip("\\/"))

    def _link(self, stream: _TreeStream, target: str) -> None:
        self._never_hardlink_from[:] = stream.never_hardlink_from

        def put() -> None:
            self._spread.link_file(self._fs, stream.root, stream.folder, stream.number, target=target, mode=self._mode)

        try:
            put()
        except FileExistsError:
            if not self._inner.overwrite_existing or not self._fs.discard(target):
                raise
            put()


def _new_fs(io_timeout: float = 60.0) -> RobustIO:
    return RobustIO(Operation(System(), io_timeout=io_timeout))


def _urlsafe(digest: str) -> str:
    import base64  # only who installs has a use for it

    return base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode("ascii")

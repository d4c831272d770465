"""The file system of one operation. Its calls first check whether the operation was cancelled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

from .._operation import Operation
from .._os.confined.entries import FolderEntry
from .._os.files import FileSystem, OpenFolder


class CancellableFiles:
    """A :class:`FileSystem` whose calls raise :class:`OperationCancelledError` if the operation was cancelled.

    The methods of an open folder do not check. Loops over its files check the operation themselves.
    """

    __slots__ = ("_check", "_files")

    def __init__(self, op: Operation) -> None:
        self._files = op.system.files
        self._check = op.check

    @property
    def has_permissions(self) -> bool:
        return self._files.has_permissions

    @property
    def protects_loaded_images(self) -> bool:
        return self._files.protects_loaded_images

    def confined_to(self, folder: str, layers: Sequence[str] = ()) -> FileSystem:
        self._check()
        return self._files.confined_to(folder, layers)

    def close_folders(self) -> None:
        self._files.close_folders()

    def create(self, path: str) -> BinaryIO:
        self._check()
        return self._files.create(path)

    def open_read(self, path: str) -> BinaryIO:
        self._check()
        return self._files.open_read(path)

    def open_write(self, path: str) -> BinaryIO:
        self._check()
        return self._files.open_write(path)

    def open_append(self, path: str) -> BinaryIO:
        self._check()
        return self._files.open_append(path)

    def flush(self, path: str) -> None:
        self._check()
        self._files.flush(path)

    def read_small(self, path: str, limit: int) -> bytes:
        self._check()
        return self._files.read_small(path, limit)

    def read_small_with_mtime(self, path: str, limit: int) -> tuple[bytes, float]:
        self._check()
        return self._files.read_small_with_mtime(path, limit)

    def touch(self, path: str, seconds: float) -> None:
        self._check()
        self._files.touch(path, seconds)

    def stat(self, path: str) -> os.stat_result:
        self._check()
        return self._files.stat(path)

    def change_time(self, path: str) -> int:
        self._check()
        return self._files.change_time(path)

    def volume_id(self, path: str) -> int | None:
        self._check()
        return self._files.volume_id(path)

    def is_dir(self, path: str) -> bool:
        self._check()
        return self._files.is_dir(path)

    def scan(self, path: str) -> list[FolderEntry]:
        self._check()
        return self._files.scan(path)

    def open_folder(self, path: str) -> OpenFolder:
        self._check()
        return self._files.open_folder(path)

    def rename(self, source: str, target: str) -> None:
        self._check()
        self._files.rename(source, target)

    def replace(self, source: str, target: str) -> None:
        self._check()
        self._files.replace(source, target)

    def link(self, source: str, target: str) -> None:
        self._check()
        self._files.link(source, target)

    def clone(self, source: str, target: str) -> None:
        self._check()
        self._files.clone(source, target)

    def copy(self, source: BinaryIO, target: BinaryIO, count: int) -> int:
        self._check()
        return self._files.copy(source, target, count)

    def copy_permissions(self, source: BinaryIO, target: BinaryIO) -> None:
        self._check()
        self._files.copy_permissions(source, target)

    def make_read_only(self, path: str, *, executable: bool) -> None:
        self._check()
        self._files.make_read_only(path, executable=executable)

    def unlink(self, path: str) -> None:
        self._check()
        self._files.unlink(path)

    def mkdir(self, path: str) -> None:
        self._check()
        self._files.mkdir(path)

    def rmdir(self, path: str) -> None:
        self._check()
        self._files.rmdir(path)

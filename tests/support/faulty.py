"""A file layer that records, refuses or ends the process at a chosen call.

It implements the contract of :mod:`wheelcache._os.files` around the real file layer, and receives every call of the
library, including those on open files. The plan decides the effect of each call.
"""

from __future__ import annotations

import errno
import fnmatch
import itertools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from wheelcache._os.confined.entries import FolderEntry
from wheelcache._os.files import FileSystem, native

Code = str | int
"""The name of an errno (``"EACCES"``), or the number of a Windows error (``32``)."""

# The errno to which the C library of Windows maps each error code, unless it is EINVAL.
_ERRNO_OF_WINERROR = {
    2: errno.ENOENT,
    3: errno.ENOENT,
    4: errno.EMFILE,
    5: errno.EACCES,
    17: errno.EXDEV,
    32: errno.EACCES,
    33: errno.EACCES,
    80: errno.EEXIST,
    112: errno.ENOSPC,
    183: errno.EEXIST,
}


def os_error(code: Code, path: str = "", target: str | None = None) -> OSError:
    """Return the error that the system would raise. A number is a Windows code, on other systems too."""
    if isinstance(code, str):
        number = getattr(errno, code)
        return OSError(number, os.strerror(number), path, None, target)
    text = f"Windows error {code}"
    if sys.platform == "win32":
        return OSError(None, text, path, code, target)
    number = _ERRNO_OF_WINERROR.get(code, errno.EINVAL)
    kind = type(OSError(number, text))
    error = type(kind.__name__, (kind,), {"winerror": code})(number, text, path, None, target)
    assert isinstance(error, OSError)
    return error


def code_text(code: Code) -> str:
    """Return the code in the form that wheelcache's errors use."""
    return f"errno {getattr(errno, code)}" if isinstance(code, str) else f"winerror {code}"


@dataclass(frozen=True)
class FileCall:
    """One call of the file layer.

    Attributes:
        number: its position in the order of calls, from 1.
        operation: the method's name; ``file.write`` and so on for a method of an open file.
        path: the path that it is called with.
        target: the second path, if any.
        half: does half of the work, if the operation can be divided: a write, a copy, a clone.
    """

    number: int
    operation: str
    path: str
    target: str = ""
    half: Callable[[], object] | None = field(default=None, compare=False, repr=False)


class Plan:
    """Decides the effect of each call. This one has no effect."""

    def before(self, call: FileCall) -> None:
        """Called before the call, which is not made if this method raises."""

    def after(self, call: FileCall) -> None:
        """Called after the call."""


class FailNth(Plan):
    """Refuse the Nth call, and with ``forever`` all later ones.

    A refused write has written half of its data, as on a volume that becomes full.

    Attributes:
        met: whether there was such a call.
        hit: the calls that were refused.
    """

    def __init__(self, number: int, code: Code, *, forever: bool = False) -> None:
        self.number = number
        self.code = code
        self.forever = forever
        self.met = False
        self.hit: list[FileCall] = []

    def before(self, call: FileCall) -> None:
        self.met = self.met or call.number == self.number
        if self.code == 2 and call.operation.startswith("file."):
            return  # no system reports an open file as missing
        if call.number == self.number or (self.forever and call.number > self.number):
            self.hit.append(call)
            if call.operation in {"file.write", "copy"}:
                call.half()
            raise os_error(self.code, call.path, call.target or None)


@dataclass
class Refuse:
    """Refuse the calls of some operations on some paths: the first ``times`` of them, or all.

    Attributes:
        operations: the names of the operations; ``*`` means any.
        code: the code of the error.
        path: a pattern for the path, or for the second one if any.
        times: the number of refusals; ``None`` means all calls.
        count: the number of refusals so far.
    """

    operations: str
    code: Code
    path: str = "*"
    times: int | None = None
    count: int = 0

    def wants(self, call: FileCall) -> bool:
        return (
            (self.times is None or self.count < self.times)
            and any(fnmatch.fnmatchcase(call.operation, name) for name in self.operations.split())
            and any(fnmatch.fnmatch(path, self.path) for path in (call.path, call.target) if path)
        )


class Refusing(Plan):
    """Refuse the calls that match one of the rules."""

    def __init__(self, *rules: Refuse) -> None:
        self.rules = rules

    def before(self, call: FileCall) -> None:
        for rule in self.rules:
            if rule.wants(call):
                rule.count += 1
                raise os_error(rule.code, call.path, call.target or None)


class Doing(Plan):
    """Run an action once, before the first call of an operation on a path, or with ``after`` behind it."""

    def __init__(self, operation: str, action: Callable[[FileCall], object], *, path: str = "*", after: bool = False):
        self.operation = operation
        self.action = action
        self.path = path
        self.behind = after
        self.done = False

    def _meet(self, call: FileCall) -> None:
        if self.done or call.operation != self.operation:
            return
        if any(fnmatch.fnmatch(path, self.path) for path in (call.path, call.target) if path):
            self.done = True
            self.action(call)

    def before(self, call: FileCall) -> None:
        if not self.behind:
            self._meet(call)

    def after(self, call: FileCall) -> None:
        if self.behind:
            self._meet(call)


class Both(Plan):
    """Combine several plans, applied in order."""

    def __init__(self, *plans: Plan) -> None:
        self.plans = plans

    def before(self, call: FileCall) -> None:
        for plan in self.plans:
            plan.before(call)

    def after(self, call: FileCall) -> None:
        for plan in self.plans:
            plan.after(call)


class RenumberingFiles:
    """A file layer like FAT's: a renamed file gets another number. Belongs below :class:`FaultyFiles`."""

    def __init__(self, inner: FileSystem | None = None) -> None:
        self._inner = inner or native()
        self._renamed: dict[str, int] = {}

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def confined_to(self, folder: str, layers: Sequence[str] = ()) -> RenumberingFiles:
        self._inner = self._inner.confined_to(folder, layers)
        return self

    def rename(self, source: str, target: str) -> None:
        self._inner.rename(source, target)
        self._renamed[target] = self._renamed.pop(source, 0) + 1

    def stat(self, path: str) -> os.stat_result:
        stat = self._inner.stat(path)
        # As on Windows: fields that have only names are kept.
        fields, named = stat.__reduce__()[1]
        return os.stat_result((fields[0], stat.st_ino + self._renamed.get(path, 0), *fields[2:]), named)


class Dead(BaseException):
    """The process has ended. Not an ``Exception``, so that no error handler catches it."""


MOMENTS = ("before", "half", "after")


class Die(Plan):
    """End the process at the Nth call: before it, halfway through it, or after it.

    ``kill`` ends it. By default, the end is simulated: from then on every call raises :class:`Dead`, so that no cleanup
    has an effect that a killed process could not have had.
    """

    def __init__(self, number: int, moment: str, kill: Callable[[], None] | None = None) -> None:
        self.number = number
        self.moment = moment
        self.kill = kill
        self.hit: FileCall | None = None

    def _end(self, call: FileCall) -> None:
        self.hit = self.hit or call
        if self.kill is not None:
            self.kill()
        raise Dead

    def before(self, call: FileCall) -> None:
        if self.hit is not None:
            raise Dead
        if call.number == self.number and self.moment != "after":
            if self.moment == "half" and call.half is not None:
                call.half()
            self._end(call)

    def after(self, call: FileCall) -> None:
        if call.number == self.number and self.moment == "after":
            self._end(call)


class FaultyHandle:
    """An open file whose calls follow the plan."""

    def __init__(self, files: FaultyFiles, inner, path: str) -> None:
        self._files = files
        self.inner = inner
        self.path = path
        files.open_handles.add(self)

    def fileno(self) -> int:
        return self.inner.fileno()

    def tell(self) -> int:
        return self.inner.tell()

    @property
    def closed(self) -> bool:
        return self.inner.closed

    def read(self, size: int = -1) -> bytes:
        return self._files.perform("file.read", self.path, lambda: self.inner.read(size))

    def write(self, data) -> int:
        view = memoryview(data)

        def half() -> None:
            self.inner.write(view[: len(view) // 2])

        return self._files.perform("file.write", self.path, lambda: self.inner.write(view), half=half)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._files.perform("file.seek", self.path, lambda: self.inner.seek(offset, whence))

    def truncate(self, size: int | None = None) -> int:
        return self._files.perform("file.truncate", self.path, lambda: self.inner.truncate(size))

    def flush(self) -> None:
        self.inner.flush()

    def close(self) -> None:
        """Close the file, even if the plan refuses the call, as on Linux. A second close does nothing."""
        if self.inner.closed:
            return
        try:
            self._files.perform("file.close", self.path, self._close)
        finally:
            self._close()

    def _close(self) -> None:
        self.inner.close()
        self._files.open_handles.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FaultyFolder:
    """An open folder whose calls follow the plan."""

    def __init__(self, files: FaultyFiles, inner, path: str) -> None:
        self._files = files
        self.inner = inner
        self.path = path
        files.open_handles.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self in self._files.open_handles:
            self._files.open_handles.discard(self)
            self.inner.__exit__(None, None, None)

    def _of(self, name: str) -> str:
        return os.path.join(self.path, name)

    def create(self, name: str, permissions: int) -> FaultyHandle:
        return self._files._opened("create", self._of(name), lambda _: self.inner.create(name, permissions))

    def stat(self, name: str) -> os.stat_result:
        return self._files.perform("stat", self._of(name), lambda: self.inner.stat(name))

    def link(self, name: str, target: FaultyFolder) -> None:
        self._files.perform(
            "link", self._of(name), lambda: self.inner.link(name, target.inner), target=target._of(name)
        )

    def clone(self, name: str, target: FaultyFolder, new: str, permissions: int) -> None:
        self._files.perform(
            "clone",
            self._of(name),
            lambda: self.inner.clone(name, target.inner, new, permissions),
            target=target._of(new),
        )


class FaultyFiles:
    """A file layer whose calls follow a plan.

    Attributes:
        plan: the plan, which can be replaced at any time.
        trace: the calls so far.
        open_handles: the files that were opened and not closed.
        volumes: simulated volumes, by the name of a folder.
    """

    def __init__(self, plan: Plan | None = None, inner: FileSystem | None = None) -> None:
        self.inner = inner or native()
        self.plan = plan or Plan()
        self.trace: list[FileCall] = []
        self.open_handles: set[FaultyHandle | FaultyFolder] = set()
        self.volumes: dict[str, int | None] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def perform(self, operation: str, path: str, action, *, target: str = "", half=None):
        with self._lock:
            call = FileCall(next(self._numbers), operation, path, target, half)
            self.trace.append(call)
        self.plan.before(call)
        result = action()
        self.plan.after(call)
        return result

    def count(self, operations: str = "*", path: str = "*") -> int:
        """Return the number of calls of these operations on matching paths."""
        rule = Refuse(operations, 0, path)
        return sum(rule.wants(call) for call in self.trace)

    def close_all(self) -> None:
        """Close the files that a dead process had open, as its system would."""
        for handle in list(self.open_handles):
            handle._close()

    def _opened(self, operation: str, path: str, action) -> FaultyHandle:
        opened = []

        def open_it() -> FaultyHandle:
            opened.append(FaultyHandle(self, action(path), path))
            return opened[0]

        try:
            return self.perform(operation, path, open_it)
        except Exception:
            # If the plan fails after the call, the caller has no file that it could close.
            for handle in opened:
                handle._close()
            raise

    def confined_to(self, folder: str, layers: Sequence[str] = ()) -> FaultyFiles:
        self.inner = self.perform("confined_to", folder, lambda: self.inner.confined_to(folder, layers))
        return self

    def close_folders(self) -> None:
        # This call cannot fail on any system, so no plan refuses it.
        self.inner.close_folders()

    def create(self, path: str) -> FaultyHandle:
        return self._opened("create", path, self.inner.create)

    def open_read(self, path: str) -> FaultyHandle:
        return self._opened("open_read", path, self.inner.open_read)

    def open_write(self, path: str) -> FaultyHandle:
        return self._opened("open_write", path, self.inner.open_write)

    def open_append(self, path: str) -> FaultyHandle:
        return self._opened("open_append", path, self.inner.open_append)

    def read_small(self, path: str, limit: int) -> bytes:
        return self.perform("read_small", path, lambda: self.inner.read_small(path, limit))

    def read_small_with_mtime(self, path: str, limit: int) -> tuple[bytes, float]:
        return self.perform("read_small_with_mtime", path, lambda: self.inner.read_small_with_mtime(path, limit))

    def touch(self, path: str, seconds: float) -> None:
        self.perform("touch", path, lambda: self.inner.touch(path, seconds))

    def stat(self, path: str) -> os.stat_result:
        return self.perform("stat", path, lambda: self.inner.stat(path))

    def flush(self, path: str) -> None:
        self.perform("flush", path, lambda: self.inner.flush(path))

    def change_time(self, path: str) -> int:
        return self.perform("change_time", path, lambda: self.inner.change_time(path))

    def volume_id(self, path: str) -> int | None:
        number = self.perform("volume_id", path, lambda: self.inner.volume_id(path))
        return self.volumes.get(os.path.basename(path), number)

    def is_dir(self, path: str) -> bool:
        # This call cannot fail on any system, so no plan refuses it.
        return self.inner.is_dir(path)

    def scan(self, path: str) -> list[FolderEntry]:
        return self.perform("scan", path, lambda: self.inner.scan(path))

    @property
    def has_permissions(self) -> bool:
        return self.inner.has_permissions

    @property
    def protects_loaded_images(self) -> bool:
        return self.inner.protects_loaded_images

    def open_folder(self, path: str) -> FaultyFolder:
        return self.perform("open_folder", path, lambda: FaultyFolder(self, self.inner.open_folder(path), path))

    def copy_permissions(self, source: FaultyHandle, target: FaultyHandle) -> None:
        self.perform("copy_permissions", source.path, lambda: self.inner.copy_permissions(source.inner, target.inner))

    def make_read_only(self, path: str, *, executable: bool) -> None:
        self.perform("make_read_only", path, lambda: self.inner.make_read_only(path, executable=executable))

    def rename(self, source: str, target: str) -> None:
        assert not os.path.isdir(source), (
            f"a folder is renamed, which Windows refuses while anything is open in it: {source}"
        )
        self.perform("rename", source, lambda: self.inner.rename(source, target), target=target)

    def replace(self, source: str, target: str) -> None:
        assert not target.endswith(".whl"), f"a blob is replaced, which is never allowed: {target}"
        self.perform("replace", source, lambda: self.inner.replace(source, target), target=target)

    def link(self, source: str, target: str) -> None:
        self.perform("link", source, lambda: self.inner.link(source, target), target=target)

    def clone(self, source: str, target: str) -> None:
        def half() -> None:
            self.inner.create(target).close()  # as cloning begins on Linux

        self.perform("clone", source, lambda: self.inner.clone(source, target), target=target, half=half)

    def copy(self, source: FaultyHandle, target: FaultyHandle, count: int) -> int:
        def half() -> None:
            size = os.fstat(source.fileno()).st_size - source.tell()
            self.inner.copy(source.inner, target.inner, size // 2)

        return self.perform(
            "copy",
            source.path,
            lambda: self.inner.copy(source.inner, target.inner, count),
            target=target.path,
            half=half,
        )

    def unlink(self, path: str) -> None:
        self.perform("unlink", path, lambda: self.inner.unlink(path))

    def mkdir(self, path: str) -> None:
        self.perform("mkdir", path, lambda: self.inner.mkdir(path))

    def rmdir(self, path: str) -> None:
        self.perform("rmdir", path, lambda: self.inner.rmdir(path))

"""Copy local files into a store, for ``put`` and for ``file:`` URLs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from .._exceptions import DownloadError, InvalidWheelError
from .._fs.inputs import open_input, size_of
from .._fs.robustio import RobustIO
from .._models import Phase
from .._operation import Operation
from .._request import ResolvedRequest
from .._store.staging import StagedFile

_CHUNK = 1 << 20


@contextmanager
def open_source(op: Operation, source: str | os.PathLike[str] | BinaryIO) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open a source, and yield it with its size in bytes, or with ``None`` if the size is unknown.

    A file object is yielded unchanged. It is not closed.

    Raises:
        TypeError: if the source is neither a path nor a file object.
        OSError: if the file cannot be opened.
    """
    if isinstance(source, str | os.PathLike):
        with open_input(op, source) as file:
            yield file, size_of(file)
    elif hasattr(source, "read"):
        yield source, None
    else:
        raise TypeError(f"source must be a path or a file that is open for reading, not {type(source).__name__}")


def absolute_path(source: object) -> str | None:
    """Return the absolute path of a source, or ``None`` for a file object without a path."""
    path = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    return os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else None


def copy_to_stage(
    stage: StagedFile,
    source: BinaryIO,
    fs: RobustIO,
    total: int | None,
    *,
    max_bytes: int | None,
    path: str | None = None,
) -> None:
    """Copy a file object, from its position to its end, into a staged file.

    Args:
        stage: the staged file.
        source: the file object.
        fs: the file system of the operation.
        total: the size of the source in bytes, or ``None`` if it is unknown.
        max_bytes: the maximum number of bytes of a source of unknown size, or ``None`` for no limit.
        path: the absolute path of the source, for the error.

    Raises:
        InvalidWheelError: if the source has more bytes than the limit.
        TypeError: if the file is open in text mode.
    """
    # A file may also grow while it is read.
    limit = None if max_bytes is None else max(max_bytes, total or 0)
    while chunk := source.read(_CHUNK):
        if isinstance(chunk, str):
            raise TypeError("the file must be open in binary mode, as with open(path, 'rb'), and not in text mode")
        if limit is not None and stage.written + len(chunk) > limit:
            raise InvalidWheelError(
                f"the source has more than {limit} bytes, the limit for a source of unknown size",
                operation="read",
                path=path,
                advice="If the wheel is really this large, raise the limit with limits=DownloadLimits(max_bytes=...).",
            )
        stage.write(chunk)
        fs.op.report(Phase.DOWNLOADING, stage.written, total)


def fetch_file_url(stage: StagedFile, request: ResolvedRequest, fs: RobustIO, max_bytes: int | None) -> None:
    """Copy the file of a ``file:`` URL into a staged file.

    Raises:
        InvalidWheelError: as for :func:`copy_to_stage`, unless the request has a size.
        DownloadError: if the file cannot be read. The ``__cause__`` is the error of the operating system.
    """
    parts = urlsplit(request.url)
    host = "" if parts.netloc == "localhost" else parts.netloc
    path = url2pathname(f"//{host}{parts.path}" if host else parts.path)
    try:
        with open_input(fs.op, path) as source:
            limit = max_bytes if request.size is None else None
            copy_to_stage(stage, source, fs, size_of(source), max_bytes=limit, path=path)
    except OSError as error:
        if isinstance(error, DownloadError) or error.filename != path:
            raise
        raise DownloadError(
            error.strerror or str(error), operation="read", url=request.display_url, path=path, advice="Check the path."
        ) from error

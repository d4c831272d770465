"""Local files on their way in: what ``put`` is given, and what a ``file:`` URL names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import urlsplit

from .._exceptions import DownloadError
from .._fs.robustio import RobustIO
from .._models import Phase
from .._request import ResolvedRequest
from .._store.staging import StagedFile

_CHUNK = 1 << 20


@contextmanager
def opened(source: str | os.PathLike[str] | BinaryIO) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open a source that is a path; one that is open stays open. With it comes its size in bytes, where it is known."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb", buffering=0) as file:
            yield file, os.fstat(file.fileno()).st_size
    elif hasattr(source, "read"):
        yield source, None
    else:
        raise TypeError(f"a source is a path or a file that is open for reading, not {type(source).__name__}")


def path_of(source: object) -> str | None:
    """Return the absolute path of a source, ``None`` where an open file has none."""
    path = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    return os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else None


def copy_in(stage: StagedFile, source: BinaryIO, fs: RobustIO, total: int | None) -> None:
    """Write what is left of an open file into a stage."""
    while chunk := source.read(_CHUNK):
        if isinstance(chunk, str):
            raise TypeError("this file is open for text: open it in binary, as by open(path, 'rb')")
        stage.write(chunk)
        fs.op.report(Phase.DOWNLOADING, stage.written, total)


def fill(stage: StagedFile, request: ResolvedRequest, fs: RobustIO) -> None:
    """Write the file of a ``file:`` URL into a stage.

    Raises:
        DownloadError: where it cannot be read, with the reason as its cause.
    """
    # It pulls in all of http.client, which nothing else here needs.
    from urllib.request import url2pathname

    parts = urlsplit(request.url)
    host = "" if parts.netloc == "localhost" else parts.netloc
    path = url2pathname(f"//{host}{parts.path}" if host else parts.path)
    try:
        with open(path, "rb", buffering=0) as source:
            copy_in(stage, source, fs, os.fstat(source.fileno()).st_size)
    except OSError as error:
        if isinstance(error, DownloadError) or error.filename != path:
            raise
        raise DownloadError(
            error.strerror or str(error), operation="read", url=request.display_url, path=path, advice="Check the path."
        ) from error

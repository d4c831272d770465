"""A content-addressed cache of Python wheels that works where others fail, on Windows above all.

    from wheelcache import Cache

    with Cache() as cache:
        wheel = cache.fetch("https://example.org/six-1.17.0-py2.py3-none-any.whl", hashes="sha256:...")
        cache.link(wheel, "wheelhouse/")

Architecture, for contributors. A wheel goes through one module a station, each of which knows only those beside it::

    _request    what is asked for: URL, hashes, size, file name; nothing secret goes further
    _lookup     is it there, and may it be believed? (record, stat, now and then a hash)
    _urls       without a hash: what the URL gave last, and whether that still holds (_freshness, _pointers)
    _flight     one download of a wheel at a time, among threads and processes
    _partial    the unfinished file: an earlier one that is nobody's, or a new one
    _download   the bytes from one source after the other            (_wire: requests; _receive: bodies; _local: files;
                                                                 _waking: a server that is waited for no more)
    _stage      a temporary file that hashes what is written to it
    _commit     the file gets its final name by the _ladder, then its record makes it an entry
    _deliver    out of the cache: clone, hard link, copy          (_export: many of them)

    _zip        the archive, read so that no two readers see two      (_inflate: with the quickest library there is)
    _archive    a wheel in it that is safe to unpack, by its names, sizes and RECORD
    _fill       its files into a folder that nobody else writes to, each byte read and checked once
    _tree       the folder gets its marker (a _listing of all files), which makes it a tree; is it there, and whole?
    _spread     the files out of a tree into the caller's folder
    _unpack     from a wheel to its tree, and out of it             (_installer: for pypa/installer)

What keeps a cache goes over all of it, beside whoever uses it::

    _inventory  the walk over the entries, by names and stats
    _naming     which entries a caller means
    _ceiling    when a cache prunes itself
    _prune      what goes, oldest use first                     (_removal: how; _sweep: what is left over)
    _verify     every byte once more                            (_crew: in threads; _strangers: what is not ours)
    _survey     how much there is

``_cache`` is the façade: ``Cache.fetch`` reads as this list; ``_many`` takes many at a time. ``_async`` runs it in
worker threads (``_threads``; ``_bridge`` lends them an async client), ``_transport`` puts it under other httpx clients
(``_visit`` is one of their requests), ``_metadata`` gets METADATA without the wheel.

Below the stations is the system: ``_call`` is one public call, with what stops it, ``_fs`` is the contract of the file
layer, ``_fs_windows`` and ``_fs_posix`` fulfil it, ``_refusal`` says what a refusal means, ``_patience`` waits,
``_evidence``, ``_holders`` and ``_volume`` look for what is behind a refusal, ``_disk`` does plain file work for one
call, ``_lock`` is the one place that touches filelock, ``_workers`` are threads that share a piece of work. What
Windows alone needs is in the modules that end in ``_windows``, written with the calls of ``_win32``; ``_doctor`` tries
everything in the real folder. Below that are the values: ``_errors``, ``_digest``, ``_layout`` (every path is formed
there), ``_record``, ``_wheel``, ``_reports``, ``_progress``. A test holds these layers against the imports.
"""

__version__ = "0.1.0"

import typing

from ._cache import Cache
from ._exceptions import (
    Cause,
    CommitError,
    DownloadError,
    HashMismatchError,
    InvalidWheelError,
    OfflineError,
    ReadOnlyError,
    SizeMismatchError,
    UnsafeWheelError,
    WheelCacheError,
)
from ._hashes import Hashes
from ._models import CachedWheel, Keep, LinkMode, Phase, Progress, ProgressEvent, Status, Unpacked
from ._request import WheelRequest

if typing.TYPE_CHECKING:
    from ._async_cache import AsyncCache
    from ._installer import LinkDestination, TreeSource
    from ._reports import Action, Check, DoctorReport, Problem, ProblemKind, PruneReport, Skipped, Stats, VerifyReport
    from ._transport import CacheTransport

__all__ = [
    "Action",
    "AsyncCache",
    "Cache",
    "CacheTransport",
    "CachedWheel",
    "Cause",
    "Check",
    "CommitError",
    "DoctorReport",
    "DownloadError",
    "HashMismatchError",
    "Hashes",
    "InvalidWheelError",
    "Keep",
    "LinkDestination",
    "LinkMode",
    "OfflineError",
    "Phase",
    "Problem",
    "ProblemKind",
    "Progress",
    "ProgressEvent",
    "PruneReport",
    "ReadOnlyError",
    "SizeMismatchError",
    "Skipped",
    "Stats",
    "Status",
    "TreeSource",
    "Unpacked",
    "UnsafeWheelError",
    "VerifyReport",
    "WheelCacheError",
    "WheelRequest",
]

# Imported when they are asked for, since the start of a process counts and most need none of them. A transport is a
# class of httpx's besides, and importing wheelcache does not import httpx.
_LATER = {
    "_async_cache": ["AsyncCache"],
    "_installer": ["LinkDestination", "TreeSource"],
    "_reports": [
        *("Action", "Check", "DoctorReport", "Problem", "ProblemKind", "PruneReport", "Skipped", "Stats"),
        "VerifyReport",
    ],
    "_transport": ["CacheTransport"],
}


def __getattr__(name: str) -> object:
    for module, names in _LATER.items():
        if name in names:
            import importlib

            value = getattr(importlib.import_module(f".{module}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""A content-addressed cache of Python wheels, built for machines where caches usually break, above all Windows.

    from wheelcache import Cache

    with Cache() as cache:
        wheel = cache.fetch("https://example.org/six-1.17.0-py2.py3-none-any.whl", hashes="sha256:...")
        cache.link(wheel, "wheelhouse/")

Architecture, for contributors. A package imports only from the lines below its own. Packages on one line do not import
each other. A test checks both rules::

    cli                     the command line, which uses the public API only
    _installer, _transport  adapters for pypa/installer, and for httpx and httpx2
    _async_cache            AsyncCache, which runs the operations of a Cache in worker threads
    _cache, _core           Cache, which checks arguments and delegates to the parts in _core
    _maintenance            prune, remove, clear, verify, stats, doctor
    _fetch | _unpack        downloads into the store | wheels into trees, and trees into folders
    _store | _archive       the cache folder on disk | a strict reader of wheels
    _fs | _http             file operations with retries | requests, redirects and bodies
    _operation              one public call: its cancel tokens, retry budget and progress
    _os                     calls of the operating system, without retries; tests replace them
    _models, _reports, _request, _exceptions, _hashes, _filenames, _options, _threads, _imports
                            values, checks of arguments, threads, and the lock for imports

``Cache.fetch`` parses the request, opens an ``Operation`` and looks the wheel up. A hit reads one record and makes one
``stat`` call. It imports no module that only a download needs::

    _request.parse_request      the URL, hashes, size and file name; credentials are separated from the URL
    _store.layers               the writable store, then its layers; without a hash, by the URL in _store.index
    _store.lookup               is there an entry that can be trusted without hashing it again?

A miss continues in ``_fetch.fetcher``::

    _store.single_flight        one download of a wheel at a time, among threads and processes
    _fetch.revalidate           without a hash: is the cached response still current?
    _fetch.download             the sources in order, with retries; requests by _http.client, chunks by _http.body
    _fetch.receive              writes one body within limits, and decodes it if the server encoded it
    _fetch.partial              the unfinished file, which a later run can resume
    _store.staging              hashes the bytes while they are written
    _fs.persist                 gives the file its final name: by rename, hard link or verified copy
    _store.commit               makes the blob an entry by writing its record

A tree is an unpacked wheel in the cache. ``Cache.unpack`` links files out of it::

    _unpack.unpacker            the whole sequence, repeated if another process removes the tree
    _archive.wheel, .zip        reads the archive, and refuses an ambiguous one
    _unpack.extract             writes the files into a folder of its own, and checks them against RECORD
    _unpack.trees               makes the folder a tree by writing its marker, and checks a tree before each use
    _unpack.link_tree           links the files into the caller's folder
    _fs.link                    chooses clone, hard link or copy, and remembers what a destination does not support

All file operations pass through ``_fs.robustio.RobustIO``. It checks for cancellation before each operation, repeats an
operation that another process prevents, and raises errors that describe the refusal. Code that only Windows needs is
in the modules of ``_os`` with ``win`` in their names. Only ``_store.layout`` forms paths inside the cache folder.
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
from ._imports import third_party_import_lock as _import_lock
from ._models import CachedWheel, Keep, LinkMode, Phase, Progress, ProgressEvent, Status, Unpacked
from ._options import DownloadLimits
from ._request import WheelRequest

if typing.TYPE_CHECKING:
    from ._async_cache import AsyncCache
    from ._http.adapters.requests_client import requests_client
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
    "DownloadLimits",
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
    "requests_client",
]

# These names are imported on first use, because most processes need none of them and importing them would slow every
# start down. Importing CacheTransport also imports httpx, because CacheTransport is a subclass of an httpx class.
_LAZY_NAMES = {
    "_async_cache": ["AsyncCache"],
    "_http.adapters.requests_client": ["requests_client"],
    "_installer": ["LinkDestination", "TreeSource"],
    "_reports": [
        *("Action", "Check", "DoctorReport", "Problem", "ProblemKind", "PruneReport", "Skipped", "Stats"),
        "VerifyReport",
    ],
    "_transport": ["CacheTransport"],
}


def __getattr__(name: str) -> object:
    for module, names in _LAZY_NAMES.items():
        if name in names:
            with _import_lock:
                import importlib

                value = getattr(importlib.import_module(f".{module}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

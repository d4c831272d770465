"""Metadata: a wheel's METADATA without the wheel: the index's ``.metadata`` file, or the few ranges that hold it.

The file beside the wheel comes first (https://peps.python.org/pep-0658/). Where it is not to be had, the end of the
wheel is asked for, where a zip archive has its directory, then the part that the directory names. A server without
ranges gives the whole wheel; then it is fetched into the cache, since its bytes have come anyway.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from .. import _hashes
from .._archive.zip import DEFLATED, STORED
from .._exceptions import CommitError, DownloadError, HashMismatchError, InvalidWheelError
from .._fs.robustio import RobustIO, reading
from .._fs.tempnames import OwnerTag
from .._hashes import MultiHash
from .._http.client import FailedRequestError, HttpClient, failed_response
from .._models import Phase
from .._request import ResolvedRequest, Source
from .._store.layout import Layout
from .._store.records import decode, encode

if TYPE_CHECKING:
    import zipfile

    import httpx


_T = TypeVar("_T")

# The directory and the METADATA of most wheels are within so much of the end, since build tools write them last:
# https://packaging.python.org/en/latest/specifications/binary-distribution-format/#recommended-archiver-features
_TAIL = 1 << 16
_LARGEST = 1 << 25
_TRIES = 4
_WAIT = 0.5
_OK, _PARTIAL_CONTENT = 200, 206
# What is said of the file, and not of the range: unauthorized, forbidden, not found, proxy authentication, gone.
_SAID_OF_THE_FILE = {401, 403, 404, 407, 410}
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)
_ENTRY = re.compile(r"[^/]+\.dist-info/METADATA")


class NoRangesError(Exception):
    """The server gives no parts of files."""


class _Sparing:
    """An archive for zipfile, which believes what is written there of sizes and places. All of it may be made up."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, size: int = -1, /) -> bytes:
        if size > _LARGEST:
            raise ValueError(f"it asks for {size} bytes at once")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError) as error:
            if whence != io.SEEK_SET:
                raise  # there zipfile looks for what an archive may do without
            raise ValueError(f"there is no byte {offset}") from error


def read_metadata(file: BinaryIO, wanted: ResolvedRequest) -> bytes:
    """Return the METADATA of a wheel. What it takes of memory is bounded, whatever the archive says of itself.

    Raises:
        InvalidWheelError: where it has none, or is no archive.
    """
    # What it costs to import this is paid by who reads an archive.
    import zipfile

    try:
        with zipfile.ZipFile(_Sparing(file)) as archive:
            return _read_entry(archive, wanted)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        raise _invalid(f"its METADATA cannot be read ({error})", wanted) from error


def _read_entry(archive: zipfile.ZipFile, wanted: ResolvedRequest) -> bytes:
    stem = wanted.filename.split("-")[:2]
    found = [info for info in archive.infolist() if _ENTRY.fullmatch(info.filename)]
    # Vendored copies lie deeper; of two at the top the one of this wheel's name is meant.
    ours = [info for info in found if _same(info.filename.partition(".dist-info/")[0], stem)] or found
    if len(ours) != 1:
        raise _invalid(f"{len(ours)} METADATA files where there should be one", wanted)
    (entry,) = ours
    if max(entry.file_size, entry.compress_size) > _LARGEST:
        raise _invalid(f"its METADATA is said to have {entry.file_size} bytes", wanted)
    # Of the others zipfile unpacks all there is at once, however little is asked for; no wheel that unpacks has them.
    if entry.compress_type not in {STORED, DEFLATED}:
        raise _invalid(f"its METADATA is packed with method {entry.compress_type}", wanted)
    with archive.open(entry) as file:
        # No more than this number is ever inflated; one more than there is leads to the end, where the checksum is.
        return file.read(entry.file_size + 1)


def _invalid(problem: str, wanted: ResolvedRequest) -> InvalidWheelError:
    return InvalidWheelError(problem, operation="read metadata of", url=wanted.shown)


def _same(folder: str, stem: list[str]) -> bool:
    return re.sub(r"[-_.]+", "_", folder).lower() == re.sub(r"[-_.]+", "_", "-".join(stem)).lower()


def check_metadata(data: bytes, wanted: ResolvedRequest, hashes: Mapping[str, str]) -> bytes:
    """Return the metadata if it has these hashes, wherever it is from.

    Raises:
        HashMismatchError: where it is not what the index has told of.
    """
    running = MultiHash(hashes)
    running.update(data)
    actual = running.hexdigests()
    if any(actual[name] != value for name, value in hashes.items()):
        raise HashMismatchError(
            "the metadata does not have the hash asked for",
            operation="check metadata of",
            url=wanted.shown,
            expected=hashes,
            actual=actual,
            advice="What the index tells of the metadata is not what it or the wheel has: tell whoever runs the index.",
        )
    return data


def beside(wire: HttpClient, wanted: ResolvedRequest, hashes: Mapping[str, str], now: float) -> bytes | None:
    """Return the ``.metadata`` file of the index, ``None`` where it has none.

    Raises:
        FailedTryError: where it cannot be had just now.
    """
    url, question, query = wanted.url.partition("?")
    source = Source(f"{url}.metadata{question}{query}", wanted.shown, wanted.auth)
    with wire.get(source, {}) as response:
        if response.status_code != _OK:
            failure = failed_response(response, now)
            if failure.passing:
                raise failure
            return None
        data = _body(response)
    if hashes:
        return data
    # A page that says "not found" with 200 is none; every METADATA begins with fields.
    return data if re.search(rb"^Metadata-Version:", data, re.MULTILINE | re.IGNORECASE) else None


def _body(response: httpx.Response) -> bytes:
    data = bytearray()
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > _LARGEST:
            raise FailedRequestError(f"more than {_LARGEST} bytes are no metadata", passing=False)
    return bytes(data)


def by_ranges(wire: HttpClient, wanted: ResolvedRequest, now: float) -> bytes:
    """Return the METADATA out of the wheel where it is.

    Raises:
        NoRangesError: where the server gives no parts.
        InvalidWheelError: where it is no wheel.
        FailedTryError: where it cannot be had just now.
    """
    remote = _Remote(wire, wanted, now)
    return read_metadata(io.BufferedReader(remote, 1 << 13), wanted)


class _Remote(io.RawIOBase):
    """A wheel on a server as a file: its end is asked for first, other parts when they are read."""

    def __init__(self, wire: HttpClient, wanted: ResolvedRequest, now: float) -> None:
        self._wire = wire
        self._wanted = wanted
        self._now = now
        self._at = 0
        self._parts: list[tuple[int, bytes]] = []
        self._size = self._ask(f"bytes=-{_TAIL}")

    def _ask(self, wanted_range: str) -> int:
        with self._wire.get(self._wanted.sources[0], {"Range": wanted_range}) as response:
            if response.status_code != _PARTIAL_CONTENT:
                failure = failed_response(response, self._now)
                if failure.passing or failure.status in _SAID_OF_THE_FILE:
                    raise failure
                raise NoRangesError
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if found is None or "Content-Encoding" in response.headers:
                raise NoRangesError
            data = _body(response)
            if len(data) != int(found[2]) - int(found[1]) + 1:
                raise NoRangesError
        # An archive is looked up in its end; of the rest, nothing is read twice.
        self._parts[1:] = [(int(found[1]), data)]
        return int(found[3])

    def _has(self, start: int, data: bytes) -> bool:
        return start <= self._at < start + len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        if count == 0:
            return 0
        for start, data in self._parts:
            if self._has(start, data):
                part = data[self._at - start : self._at - start + count]
                buffer[: len(part)] = part
                self._at += len(part)
                return len(part)
        last = min(self._size, self._at + max(count, _TAIL)) - 1
        if self._ask(f"bytes={self._at}-{last}") != self._size or not self._has(*self._parts[-1]):
            raise NoRangesError
        return self.readinto(buffer)


class Metadata:
    """The metadata that one cache folder keeps, and the way to more.

    Args:
        layout: its paths.
        writable: whether what came is kept.
    """

    def __init__(self, layout: Layout, *, writable: bool) -> None:
        self._layout = layout
        self._writable = writable

    def of_wheel(self, fs: RobustIO, path: str, wanted: ResolvedRequest, hashes: Mapping[str, str]) -> bytes:
        """Return the METADATA of a wheel that is there.

        Raises:
            HashMismatchError, InvalidWheelError: where it is not what it should be.
        """
        file = fs.open_read(path)
        if file is None:
            raise InvalidWheelError("the wheel is gone", operation="read metadata of", path=path)
        with reading(file):
            return check_metadata(read_metadata(file, wanted), wanted, hashes)

    def kept(self, fs: RobustIO, wanted: ResolvedRequest, hashes: Mapping[str, str]) -> bytes | None:
        """Return what was kept, if it has these hashes. What a hash names never changes."""
        key = _key(wanted, hashes)
        fields = decode(fs.read(self._layout.metadata(key)) or b"") if key else None
        text = (fields or {}).get("metadata")
        if not isinstance(text, str):
            return None
        try:
            return check_metadata(text.encode("latin-1", "replace"), wanted, hashes)
        except HashMismatchError:
            return None  # found by one hash, it lacks another or was altered: then it is for the index to tell

    def fetch(self, fs: RobustIO, wire: HttpClient, wanted: ResolvedRequest, hashes: Mapping[str, str]) -> bytes:
        """Get it from the network, and keep it.

        Raises:
            NoRangesError: where only the whole wheel is to be had.
            DownloadError: where nothing is to be had.
            HashMismatchError, InvalidWheelError: where it is not what it should be.
        """
        data = check_metadata(self._tried(fs, wire, wanted, hashes), wanted, hashes)
        key = _key(wanted, hashes)
        if key and self._writable:
            system = fs.system
            spare = self._layout.new_temporary(OwnerTag.new(system.now(), system.boot()))
            try:
                content = encode({"metadata": data.decode("latin-1")})
                fs.without_waiting().write_small(self._layout.metadata(key), content, spare)
            except CommitError:
                pass  # the next one asks again
        return data

    def _tried(self, fs: RobustIO, wire: HttpClient, wanted: ResolvedRequest, hashes: Mapping[str, str]) -> bytes:
        system = fs.system
        started, tried = system.monotonic(), list[str]()
        try:
            found = _again(fs, wanted, tried, lambda: beside(wire, wanted, hashes, system.now()))
        except FailedRequestError:
            found = None  # a server may fail at these files alone, and give the wheel
        try:
            return found or _again(fs, wanted, tried, lambda: by_ranges(wire, wanted, system.now()))
        except FailedRequestError as failure:
            raise DownloadError(
                failure.problem,
                operation="download metadata of",
                url=wanted.shown,
                status=failure.status,
                retry_after=failure.asked,
                tried=tuple(tried),
                attempts=len(tried),
                elapsed=system.monotonic() - started,
                advice=failure.advice,
            ) from failure.__cause__


def _again(fs: RobustIO, wanted: ResolvedRequest, tried: list[str], ask: Callable[[], _T]) -> _T:
    """Ask until there is an answer, and take down what was tried in vain.

    Raises:
        FailedTryError: the last one, where it cannot pass, or has not passed by now.
    """
    number = 0
    while True:
        number += 1
        try:
            return ask()
        except FailedRequestError as failure:
            tried.append(f"{failure.at or wanted.shown}: {failure.problem}")
            if not failure.passing or number >= _TRIES or failure.asked is not None:
                raise
            pause = (failure.retry_after or 0.0) + _WAIT * number
            fs.op.report(Phase.WAITING, detail=f"{failure.problem}, again in {pause:.1f} s")
            fs.op.sleep(pause)


def _key(wanted: ResolvedRequest, hashes: Mapping[str, str]) -> str | None:
    found = _hashes.naming_hash(hashes)
    if found:
        return f"metadata {found}"
    wheel = _hashes.naming_hash(wanted.hashes)
    # The hash of the wheel cannot be checked without the wheel: what one server tells under it holds for that one only.
    return f"{wheel} {wanted.url}" if wheel else None

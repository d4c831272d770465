"""Read METADATA of a wheel, without downloading the wheel if possible.

The sources are tried in this order: the wheel in the cache, METADATA that was kept, the ``.metadata`` file of the index
(https://peps.python.org/pep-0658/), and the wheel on the server by range requests. A server without range requests
sends the whole wheel anyway. In this case, the caller fetches the wheel into the cache. If a server refuses a range,
the status of that fetch decides whether the server has the wheel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple, TypeVar

from .. import _hashes
from .._archive.file import ArchiveFile
from .._archive.wheel import LARGEST_METADATA, WheelArchive
from .._archive.zip import ReadAt
from .._exceptions import CommitError, DownloadError, HashMismatchError, InvalidWheelError
from .._fs.robustio import RobustIO
from .._fs.small import read_optional
from .._fs.tempnames import OwnerTag
from .._hashes import MultiHash
from .._http.client import HttpClient
from .._http.errors import FailedRequestError, failed_response
from .._models import Phase
from .._operation import Operation, retry
from .._request import ResolvedRequest, Source
from .._store.layout import Layout
from .._store.records import decode, encode
from .._store.trust.policy import TrustPolicy
from .download import is_private_response
from .remote_wheel import NoRangesError, RefusedRangeError, RemoteWheel, read_body

_T = TypeVar("_T")

_ATTEMPTS = 4
# A refused range is attempted less often, because some servers refuse every range.
_ATTEMPTS_OF_A_RANGE = 2
# The pause after an attempt, in seconds, multiplied by the number of the attempt.
_WAIT = 0.5
# Bytes of the file that keeps METADATA. JSON needs 6 bytes for a byte that is not ASCII. Larger METADATA is not kept.
_LARGEST_KEPT = LARGEST_METADATA


def read_metadata(read_at: ReadAt, size: int, request: ResolvedRequest, path: str | None = None) -> bytes:
    """Return METADATA of a wheel that is read by offset. :mod:`.._archive.wheel` lists the wheels that are refused.

    Raises:
        InvalidWheelError, UnsafeWheelError: if the wheel is refused.
    """
    archive = WheelArchive(
        read_at, size, request.filename, operation="read metadata of", path=path, url=request.display_url
    )
    return archive.metadata()


def check_metadata(data: bytes, request: ResolvedRequest, hashes: Mapping[str, str]) -> bytes:
    """Return METADATA from any source if it has these hashes.

    Raises:
        HashMismatchError: if METADATA does not have these hashes.
    """
    running = MultiHash(hashes)
    running.update(data)
    actual = running.hexdigests()
    if any(actual[name] != value for name, value in hashes.items()):
        raise HashMismatchError(
            "the metadata does not have the requested hash",
            operation="check metadata of",
            url=request.display_url,
            expected=hashes,
            actual=actual,
            advice=(
                "The metadata hash in the index does not match the metadata. Report this to the operator of the index."
            ),
        )
    return data


class FetchedMetadata(NamedTuple):
    """METADATA from the network.

    Attributes:
        data: the bytes of METADATA.
        is_private: whether only this user may use the METADATA.
    """

    data: bytes
    is_private: bool


def fetch_metadata_file(
    op: Operation, http: HttpClient, request: ResolvedRequest, hashes: Mapping[str, str]
) -> FetchedMetadata | None:
    """Return the ``.metadata`` file of the index, or ``None`` if the file does not exist.

    Raises:
        FailedRequestError: if the request fails and the failure is transient.
    """
    url, separator, query = request.url.partition("?")
    source = Source(f"{url}.metadata{separator}{query}", request.display_url, request.auth, request.url)
    with http.get(op, source, {}) as response:
        # A proxy that changes a response sends status 203. The hash of the index proves that the file is unchanged.
        is_changed = response.status_code == HTTPStatus.NON_AUTHORITATIVE_INFORMATION
        if response.status_code != HTTPStatus.OK and not (is_changed and _hashes.naming_hash(hashes)):
            failure = failed_response(response, op.system.now())
            if failure.is_transient:
                raise failure
            return None
        data = read_body(op, response, LARGEST_METADATA, lambda received: _is_requested(received, request, hashes))
    # Some servers respond with status 200 and an error page.
    return FetchedMetadata(data, is_private_response(response)) if hashes or _is_metadata(data) else None


def _is_requested(data: bytes, request: ResolvedRequest, hashes: Mapping[str, str]) -> bool:
    if not hashes:
        return _is_metadata(data)
    try:
        check_metadata(data, request, hashes)
    except HashMismatchError:
        return False
    return True


def _is_metadata(data: bytes) -> bool:
    """Return whether the bytes contain the field with which METADATA begins."""
    return re.search(rb"^Metadata-Version:", data, re.MULTILINE | re.IGNORECASE) is not None


def fetch_from_wheel(op: Operation, http: HttpClient, request: ResolvedRequest) -> FetchedMetadata:
    """Return METADATA of a wheel on a server, by range requests.

    Raises:
        NoRangesError: if the server does not support range requests.
        RefusedRangeError: if the server responds with an error status.
        InvalidWheelError, UnsafeWheelError: if the wheel is refused.
        FailedRequestError: if a request fails.
    """
    wheel = RemoteWheel(op, http, request)
    data = read_metadata(wheel.read_at, wheel.size, request)
    return FetchedMetadata(data, wheel.is_private)


def check_exists(op: Operation, http: HttpClient, request: ResolvedRequest) -> None:
    """Request a whole wheel, and read only the status of the response.

    Raises:
        FailedRequestError: if the server does not respond with the wheel.
    """
    with http.get(op, request.sources[0], {}) as response:
        if response.status_code != HTTPStatus.OK:
            raise failed_response(response, op.system.now())


class Metadata:
    """Finds METADATA in one cache folder and on the network.

    Args:
        layout: the paths of the cache folder.
        trust: the worth of the files in this folder.
        writable: whether to keep METADATA from the network.
    """

    def __init__(self, layout: Layout, trust: TrustPolicy, *, writable: bool) -> None:
        self._layout = layout
        self._trust = trust
        self._writable = writable

    def read_from_wheel(self, fs: RobustIO, path: str, request: ResolvedRequest, hashes: Mapping[str, str]) -> bytes:
        """Return METADATA of a wheel in the cache.

        Raises:
            HashMismatchError: if METADATA does not have the hashes.
            InvalidWheelError, UnsafeWheelError: if the wheel is refused, or no longer exists.
        """
        try:
            with ArchiveFile(fs, path) as file:
                data = read_metadata(file.read_at, file.size, request, path)
        except FileNotFoundError as error:
            raise InvalidWheelError(
                "the wheel is no longer in the cache", operation="read metadata of", path=path
            ) from error
        return check_metadata(data, request, hashes)

    def read_kept(self, fs: RobustIO, request: ResolvedRequest, hashes: Mapping[str, str]) -> bytes | None:
        """Return METADATA with these hashes that was kept, or ``None`` if there is no such METADATA.

        Without a hash of METADATA itself, its bytes cannot be checked. Another user could have written them.
        """
        if _hashes.naming_hash(hashes) is None and not self._trust.accepts_content(fs):
            return None
        keys = (_key(fs, request, hashes, is_private=is_private) for is_private in (True, False))
        for key in filter(None, keys):
            text = (decode(read_optional(fs, self._layout.metadata(key), _LARGEST_KEPT) or b"") or {}).get("metadata")
            if isinstance(text, str):
                try:
                    return check_metadata(text.encode("latin-1", "replace"), request, hashes)
                except HashMismatchError:
                    pass  # METADATA was altered, or has only one of several hashes
        return None

    def fetch(self, fs: RobustIO, http: HttpClient, request: ResolvedRequest, hashes: Mapping[str, str]) -> bytes:
        """Return METADATA from the network, and keep it in the cache.

        Raises:
            NoRangesError: if METADATA is available only by downloading the whole wheel.
            DownloadError: if the requests fail.
            HashMismatchError: if METADATA does not have the hashes.
            InvalidWheelError, UnsafeWheelError: if the wheel is refused.
        """
        fetched = self._download(fs, http, request, hashes)
        check_metadata(fetched.data, request, hashes)
        key = _key(fs, request, hashes, is_private=fetched.is_private)
        if key is not None and self._writable:
            self._keep(fs, key, fetched.data)
        return fetched.data

    def _keep(self, fs: RobustIO, key: str, data: bytes) -> None:
        system = fs.system
        temporary = self._layout.new_temporary(OwnerTag.new(system.now(), system.boot()))
        try:
            content = encode({"metadata": data.decode("latin-1")})
            if len(content) > _LARGEST_KEPT:
                return
            fs.without_waiting().write_small(self._layout.metadata(key), content, temporary)
        except CommitError:
            pass  # the next caller requests METADATA again

    def _download(
        self, fs: RobustIO, http: HttpClient, request: ResolvedRequest, hashes: Mapping[str, str]
    ) -> FetchedMetadata:
        attempts = _Attempts(fs, request)
        try:
            fetched = attempts.run(lambda: fetch_metadata_file(fs.op, http, request, hashes))
        except FailedRequestError:
            fetched = None  # some servers fail only for these files
        try:
            return fetched or self._from_wheel(fs.op, http, request, attempts)
        except FailedRequestError as failure:
            raise attempts.to_error(failure) from failure.__cause__

    def _from_wheel(
        self, op: Operation, http: HttpClient, request: ResolvedRequest, attempts: _Attempts
    ) -> FetchedMetadata:
        try:
            return attempts.run(lambda: fetch_from_wheel(op, http, request))
        except RefusedRangeError as refused:
            if refused.excessive_wait is not None:
                raise
            attempts.wait_as_requested()
            if not self._writable:
                # The caller cannot fetch the wheel. If the wheel is missing, the error must contain its status.
                attempts.run(lambda: check_exists(op, http, request))
            raise NoRangesError from None


class _Attempts:
    """The attempts to download METADATA of one wheel. Each is repeated while its failure is transient."""

    def __init__(self, fs: RobustIO, request: ResolvedRequest) -> None:
        self._op = fs.op
        self._monotonic = fs.system.monotonic
        self._started = self._monotonic()
        self._request = request
        self._failures: list[str] = []
        self._last: FailedRequestError | None = None

    def run(self, download: Callable[[], _T]) -> _T:
        """Return the result of ``download``.

        Raises:
            FailedRequestError: if a failure is permanent, if the server requests a long wait, or if four attempts have
                failed. Two failed attempts are enough if the server refused a range.
        """

        def attempt() -> _T:
            try:
                return download()
            except FailedRequestError as failure:
                self._failures.append(f"{failure.at or self._request.display_url}: {failure.problem}")
                self._last = failure
                raise

        return retry(
            attempt,
            can_retry=lambda error: isinstance(error, FailedRequestError) and error.can_retry,
            wait=lambda number: ((self._last and self._last.retry_after) or 0.0) + _WAIT * number,
            stop=lambda number: number >= self._most_attempts(),
            sleep=self._sleep,
        )

    def _most_attempts(self) -> int:
        return _ATTEMPTS_OF_A_RANGE if isinstance(self._last, RefusedRangeError) else _ATTEMPTS

    def wait_as_requested(self) -> None:
        """Wait until the server of the last failure allows the next request."""
        seconds = (self._last and self._last.retry_after) or 0.0
        if seconds > 0.0:
            self._sleep(seconds)

    def _sleep(self, seconds: float) -> None:
        problem = self._last.problem if self._last else ""
        self._op.report(Phase.WAITING, detail=f"{problem}, again in {seconds:.1f} s")
        self._op.sleep(seconds)

    def to_error(self, failure: FailedRequestError) -> DownloadError:
        """Return the error for the caller."""
        return DownloadError(
            failure.problem,
            operation="download metadata of",
            url=self._request.display_url,
            status=failure.status,
            retry_after=failure.excessive_wait,
            tried=tuple(self._failures),
            attempts=len(self._failures),
            elapsed=self._monotonic() - self._started,
            advice=failure.advice,
        )


def _key(fs: RobustIO, request: ResolvedRequest, hashes: Mapping[str, str], *, is_private: bool) -> str | None:
    """Return the key under which METADATA is kept, or ``None`` if METADATA is not kept.

    METADATA is kept if a strong hash of METADATA or of the wheel is known. With only the hash of the wheel, private
    METADATA has a key for each user. It is not kept if the user is unknown.
    """
    metadata_hash = _hashes.naming_hash(hashes)
    if metadata_hash:
        return f"metadata {metadata_hash}"
    wheel_hash = _hashes.naming_hash(request.hashes)
    user = fs.system.user() if is_private else "all users"
    if wheel_hash is None or user is None:
        return None
    # The hash of the wheel cannot be checked without the wheel. METADATA of one URL is therefore not used for another.
    return f"{wheel_hash} {request.url} for {user}"

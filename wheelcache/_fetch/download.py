"""Download the bytes of a wheel into its partial file, from the first of its sources that has them.

A source that delivers bytes is used again. An interrupted body is continued for as long as there is progress. If a
source delivers no bytes, the next source is tried. After each round over all sources, there is a pause. A source that
refuses permanently, or whose bytes do not match, is not used again. The error lists all attempts.

A request for "the bytes from N on" has these responses:

- 206 from N on: the bytes are appended.
- 206 from another offset, or 416: this server's ranges cannot be used. The next request is for the whole file.
- 416 with a total size of N bytes: the file is complete.
- 200, 203 or 412: the file has changed. The download starts over.
- Any other status: it may refer to the range or to the file. A request without a range decides. If the status is
  transient, that request is the last one, since it discards the bytes.

The digest decides whether the bytes belong to one file. Without a digest, bytes are combined only under a strong
validator of the same URL: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from .._exceptions import DownloadError, HashMismatchError, InvalidWheelError, SizeMismatchError
from .._fs.robustio import RobustIO
from .._http.cache_control import is_private
from .._http.client import HttpClient
from .._http.coding import parse_codings
from .._http.errors import FailedRequestError, failed_response
from .._http.headers import confirms, declared_length, parse_content_range, strong_validator
from .._http.rate import TooSlowError
from .._http.response import Response
from .._models import Phase
from .._operation import retry
from .._request import ResolvedRequest, Source, text_key
from .partial import Origin, PartialDownload
from .receive import BodyReceiver

# The number of consecutive attempts without progress, for each source.
_ATTEMPTS = 5
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 20.0
# An attempt counts as progress if it delivers this part of the missing bytes. A server that delivers one byte per
# attempt therefore cannot prolong a download without end. The absolute number always suffices, because a bad connection
# may never deliver more of a large wheel in one attempt, but still deliver all of it in the end.
_PROGRESS_PART = 0.01
_PROGRESS_BYTES = 1 << 18
_PROGRESS_BYTES_OF_UNKNOWN = 1 << 16

_MISMATCHES = (HashMismatchError, SizeMismatchError, InvalidWheelError)
_FAILURES = (FailedRequestError, *_MISMATCHES)


@dataclass(frozen=True)
class ResponseHead:
    """The response of a server without the body.

    Attributes:
        modified: whether there was a body. If not, the server has confirmed the bytes in the cache.
        headers: the headers of the last response, with lowercase names. Empty if no request was needed.
        requested_at: when the last request was sent, in seconds since the epoch.
        url: the URL of the last request, before redirects.
        hops: the headers of the redirects that were followed.
        place: the key of the URL that the redirects led to: see :func:`place_of`.
        is_private: whether only this user may use the response. This is so if the response or a redirect is declared
            private, or if the request of one of them had credentials.
    """

    modified: bool
    headers: Mapping[str, str]
    requested_at: float
    url: str
    hops: tuple[Mapping[str, str], ...] = ()
    place: str = ""
    is_private: bool = False


def is_private_response(response: Response) -> bool:
    """Return whether only this user may use a response: see :class:`ResponseHead`."""
    return response.with_credentials or any(is_private(hop.headers) for hop in (*response.history, response))


def place_of(response: Response) -> str:
    """Return the key of the URL that redirects led to, or an empty string if there were no redirects.

    A server's validators are valid for that URL only. A redirect may later lead to another file with the same ETag, or
    to an older file. The query is omitted, since it often contains a signature that changes each time.
    """
    return text_key(urlsplit(response.url)._replace(query="").geturl()) if response.history else ""


@dataclass(frozen=True)
class Conditions:
    """A conditional request for a file that is in the cache.

    Attributes:
        headers: header fields such as If-None-Match.
        place: the key of the URL from which their values were received: see :func:`place_of`.
    """

    headers: Mapping[str, str]
    place: str


@dataclass
class _Route:
    """A source and its state.

    Attributes:
        source: the source.
        ranges: whether range requests may still be sent to the source.
        is_range_refused: whether the next request must be for the whole file, since the source refused a range.
        failure: the last failure, or ``None``.
        not_before: the monotonic time at which the source allows the next request.
    """

    source: Source
    ranges: bool = True
    is_range_refused: bool = False
    failure: FailedRequestError | None = None
    not_before: float = 0.0


class Downloader:
    """Downloads wheels.

    Args:
        client: sends the requests.
        max_bytes: the maximum size in bytes of a body if the request has no size, or ``None`` for no limit.
    """

    def __init__(self, client: HttpClient, max_bytes: int | None) -> None:
        self._client = client
        self._max_bytes = max_bytes

    def fill(
        self, partial: PartialDownload, request: ResolvedRequest, fs: RobustIO, conditions: Conditions | None = None
    ) -> ResponseHead:
        """Write the bytes of a wheel into its partial file, and check the requested hashes.

        With ``conditions``, the server may respond that the file is unchanged.

        Raises:
            DownloadError: if the wheel cannot be downloaded.
            SizeMismatchError: if a server declares another size than the requested one, or sends more bytes.
            HashMismatchError: if the bytes do not have the requested hashes.
            InvalidWheelError: if no hash was requested, and the bytes are not a wheel.
            CommitError: if the bytes cannot be written.
        """
        receiver = BodyReceiver(fs.op, partial, request, self._max_bytes)
        return _Download(self._client, receiver, request, fs, conditions).run()


class _Download:
    """One download with all its attempts."""

    def __init__(
        self,
        client: HttpClient,
        receiver: BodyReceiver,
        request: ResolvedRequest,
        fs: RobustIO,
        conditions: Conditions | None,
    ) -> None:
        self._client = client
        self._receiver = receiver
        self._partial = receiver.partial
        self._request = request
        self._op = fs.op
        self._conditions = conditions
        self._system = fs.system
        self._started = self._system.monotonic()
        self._first = _Route(request.sources[0])
        self._routes = [self._first, *map(_Route, request.sources[1:])]
        self._rounds = len(self._routes)
        self._turn = 0
        self._idle = 0
        self._pause = 0.0
        self._attempts = 0
        self._tried: list[str] = []
        self._mismatch: HashMismatchError | SizeMismatchError | InvalidWheelError | None = None

    def run(self) -> ResponseHead:
        with suppress(*_FAILURES):
            # Most downloads succeed at once and do not need to import the retry loop.
            return self._attempt()
        if not self._is_exhausted():
            with suppress(*_FAILURES):
                self._wait(self._seconds_to_wait())
                return retry(
                    self._attempt,
                    can_retry=lambda error: isinstance(error, _FAILURES),
                    wait=lambda _: self._seconds_to_wait(),
                    stop=lambda _: self._is_exhausted(),
                    sleep=self._wait,
                )
        # The error is raised outside the handlers. It must not refer to the errors of the HTTP library, since they may
        # quote URLs.
        raise self._error()

    def _is_exhausted(self) -> bool:
        return not self._routes or self._idle >= _ATTEMPTS * self._rounds

    def _next_route(self) -> _Route:
        self._turn %= len(self._routes)
        return self._routes[self._turn]

    def _attempt(self) -> ResponseHead:
        """Request the wheel from the next source. If that fails, choose the source of the next attempt."""
        route = self._next_route()
        before, remaining = self._partial.most_written, self._partial.remaining
        try:
            return self._download_from(route)
        except FailedRequestError as failure:
            self._note(route, failure)
            if self._partial.is_encoded:
                self._partial.restart()
            if failure.can_retry:
                is_enough = self._partial.most_written - before >= _required_progress(remaining)
                has_progress = is_enough and not isinstance(failure, TooSlowError)
                self._advance(route, failure, has_progress=has_progress)
            else:
                self._routes.remove(route)
            raise
        except _MISMATCHES as error:
            self._note(route, FailedRequestError(error.problem, is_transient=False))
            if self._partial.doubtful:
                # The bytes were received in two responses or in an earlier run. This source may still be usable.
                self._idle += 1
            else:
                error.url = route.source.display_url
                self._mismatch = self._mismatch or error
                self._routes.remove(route)
            self._partial.restart()
            raise

    def _advance(self, route: _Route, failure: FailedRequestError, *, has_progress: bool) -> None:
        """Choose the same source after progress, or else the next one. Pause after each round over all sources."""
        if has_progress:
            self._idle = 0
        elif failure.pause or not route.is_range_refused:
            # After a permanent refusal of a range, the same source always receives a request for the whole file.
            self._idle += 1
            self._turn += failure.pause
        if failure.pause and (has_progress or self._turn % len(self._routes) == 0):
            self._pause = _full_jitter(self._idle // self._rounds)

    def _note(self, route: _Route, failure: FailedRequestError) -> None:
        route.failure = failure
        route.not_before = self._system.monotonic() + (failure.retry_after or 0.0)
        self._tried.append(f"{failure.at or route.source.display_url}: {failure.problem}")

    def _error(self) -> Exception:
        """Return the error of the download: the first mismatch, or else the failure of the first source."""
        elapsed = self._system.monotonic() - self._started
        if self._mismatch is not None:
            error = self._mismatch
            error.tried, error.attempts, error.elapsed = tuple(self._tried), self._attempts, elapsed
            return error
        failure = self._first.failure
        assert failure is not None
        is_redirected = failure.at not in {"", self._request.display_url} and failure.at not in failure.problem
        download_error = DownloadError(
            f"{failure.problem}, redirected to {failure.at}" if is_redirected else failure.problem,
            operation="download",
            url=self._request.display_url,
            status=failure.status,
            retry_after=failure.excessive_wait,
            tried=tuple(self._tried),
            attempts=self._attempts,
            elapsed=elapsed,
            advice=failure.advice,
        )
        download_error.__cause__ = failure.__cause__
        return download_error

    def _seconds_to_wait(self) -> float:
        """Return the seconds until the source allows the next request, plus the pause after a round."""
        if not self._routes:
            return 0.0
        return max(0.0, self._next_route().not_before - self._system.monotonic()) + self._pause

    def _wait(self, seconds: float) -> None:
        self._pause = 0.0
        failure = self._next_route().failure
        if seconds > 0.0 and failure is not None:
            self._op.report(Phase.WAITING, detail=f"{failure.problem}, again in {seconds:.1f} s")
            self._op.sleep(seconds)

    def _download_from(self, route: _Route) -> ResponseHead:
        self._attempts += 1
        partial, stage = self._partial, self._partial.stage
        if self._request.hashes and stage.written and stage.written in {partial.total, self._request.size}:
            # The file is complete. Only its digest must still be checked. Without a requested hash, a range after
            # the last byte is requested instead, since the file may have changed.
            stage.check()
            return ResponseHead(modified=True, headers={}, requested_at=self._system.now(), url=route.source.url)
        requested_at = self._system.now()
        headers = self._headers(route)
        codings: tuple[str, ...] = ()
        with self._client.get(self._op, route.source, headers) as response:
            hops = tuple(dict(hop.headers) for hop in response.history)
            modified, place = response.status_code != HTTPStatus.NOT_MODIFIED, place_of(response)
            head = ResponseHead(
                modified,
                dict(response.headers),
                requested_at,
                route.source.url,
                hops,
                place,
                is_private=is_private_response(response),
            )
            if self._begin(route, response, headers):
                codings = self._receiver.receive(response)
        if head.modified:
            self._receiver.check(codings)
        return head

    def _headers(self, route: _Route) -> dict[str, str]:
        """Return the header fields that request the missing bytes, or the whole file if nothing can be appended."""
        partial = self._partial
        written = partial.stage.written
        same_url = partial.origin is not None and partial.origin.is_from(route.source.url)
        validator = partial.origin.validator if partial.origin is not None and same_url else None
        if written and not (route.ranges and (self._request.key != self._request.url or validator)):
            partial.restart()
            written = 0
        if not written or route.is_range_refused:
            # The bytes are kept, because another source can continue them if this one does not have the file.
            return dict(self._conditions.headers) if self._conditions and route is self._first else {}
        if validator is None:
            partial.doubtful = True
            return {"Range": f"bytes={written}-"}
        return {"Range": f"bytes={written}-", "If-Range": validator}

    def _begin(self, route: _Route, response: Response, headers: Mapping[str, str]) -> bool:
        """Check the head of a response and prepare for its body. Return whether there is a body to read."""
        status, partial = response.status_code, self._partial
        is_range = "Range" in headers
        was_range_refused, route.is_range_refused = route.is_range_refused, False
        if status == HTTPStatus.OK or (status == HTTPStatus.NON_AUTHORITATIVE_INFORMATION and self._request.is_pinned):
            route.ranges = route.ranges and not was_range_refused
            if partial.stage.written:
                partial.restart()
            self._record_origin(route, response, declared_length(response.headers))
            return True
        if status == HTTPStatus.PARTIAL_CONTENT and is_range:
            self._begin_range(route, response)
            return True
        if status == HTTPStatus.NOT_MODIFIED and headers and not is_range:
            self._check_confirmed(response, headers)
            return False
        if status == HTTPStatus.PRECONDITION_FAILED and is_range:
            raise self._changed()
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and is_range:
            declared = parse_content_range(response.headers.get("Content-Range"))
            if declared is None or declared.total != partial.stage.written:
                raise self._without_ranges(route, "the server refused the requested range")
            if not self._may_append(route, response):
                raise self._changed()
            partial.doubtful = True
            return False
        failure = failed_response(response, self._system.now())
        raise self._refused_range(route, failure) if is_range else failure

    def _refused_range(self, route: _Route, failure: FailedRequestError) -> FailedRequestError:
        """Return the error for a range that the source refused, and choose the form of its next request.

        After a permanent status, the next request is for the whole file. A transient status usually ends soon. A
        request for the whole file would discard the bytes. It is therefore sent only in the last round.
        """
        is_last_round = self._idle + len(self._routes) >= (_ATTEMPTS - 1) * self._rounds
        route.is_range_refused = is_last_round or not failure.is_transient
        return FailedRequestError(
            f"{failure.problem} to a range request",
            is_transient=True,
            pause=failure.is_transient,
            status=failure.status,
            retry_after=failure.retry_after,
        )

    def _check_confirmed(self, response: Response, headers: Mapping[str, str]) -> None:
        """Check that a 304 response is about the stored wheel. Otherwise, the next request has no conditions."""
        conditions, self._conditions = self._conditions, None
        if conditions is None or conditions.place != place_of(response):
            raise FailedRequestError("the URL now redirects to another file", is_transient=True, pause=False)
        if not confirms(response.headers, headers):
            raise FailedRequestError("the server confirmed another file", is_transient=True, pause=False)

    def _begin_range(self, route: _Route, response: Response) -> None:
        partial = self._partial
        declared = parse_content_range(response.headers.get("Content-Range"))
        if declared is None or declared.first != partial.stage.written or parse_codings(response.headers):
            raise self._without_ranges(route, "the server sent another range than the requested one")
        length = declared_length(response.headers)
        if declared.length <= 0 or length not in {None, declared.length}:
            raise self._without_ranges(route, "the server sent an impossible range")
        total = declared.total
        size_differs = None not in {total, partial.total} and total != partial.total and partial.doubtful
        if size_differs or not self._may_append(route, response):
            raise self._changed()
        self._record_origin(route, response, partial.total if total is None else total)

    def _may_append(self, route: _Route, response: Response) -> bool:
        # With a hash, bytes are appended regardless of validators, since mirrors have different ones for the same
        # bytes. Without a hash, a mixture of two files would not be detected.
        return bool(self._request.hashes) or self._origin(route, response).continues(self._partial.origin)

    def _changed(self) -> FailedRequestError:
        self._partial.restart()
        return FailedRequestError(
            "the file changed after its first bytes were received", is_transient=True, pause=False
        )

    def _without_ranges(self, route: _Route, problem: str) -> FailedRequestError:
        route.ranges = False
        self._partial.restart()
        return FailedRequestError(problem, is_transient=True, pause=False)

    def _record_origin(self, route: _Route, response: Response, total: int | None) -> None:
        """Record the source of the next bytes, and compare the declared size with the requested one."""
        size = self._request.size
        if total is None or parse_codings(response.headers):
            total = size
        if size is not None and total != size:
            raise SizeMismatchError(
                "the server declares another size than the requested one",
                operation="download",
                url=route.source.display_url,
                expected=size,
                actual=total or 0,
                attempts=self._attempts,
                elapsed=self._system.monotonic() - self._started,
                advice="The file at the source is not the requested one. Check the size, or the source.",
            )
        self._partial.set_origin(self._origin(route, response), total)

    def _origin(self, route: _Route, response: Response) -> Origin:
        return Origin.of(route.source.url, strong_validator(response.headers), place_of(response))


def _required_progress(remaining: int | None) -> int:
    if remaining is None:
        return _PROGRESS_BYTES_OF_UNKNOWN
    return min(max(1, int(remaining * _PROGRESS_PART)), _PROGRESS_BYTES)


def _full_jitter(number: int) -> float:
    """Return a random pause in seconds. The limit of the pause doubles each round."""
    # Random pauses prevent clients from retrying at the same time. They are not secret.
    return random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** max(0, number - 1)))  # noqa: S311

"""Download: the bytes of a wheel into its partial file, from the first of its sources that has them.

A source that brings bytes is stayed with: what was cut goes on where it was, for as long as there is progress. One that
brings none is left for the next one, and when all have been asked in vain, time passes before the next round. A source
that refuses for good, or whose bytes are not the ones asked for, is not asked again. What was tried is in the error.

What an answer to "the bytes from N on" may be: 206 from N on (they are appended), 206 from elsewhere or 416 (ranges are
no good here, everything is asked for), 416 that says there is no more (it is complete), 200 or 412 (the file is another
by now: everything again). Whether bytes of one file came together is for the digest to say; without a digest they are
only put together under a strong validator of the same URL: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._exceptions import DownloadError, HashMismatchError, InvalidWheelError, SizeMismatchError
from .._fs.robustio import RobustIO
from .._http import body
from .._http.client import FailedRequestError, HttpClient, failed_response, length
from .._models import Phase
from .._request import ResolvedRequest, Source, text_key
from .partial import Origin, PartialDownload, strong_validator

if TYPE_CHECKING:
    import httpx


# Tries in a row that bring nothing, of each source.
_TRIES = 5
_FIRST_WAIT = 0.25
_LONGEST_WAIT = 20.0
# Of what is missing, a try must bring this part to count as progress: so a server that gives a byte at a time ends. So
# many bytes are always enough: a bad line may give no more at a time of a wheel of gigabytes, and yet gives all of it.
_PROGRESS = 0.01
_PROGRESS_OF_MUCH = 1 << 18
_PROGRESS_OF_UNKNOWN = 1 << 16

_OK, _PARTIAL_CONTENT, _NOT_MODIFIED, _PRECONDITION_FAILED, _RANGE_NOT_SATISFIABLE = 200, 206, 304, 412, 416

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)", re.ASCII)


@dataclass(frozen=True)
class Answer:
    """What a server said of the file, besides its bytes.

    Attributes:
        modified: whether there were bytes; else they are still those that the request's conditions name.
        headers: of the last answer, names in lower case; empty where none was needed.
        asked: when the last request was made, in seconds since the epoch.
        url: where it was made.
        hops: the headers of the redirects on the way.
        place: where these led, see :func:`place_of`.
    """

    modified: bool
    headers: Mapping[str, str]
    asked: float
    url: str
    hops: tuple[Mapping[str, str], ...] = ()
    place: str = ""


def place_of(response: httpx.Response) -> str:
    """Return the key of the URL that redirects led to, empty where there were none.

    What a server says of a file holds where it said it: a redirect may lead to another file with the same ETag, or to
    an older one. The query is left out, since it often is a signature that is made anew each time.
    """
    return text_key(str(response.request.url.copy_with(query=None, fragment=None))) if response.history else ""


@dataclass(frozen=True)
class Conditions:
    """What asks whether a file is still the one that is known.

    Attributes:
        headers: header fields such as If-None-Match.
        place: where they are from, see :func:`place_of`.
    """

    headers: Mapping[str, str]
    place: str


@dataclass
class _Route:
    """A source, and what was learnt of it; ``not_before`` is when it may be asked again, on the monotonic clock."""

    source: Source
    ranges: bool = True
    failure: FailedRequestError | None = None
    not_before: float = 0.0


class Downloader:
    """The download of wheels.

    Args:
        wire: the way to the network.
    """

    def __init__(self, wire: HttpClient) -> None:
        self._wire = wire

    def fill(
        self, partial: PartialDownload, wanted: ResolvedRequest, fs: RobustIO, conditions: Conditions | None = None
    ) -> Answer:
        """Write the bytes of a wheel into its partial file, and see that they have the hashes asked for.

        With ``conditions`` the answer may be that nothing was modified.

        Raises:
            DownloadError: where they cannot be had.
            SizeMismatchError: where a server declares another size than the one asked for, or sends more.
            HashMismatchError: where they are not what was asked for.
            InvalidWheelError: where no hash was asked for, and they are no wheel.
            CommitError: where they cannot be written.
        """
        return _Transfer(self._wire, partial, wanted, fs, conditions).run()


class _Transfer:
    """One download with all its tries."""

    def __init__(
        self,
        wire: HttpClient,
        partial: PartialDownload,
        wanted: ResolvedRequest,
        fs: RobustIO,
        conditions: Conditions | None,
    ) -> None:
        self._wire = wire
        self._partial = partial
        self._wanted = wanted
        self._fs = fs
        self._conditions = conditions
        self._system = fs.system
        self._started = self._system.monotonic()
        self._first = _Route(wanted.sources[0])
        self._routes = [self._first, *map(_Route, wanted.sources[1:])]
        self._pause = 0.0
        self._tries = 0
        self._tried: list[str] = []
        self._mismatch: HashMismatchError | SizeMismatchError | InvalidWheelError | None = None

    def run(self) -> Answer:
        turn, idle, rounds = 0, 0, len(self._routes)
        while self._routes and idle < _TRIES * rounds:
            turn %= len(self._routes)
            route = self._routes[turn]
            self._wait(route)
            farthest, missing = self._partial.farthest, self._partial.missing
            try:
                return self._try(route)
            except FailedRequestError as failure:
                self._note(route, failure)
                if not failure.passing or failure.asked is not None:
                    self._routes.remove(route)
                    continue
                if self._partial.farthest - farthest >= _enough(missing):
                    idle = 0
                else:
                    idle += 1
                    turn += failure.pause
                if failure.pause and (idle == 0 or turn % len(self._routes) == 0):
                    self._pause = _jitter(idle // rounds)
            except (HashMismatchError, SizeMismatchError, InvalidWheelError) as error:
                self._note(route, FailedRequestError(error.problem, passing=False))
                if self._partial.doubtful:
                    # Bytes of two answers, or of another run, make no such file: that says nothing of this source yet.
                    self._partial.restart()
                    idle += 1
                    continue
                error.url = route.source.shown
                self._mismatch = self._mismatch or error
                self._routes.remove(route)
                self._partial.restart()
        raise self._failed()

    def _note(self, route: _Route, failure: FailedRequestError) -> None:
        route.failure = failure
        route.not_before = self._system.monotonic() + (failure.retry_after or 0.0)
        self._tried.append(f"{failure.at or route.source.shown}: {failure.problem}")

    def _failed(self) -> Exception:
        """Return the error to tell: wrong bytes say more than none, and the first source more than its mirrors."""
        elapsed = self._system.monotonic() - self._started
        if self._mismatch is not None:
            error = self._mismatch
            error.tried, error.attempts, error.elapsed = tuple(self._tried), self._tries, elapsed
            return error
        failure = self._first.failure
        assert failure is not None
        away = failure.at not in {"", self._wanted.shown} and failure.at not in failure.problem
        told = DownloadError(
            f"{failure.problem}, redirected to {failure.at}" if away else failure.problem,
            operation="download",
            url=self._wanted.shown,
            status=failure.status,
            retry_after=failure.asked,
            tried=tuple(self._tried),
            attempts=self._tries,
            elapsed=elapsed,
            advice=failure.advice,
        )
        told.__cause__ = failure.__cause__
        return told

    def _wait(self, route: _Route) -> None:
        """Wait for what is due before a source is asked: what it asked for itself, and the pause after a round."""
        seconds = max(0.0, route.not_before - self._system.monotonic()) + self._pause
        self._pause = 0.0
        if seconds > 0.0 and route.failure is not None:
            self._fs.op.report(Phase.WAITING, detail=f"{route.failure.problem}, again in {seconds:.1f} s")
            self._fs.op.sleep(seconds)

    def _try(self, route: _Route) -> Answer:
        self._tries += 1
        partial, stage = self._partial, self._partial.stage
        if self._wanted.hashes and stage.written and stage.written in {partial.total, self._wanted.size}:
            # It was all there: only its digest was not looked at any more. Without one to look at, the server is asked
            # for what comes after its last byte, since the file may be another by now.
            stage.check()
            return Answer(modified=True, headers={}, asked=self._system.now(), url=route.source.url)
        asked = self._system.now()
        headers = self._headers(route)
        with self._wire.get(route.source, headers) as response:
            hops = tuple(map(_lower, response.history))
            modified, place = response.status_code != _NOT_MODIFIED, place_of(response)
            answer = Answer(modified, _lower(response), asked, route.source.url, hops, place)
            if self._begin(route, response, headers):
                body.receive(response, partial, self._fs)
        if answer.modified:
            stage.check()
        return answer

    def _headers(self, route: _Route) -> dict[str, str]:
        """Ask for what is missing, where that can be put to what is there; else for everything."""
        partial = self._partial
        written = partial.stage.written
        same = partial.origin is not None and partial.origin.is_of(route.source.url)
        validator = partial.origin.validator if partial.origin is not None and same else None
        if written and not (route.ranges and (self._wanted.key != self._wanted.url or validator)):
            partial.restart()
            written = 0
        if not written:
            return dict(self._conditions.headers) if self._conditions and route is self._first else {}
        if validator is None:
            partial.doubtful = True
            return {"Range": f"bytes={written}-"}
        return {"Range": f"bytes={written}-", "If-Range": validator}

    def _begin(self, route: _Route, response: httpx.Response, headers: Mapping[str, str]) -> bool:
        """Look at the head of an answer, and make ready for its body; return whether there is one to read."""
        status, partial = response.status_code, self._partial
        ranged = "Range" in headers
        if status == _OK:
            if partial.stage.written:
                partial.restart()
            self._learn(route, response, length(response.headers.get("Content-Length")))
            return True
        if status == _PARTIAL_CONTENT and ranged:
            return self._begin_rest(route, response)
        if status == _NOT_MODIFIED and headers and not ranged:
            if self._conditions is not None and self._conditions.place == place_of(response):
                return False
            self._conditions = None
            raise FailedRequestError("the URL leads to another file by now", passing=True, pause=False)
        if status == _PRECONDITION_FAILED and ranged:
            raise self._changed()
        if status == _RANGE_NOT_SATISFIABLE and ranged:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if found is not None and found[3] == str(partial.stage.written):
                if not (self._wanted.hashes or self._origin(route, response).continues(partial.origin)):
                    raise self._changed()
                partial.doubtful = True
                return False
            raise self._no_ranges(route, "the server refuses the range asked for")
        raise failed_response(response, self._system.now())

    def _begin_rest(self, route: _Route, response: httpx.Response) -> bool:
        partial = self._partial
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or found[1] != str(partial.stage.written) or body.is_encoded(response):
            raise self._no_ranges(route, "the server answers with another range than the one asked for")
        total = None if found[3] == "*" else int(found[3])
        declared = int(found[2]) + 1 - int(found[1])
        said = length(response.headers.get("Content-Length"))
        if declared <= 0 or said not in {None, declared}:
            raise self._no_ranges(route, "the server answers with a range that cannot be")
        differs = None not in {total, partial.total} and total != partial.total and partial.doubtful
        # Under a hash it is tried, since mirrors name the same bytes differently; without, nothing would tell.
        if differs or not (self._wanted.hashes or self._origin(route, response).continues(partial.origin)):
            raise self._changed()
        self._learn(route, response, partial.total if total is None else total)
        return True

    def _changed(self) -> FailedRequestError:
        self._partial.restart()
        return FailedRequestError("the file changed since its first bytes came", passing=True, pause=False)

    def _no_ranges(self, route: _Route, problem: str) -> FailedRequestError:
        route.ranges = False
        self._partial.restart()
        return FailedRequestError(problem, passing=True, pause=False)

    def _learn(self, route: _Route, response: httpx.Response, total: int | None) -> None:
        """Take down where the bytes come from, and see that the size is the one asked for."""
        size = self._wanted.size
        if total is None or body.is_encoded(response):
            total = size
        if size is not None and total != size:
            raise SizeMismatchError(
                "the server declares another size than the one asked for",
                operation="download",
                url=route.source.shown,
                expected=size,
                actual=total or 0,
                attempts=self._tries,
                elapsed=self._system.monotonic() - self._started,
                advice="The file at the source is not the one that was asked for: check the size, or the source.",
            )
        self._partial.comes_from(self._origin(route, response), total)

    def _origin(self, route: _Route, response: httpx.Response) -> Origin:
        return Origin.of(route.source.url, strong_validator(response.headers), place_of(response))


def _enough(missing: int | None) -> int:
    return _PROGRESS_OF_UNKNOWN if missing is None else min(max(1, int(missing * _PROGRESS)), _PROGRESS_OF_MUCH)


def _jitter(number: int) -> float:
    """Return how long the wait of this number is: any time up to its bound, so that many do not come in step."""
    import random

    # Which wait it is is no secret.
    return random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** max(0, number - 1)))  # noqa: S311


def _lower(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): text for name, text in response.headers.items()}

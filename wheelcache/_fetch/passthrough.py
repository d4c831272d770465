"""Visit: one request of another client that passes by the cache; :mod:`._transport` says when and how.

What is kept is staged while the other client reads it. Nothing that goes wrong here is that client's concern: then
nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from .._exceptions import WheelCacheError
from .._fs.robustio import RobustIO
from .._http.client import length
from .._models import CachedWheel
from .._request import ResolvedRequest
from .._store.index import UrlEntry, Urls
from .._store.staging import StagedFile
from .download import Answer


@dataclass(frozen=True)
class Passthrough:
    """What the cache has to say to a request.

    Attributes:
        call: this visit's.
        wanted: what is asked for.
        wheel: what the cache has under this URL or hash, if anything.
        holds: whether it may be taken without asking.
        known: what the server said of it.
        urls: where that is written down.
        temporary: the path of what may be kept; ``None`` where nothing may.
        add: makes what was staged an entry.
        asked: when the request was made, in seconds since the epoch.
    """

    fs: RobustIO
    wanted: ResolvedRequest
    wheel: CachedWheel | None
    holds: bool
    known: UrlEntry | None
    urls: Urls
    temporary: str | None
    add: Callable[[RobustIO, StagedFile, ResolvedRequest], CachedWheel]
    asked: float

    def conditions(self) -> dict[str, str]:
        """Return the header fields that ask whether what is there still holds."""
        # What was said behind a redirect is nothing to ask with before it: the client follows it by itself.
        if self.wheel is None or self.known is None or self.known.place:
            return {}
        return self.known.conditions(refresh=False)

    def open(self) -> BinaryIO | None:
        """Open the wheel, ``None`` where it is gone meanwhile."""
        return None if self.wheel is None else self.fs.open_read(str(self.wheel.path))

    def revalidated(self, fields: Mapping[str, str]) -> None:
        """Take down that what is there still holds."""
        if self.wheel is not None and self.temporary is not None:
            self._note(self.wheel, fields, modified=False)

    def keep(self, fields: Mapping[str, str]) -> KeptBody:
        """Begin to keep a body that comes with these fields of its answer."""
        return KeptBody(self, self._stage() if self._may_keep(fields) else None, fields)

    def _may_keep(self, fields: Mapping[str, str]) -> bool:
        """Whether the server lets it be kept. Under a hash it says nothing of the bytes that is not known."""
        # Only what comes from a server needs it, and the start of a process counts.
        from .._http.cache_control import freshness

        if self.wanted.hashes or freshness(fields, self.asked, self.fs.system.now()).storable:
            return True
        if self.known is not None and self.temporary is not None:
            # What it said before holds no longer either.
            self.urls.forget(self.fs, self.wanted.url)
        return False

    def _stage(self) -> StagedFile | None:
        if self.temporary is None:
            return None
        try:
            return StagedFile(self.fs, self.temporary, expected=self.wanted.hashes, shown=self.wanted.shown)
        except WheelCacheError:
            return None

    def came(self, stage: StagedFile, fields: Mapping[str, str]) -> None:
        """Make an entry of a body that was read to its end."""
        wheel = self.add(self.fs, stage, self.wanted)
        if not self.wanted.hashes:
            self._note(wheel, fields, modified=True)

    def _note(self, wheel: CachedWheel, fields: Mapping[str, str], *, modified: bool) -> None:
        answer = Answer(modified, fields, self.asked, self.wanted.url)
        self.urls.write(self.fs, self.wanted.url, wheel.hashes["sha256"], answer, self.known)


class KeptBody:
    """A body on its way past. Nothing that goes wrong with it is raised: then it is not kept."""

    def __init__(self, visit: Passthrough, stage: StagedFile | None, fields: Mapping[str, str]) -> None:
        self._visit = visit
        self._stage = stage
        self._fields = fields

    def write(self, data: bytes) -> None:
        """Take the next bytes; where they cannot be kept, nothing is."""
        if self._stage is not None:
            try:
                self._stage.write(data)
            except WheelCacheError:
                self.drop()

    def finish(self) -> None:
        """The body was read to its end."""
        # Not every transport sees that a body is shorter than it was to be.
        if self._stage is not None and length(self._fields.get("content-length")) in {None, self._stage.written}:
            try:
                self._visit.came(self._stage, self._fields)
            except WheelCacheError:
                pass  # these are other bytes than those of the hash, or the disk refuses
        self.drop()

    def drop(self) -> None:
        """Keep nothing; of what has become an entry nothing is lost."""
        if self._stage is not None:
            self._stage.__exit__(None, None, None)
            self._stage = None

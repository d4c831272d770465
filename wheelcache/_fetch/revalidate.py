"""Send conditional requests for wheels without a requested hash, and store the responses in the index."""

from __future__ import annotations

from .._fs.robustio import RobustIO
from .._http.cache_control import KEPT, freshness, is_private, stored_fields
from .._store.index import Index, UrlEntry
from .download import ResponseHead


def conditional_headers(known: UrlEntry, *, refresh: bool) -> dict[str, str]:
    """Return the header fields that ask a server whether its last response is still current."""
    fields = stored_fields(known.headers)
    validators = {"If-None-Match": fields.get("etag"), "If-Modified-Since": fields.get("last-modified")}
    headers = {name: text for name, text in validators.items() if text}
    # Caches between client and server must revalidate, too: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.4
    return {**headers, "Cache-Control": "no-cache"} if headers and refresh else headers


def remember_response(
    index: Index, fs: RobustIO, url: str, *, sha256: str, response: ResponseHead, previous: UrlEntry | None
) -> None:
    """Store the response for a URL in the index, or remove the URL if the server forbids storing it.

    Args:
        index: the index of the writable store.
        fs: the file system of the operation.
        url: the requested URL. The response of a mirror is not stored under it.
        sha256: the digest of the wheel, in hex.
        response: the response.
        previous: the previous response, or ``None``. A 304 response updates its headers.
    """
    if response.url != url:
        return
    headers = {} if response.modified or previous is None else stored_fields(previous.headers)
    if not response.modified:
        # The Age field describes only the response that contained it.
        headers.pop("age", None)
    headers.update({name: response.headers[name] for name in KEPT if name in response.headers})
    fresh = freshness(headers, response.requested_at, fs.system.now(), response.hops)
    if not fresh.storable:
        index.remove_url(fs, url)
        return
    # A 304 response without credentials does not make a body public that was received with credentials.
    was_private = not response.modified and previous is not None and previous.is_private
    entry = UrlEntry(
        sha256,
        fresh.until,
        fresh.may_be_stale,
        stored_fields(headers),
        response.place,
        is_private=was_private or response.is_private or is_private(headers),
    )
    index.write_url(fs, url, entry)

"""Remove secrets from the URLs in a text.

In each URL, ``***`` replaces the user name and password, the query, and a fragment that is not a hash or a part of a
requirement. The path is kept, even if it contains an "@". The special characters of a password are sometimes not
escaped. If the URL may contain such a password, the text up to the last "@" is replaced.

The library redacts the URLs of its own errors by the same rules, but removes every fragment.
"""

from __future__ import annotations

import re

# The user information of a well-formed URL: up to the last "@" before the path. It may contain quotation marks.
_USERINFO = re.compile(r"(?<![^\s'\"<>(=,:])//[^\s/?#\\]*@")
# A user name and a password in front of a host, without a scheme. A single letter is the drive of a path.
_LOGIN = re.compile(r"(?<![^\s'\"<>(=,])(?!file:)[^\s'\"<>(=,:/\\@]{2,}:(?!//)[^\s'\"<>]*@")
# A quotation mark in front of a URL also ends it.
_URL = re.compile(r"(?P<quote>['\"`])?\b(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>(?:(?!(?P=quote))[^\s<>])*)")
_PARTS = re.compile(r"(?P<authority>[^/?#\\]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<fragment>#.*)?", re.DOTALL)
_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::\d{0,5})?")
_PUBLIC_FRAGMENT = re.compile(r"#(?:&?(?:sha\d+|md5|egg|subdirectory)=[\w.+/\[\],-]*)+")
# Punctuation at the end of a URL belongs to the surrounding text.
_PUNCTUATION = "'\"`#:;,.)]}"
_INNER_AT = re.compile(r"[^/]@")


def redact(text: str) -> str:
    """Return a text with the secrets of its URLs replaced by ``***``."""
    return _URL.sub(_redact_url, _LOGIN.sub("***@", _USERINFO.sub("//***@", text)))


def _redact_url(url: re.Match[str]) -> str:
    scheme, rest = url["scheme"], url["rest"]
    core = rest.rstrip(_PUNCTUATION)
    parts = _PARTS.fullmatch(core)
    if parts is None or _may_show_a_password(scheme, parts):
        # The real host follows the last "@".
        _, at, host = core.rpartition("@")
        core = f"***@{host}" if at else "***"
        parts = _PARTS.fullmatch(core)
    assert parts is not None
    query, fragment = parts["query"] or "", parts["fragment"] or ""
    shown = parts["authority"] + _URL.sub(_redact_url, parts["path"])
    shown += "?***" if len(query) > 1 else query
    shown += fragment if _PUBLIC_FRAGMENT.fullmatch(fragment) else "#***" if fragment else ""
    return f"{url['quote'] or ''}{scheme}://{shown}{rest[len(rest.rstrip(_PUNCTUATION)) :]}"


def _may_show_a_password(scheme: str, parts: re.Match[str]) -> bool:
    """Return whether the host, path, query or fragment may contain a part of a password, by the library's rules."""
    userinfo, _, host = parts["authority"].rpartition("@")
    path = parts["path"]
    tail = path + (parts["query"] or "") + (parts["fragment"] or "")
    if not host:
        return "@" in tail and scheme.lower() != "file"
    if not _HOST.fullmatch(host) or "%40" in host:
        return True
    if path in {"", "/"}:
        return "@" in tail
    return bool(userinfo) and "+" not in scheme and not set(".:") & set(host) and bool(_INNER_AT.search(path))

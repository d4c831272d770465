"""Remove secrets from the URLs in a text."""

from __future__ import annotations

import re

# Up to the last "@", since a password may contain one. Part of a path with an "@" may be removed too, but no part of a
# secret remains.
_USERINFO = re.compile(r"(://)[^\s'\"<>]*@")
# Punctuation at the end of a query belongs to the surrounding text.
_QUERY = re.compile(r"(://[^\s'\"<>?#]*\?)[^\s'\"<>#]*[^\s'\"<>#:;,.)\]]")


def redact(text: str) -> str:
    """Return a text with the user names, passwords and queries of its URLs replaced by ``***``."""
    return _QUERY.sub(r"\1***", _USERINFO.sub(r"\1***@", text))

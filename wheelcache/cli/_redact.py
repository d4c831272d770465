"""How a text is shown without the secrets of the URLs in it."""

from __future__ import annotations

import re

# Up to the last "@": a password may have one of its own. It takes too much of a path with an "@", never too little.
_USERINFO = re.compile(r"(://)[^\s'\"<>]*@")
# Less the punctuation behind it, which is the text's.
_QUERY = re.compile(r"(://[^\s'\"<>?#]*\?)[^\s'\"<>#]*[^\s'\"<>#:;,.)\]]")


def redact(text: str) -> str:
    """Return a text without the user names, passwords and queries of the URLs in it."""
    return _QUERY.sub(r"\1***", _USERINFO.sub(r"\1***@", text))

"""The HTTP library in use. Importing this module loads it, so no module on the path of a hit does."""

from __future__ import annotations

import httpcore
import httpx

__all__ = ["httpcore", "httpx"]

"""Create our own HTTP client from the environment.

The client uses the same environment variables as httpx: https://www.python-httpx.org/environment_variables/.
"""

from __future__ import annotations

from typing import Any

from ... import __version__
from ..adapters.library import default_library
from .routes import RoutingTransport

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 30.0


def create_client() -> Any:
    """Create a client of httpx2 or httpx from the environment."""
    library = default_library()
    httpx = library.httpx
    return httpx.Client(
        transport=RoutingTransport(library),
        timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
        headers={"User-Agent": f"wheelcache/{__version__}"},
    )

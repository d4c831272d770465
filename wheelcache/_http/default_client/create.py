"""Our own HTTP client, created from the environment.

The client uses the same environment variables as httpx: https://www.python-httpx.org/environment_variables/.
"""

from __future__ import annotations

import os
from typing import Any

from ... import __version__
from ..adapters.library import default_library
from ..errors import FailedRequestError, explain, system_error
from .pool import PoolTransport
from .proxies import environment_proxies

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 30.0
# httpx's errors do not name these variables, and may quote the value of a proxy, with its password.
_PATH_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def create_client() -> Any:
    """Create a client of httpx2 or httpx from the environment.

    Raises:
        FailedRequestError: if the settings of the environment are not valid.
    """
    library = default_library()
    httpx = library.httpx
    try:
        context = httpx.create_ssl_context()
        mounts = {
            pattern: None if proxy is None else PoolTransport(library, context, httpx.Proxy(proxy))
            for pattern, proxy in environment_proxies().items()
        }
        return httpx.Client(
            transport=PoolTransport(library, context),
            mounts=mounts,
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            headers={"User-Agent": f"wheelcache/{__version__}"},
        )
    except (OSError, ValueError, httpx.InvalidURL) as error:
        paths = [f"{name}={os.environ[name]}" for name in _PATH_VARIABLES if os.environ.get(name)]
        proxies = [name for name in _PROXY_VARIABLES if os.environ.get(name) or os.environ.get(name.lower())]
        variables = ", ".join(paths + proxies) or "the system's proxies"
        raise FailedRequestError(
            f"cannot create an HTTP client from the environment ({variables}): {explain(error)}",
            is_transient=False,
            hint="Check these variables or, in Python, pass a client of your own: client=httpx.Client(...).",
        ) from system_error(error)

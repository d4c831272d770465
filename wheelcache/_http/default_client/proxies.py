"""The proxies of the environment. httpx reads them only for its own transports, so this module reads them."""

from __future__ import annotations

import ipaddress
from urllib.request import getproxies


def environment_proxies() -> dict[str, str | None]:
    """Return the proxies of the environment, else those of the system, as mounts: the proxy's URL for each pattern.

    ``None`` stands for no proxy: https://www.python-httpx.org/advanced/proxies/#routing
    """
    settings = getproxies()
    mounts: dict[str, str | None] = {}
    # getproxies() also returns other variables with names like these, such as "foo_proxy".
    for scheme in ("http", "https", "all"):
        if proxy := settings.get(scheme):
            mounts[f"{scheme}://"] = proxy if "://" in proxy else f"http://{proxy}"
    exceptions = [host.strip() for host in settings.get("no", "").split(",")]
    if "*" in exceptions:
        return {}
    return mounts | dict.fromkeys(map(_pattern, filter(None, exceptions)))


def _pattern(host: str) -> str:
    """Return the pattern of an entry of NO_PROXY. A domain includes its subdomains."""
    if "://" in host:
        return host
    if host.lower() == "localhost":
        return f"all://{host}"
    try:
        address = ipaddress.ip_address(host.partition("/")[0])
    except ValueError:
        return f"all://*{host}"
    return f"all://[{host}]" if isinstance(address, ipaddress.IPv6Address) else f"all://{host}"

"""The proxies of the environment, for the downloads of the command line."""

from __future__ import annotations

import pytest
from marks import any_system
from server import Server
from shell import LIB, Shell

pytestmark = any_system

SECRET = "hunter2"
UNUSABLE = [f"socks4://me:{SECRET}@127.0.0.1:1", f"http://me:{SECRET}#x@127.0.0.1:1", f"me:1#{SECRET}@127.0.0.1:1"]
UNUSABLE += ["::1", f"http://me:{SECRET}@[::1"]


@pytest.mark.parametrize("proxy", UNUSABLE)
def test_an_unusable_proxy_fails_only_the_requests_that_need_it(proxy: str, shell: Shell, server: Server):
    """A host that NO_PROXY covers is reached. The error for another host is one line, without the password."""
    url = server.serve(f"/{LIB.filename}", LIB.data)
    covered = shell.fetch(url, ALL_PROXY=proxy, NO_PROXY="fd00::/8,[bad,127.0.0.0/8")
    assert covered.rows == {LIB.filename: "downloaded"}
    ran = shell.fetch(f"http://wheels.example.org/other/{LIB.filename}", ALL_PROXY=proxy)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "cannot be used" in ran.err
    assert SECRET not in ran.err + ran.out


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.0/8", "fd00::/8, 127.0.0.1", "example.org,*"])
def test_a_proxy_receives_the_requests_that_no_entry_covers(entry: str, shell: Shell, server: Server):
    """A request through the proxy has the whole URL as its target; a covered one has not."""
    server.serve(f"/{LIB.filename}", LIB.data)
    settings = {"HTTP_PROXY": f"127.0.0.1:{server.port}", "NO_PROXY": entry}
    assert shell.fetch(server.url(f"/{LIB.filename}"), **settings).rows == {LIB.filename: "downloaded"}
    if "*" not in entry:
        shell.fetch(f"http://wheels.example.org/{LIB.filename}", **settings)
    proxied = [request.target.startswith("http:") for request in server.requests()]
    assert proxied == ([False] if "*" in entry else [False, True])

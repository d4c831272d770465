"""The command line ``wheelcache <command>`` of the extra ``wheelcache[cli]``.

For contributors. Each module in ``commands/`` contains one click command. The command is named ``command``, and returns
the exit code. A command is imported when it runs, so that start-up time does not grow with the number of commands. A
new command needs a module and its name in ``_group``. The library never imports this package. This package uses only
the public API of the library::

    _group          the click group, and the translation of exceptions into exit codes
    commands/       one module per command: parses options, calls the library, prints
    resolve/        the wheels that the arguments of ``fetch`` request
        arguments       sort arguments into requirements, lock files, URLs and local files
        requirements    resolve requirements with pip
        pylock          read lock files
        pip             run pip as a subprocess, for its report, settings and errors
        credentials     the user's index credentials and netrc
        requests        the results: requests for the cache, and failures
    _http_client    an httpx client with pip's settings: certificates, proxies, credentials
    _transport      its transports: the authorities and proxies of the environment
    _fetch          the two passes of ``fetch``: from the cache, then from the network
    _select         the cached wheels of a project, digest or file name
    _options        options that several commands share
    _output         tables, JSON, numbers, errors
    _prune_report   the output of ``prune``, ``rm`` and ``clear``
    _progress       progress bars
    _redact         text without the secrets in its URLs
    _errors         the exceptions of the command line
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

_REQUIRED = ("click", "rich")
_USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code.

    Args:
        arguments: the arguments without the program name, or ``None`` for the arguments of this process.
    """
    missing = [name for name in _REQUIRED if find_spec(name) is None]
    if missing:
        print(  # noqa: T201
            f"error: the command line requires {' and '.join(missing)}: python -m pip install 'wheelcache[cli]'",
            file=sys.stderr,
        )
        return _USAGE_ERROR
    from ._group import run

    return run(arguments)

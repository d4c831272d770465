"""The command line, of the extra ``wheelcache[cli]``: ``wheelcache <command>``, or ``python -m wheelcache.cli``.

For contributors. One module is one command: it has a click command called ``command``, which returns the exit code, and
it is imported when it is called for, so that start-up stays quick however many there are. A new one is a module and a
line in ``_group``. Nothing here is imported by the library, and nothing here does what the library should do::

    _group      the commands, and what becomes of errors
    _options    options that several commands have
    _output     tables, JSON, sizes, errors: everything that is printed
    fetch       the command: what is wanted -> the cache -> the report
    doctor      the command: the cache folder -> a report of how it does there
    _sort       which argument is a requirement, a lock file, a URL, a wheel file
    _resolve    requirements, by pip        _pylock   lock files        _items   what both make: wheels to get, problems
    _pip        pip as a subprocess: its settings, and nothing secret in what it says
    _client     an HTTP client that does as pip's settings say
    _bars       progress on a terminal
    ls, info, stats, dir, export, prune, rm, clear, verify    the commands that keep a cache, each a call of the library
    _choice     which wheels a command is about     _removed    what becomes of a report of what went
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

_NEEDED = ("click", "rich")
_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: what stands behind the program's name; ``None`` for those of this process.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(  # noqa: T201
            f"error: the command line needs {' and '.join(missing)}: python -m pip install 'wheelcache[cli]'",
            file=sys.stderr,
        )
        return _USAGE
    from ._group import run

    return run(arguments)

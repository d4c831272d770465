"""The lock that keeps a fork from interrupting an import.

Python holds a lock for each module that is being imported. If a process forks while another thread imports a module,
the child inherits a locked lock that no thread will release, and hangs when it imports the same module. So every import
inside a function of the library holds :data:`import_lock`, and a fork waits for that lock. This covers the imports at
the top of a module that is imported in this way, too::

    with import_lock:
        from ._maintenance import stats

Imports of other distributions hold :data:`third_party_import_lock`, which is the same lock with one precaution. The
functions that precede a fork run in the reverse order of their registration, and :mod:`logging` registers one that
acquires the lock of logging. Modules use that lock while they are imported. If a fork acquired it before the import
lock, the fork and an import would wait for each other. So the import lock is registered again once logging is imported.
"""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType

import_lock = threading.RLock()
"""Held around every import inside a function. It is reentrant, since the imported module may import others."""


def _release_after_fork() -> None:
    # In the child, the forking thread still holds the lock, with the same thread identifier, and can release it.
    try:
        import_lock.release()
    except RuntimeError:
        pass  # registered while this fork was waiting, which therefore did not acquire the lock once more


def _register() -> None:
    if sys.platform != "win32":
        os.register_at_fork(
            before=import_lock.acquire, after_in_parent=_release_after_fork, after_in_child=_release_after_fork
        )


class _ThirdPartyImportLock:
    def __init__(self) -> None:
        self._is_prepared = sys.platform == "win32" or "logging" in sys.modules

    def __enter__(self) -> None:
        if not self._is_prepared:
            self._prepare()
        import_lock.acquire()

    def _prepare(self) -> None:
        with import_lock:
            import logging

            if not self._is_prepared:
                _register()
                self._is_prepared = True
        # A fork that began before the registration may hold the lock of logging, and wait for the import lock. This
        # call waits for the lock of logging, and so for that fork, while the import lock is free.
        logging.getLogger("wheelcache")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import_lock.release()


_register()
third_party_import_lock = _ThirdPartyImportLock()
"""Held around every import of another distribution inside a function, and of modules that import one."""

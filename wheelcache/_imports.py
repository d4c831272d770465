"""The lock that keeps a fork from interrupting an import.

Python holds a lock for each module that is being imported. If a process forks while another thread imports a module,
the child inherits a lock that no thread will release. The child then hangs when it imports the same module. So every
import inside a function of the library holds :data:`import_lock`. A fork waits for this lock. The lock also covers the
imports at the top of a module that is imported in this way::

    with import_lock:
        from ._maintenance import stats

Imports of other distributions hold :data:`third_party_import_lock`. It is the same lock with one precaution. Before
a fork, registered functions run in the reverse order of their registration. One of them is registered by
:mod:`logging`, and acquires the lock of logging. Modules use that lock while they are imported. If a fork acquired the
lock of logging before the import lock, the fork and an import would wait for each other. So the import lock is
registered again after logging was imported.
"""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType

import_lock = threading.RLock()
"""The lock around every import inside a function. It is reentrant, since the imported module may import others."""


def _release_after_fork() -> None:
    # In the child, the forking thread has the same thread identifier, still holds the lock, and can release it.
    try:
        import_lock.release()
    except RuntimeError:
        pass  # registered while this fork was waiting, so the fork did not acquire the lock a second time


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
        # A fork that began before the registration may hold the lock of logging and wait for the import lock. This call
        # waits for the lock of logging while the import lock is free, so that the fork can finish.
        logging.getLogger("wheelcache")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import_lock.release()


_register()
third_party_import_lock = _ThirdPartyImportLock()
"""The lock around every import inside a function that imports another distribution, directly or indirectly."""

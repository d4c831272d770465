"""The lock that keeps a fork from interrupting an import.

Python holds a lock for each module that is being imported. If a process forks while another thread imports a module,
the child inherits a locked lock that no thread will release, and hangs when it imports the same module. So every import
inside a function of the library holds :data:`import_lock`, and a fork waits for that lock. This covers the imports at
the top of a module that is imported in this way, too::

    with import_lock:
        import tenacity
"""

from __future__ import annotations

import os
import threading

import_lock = threading.RLock()
"""Held around every import inside a function. It is reentrant, since the imported module may import others."""

if hasattr(os, "register_at_fork"):
    # In the child, the forking thread still holds the lock, with the same thread identifier, and can release it.
    os.register_at_fork(
        before=import_lock.acquire, after_in_parent=import_lock.release, after_in_child=import_lock.release
    )

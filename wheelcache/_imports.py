"""Imports that start while the process runs, and how a fork does not interrupt them.

Python keeps a lock for each module that is being imported. A child that is forked while another thread imports a module
inherits that lock in its locked state, and nobody in the child will ever release it: the child hangs at its own import
of the same module. So every import that the library starts after it was itself imported holds :data:`import_lock`, and
a fork waits for that lock. Imports at the top of a module that is imported under the lock are covered too.

    with import_lock:
        import tenacity
"""

from __future__ import annotations

import os
import threading

import_lock = threading.RLock()
"""Held while the library imports a module. Reentrant, since such a module may start imports of its own."""

if hasattr(os, "register_at_fork"):
    # The thread that forks holds the lock in the child too, under the same thread identifier, and so can release it.
    os.register_at_fork(
        before=import_lock.acquire, after_in_parent=import_lock.release, after_in_child=import_lock.release
    )

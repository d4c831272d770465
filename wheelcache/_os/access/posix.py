"""Whether other users can write to folders, on POSIX systems.

A folder is private if its owner is the effective user or root, and neither its group nor others may write to it. The
owner matters, because an owner can always change the mode.

On Linux, the mode also shows the write permission of an access control list. If a folder has such a list, the group
bits of its mode are the mask of the list, and the mask limits every named user and group:
https://man7.org/linux/man-pages/man5/acl.5.html. On macOS, an access control list does not appear in the mode. A folder
with any such list counts as shared.

A sticky folder that everybody may write to counts as shared, because other users may create files in it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence

if sys.platform == "win32":  # pragma: no cover - mypy checks this module for Windows too
    raise ImportError("this module is for POSIX systems")

from ..._imports import import_lock

_ROOT = 0
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# From <sys/acl.h> of macOS.
_ACL_TYPE_EXTENDED = 0x100


def is_private(paths: Sequence[str]) -> bool:
    """Return whether only the effective user and root can write to all of these folders.

    Links are followed. A missing folder is skipped. A folder that cannot be examined counts as shared.
    """
    user = os.geteuid()
    for path in paths:
        try:
            found = os.stat(path)
            has_list = sys.platform == "darwin" and _has_access_list(path)
        except FileNotFoundError:
            continue
        except OSError:
            return False
        if has_list or found.st_mode & _WRITABLE_BY_OTHERS or found.st_uid not in (user, _ROOT):
            return False
    return True


def _has_access_list(path: str) -> bool:
    """Return whether a folder has an access control list of macOS, or whether the system does not say so."""
    with import_lock:  # already loaded, since the boot ID of macOS needs it
        import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    read, free = library.acl_get_file, library.acl_free
    read.restype, free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    access_list = read(os.fsencode(path), ctypes.c_int(_ACL_TYPE_EXTENDED))
    if access_list is None:
        # A file without a list is reported as missing, although the file itself exists.
        return ctypes.get_errno() != errno.ENOENT
    free(access_list)
    return True

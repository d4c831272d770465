"""The permissions and the owner of new files in a cache folder that is shared, private or owned by another user."""

from __future__ import annotations

import os
import stat
import sys
from typing import NamedTuple

if sys.platform == "win32":  # pragma: no cover - mypy checks this module for Windows too
    raise ImportError("this module is for POSIX systems")


class Modes(NamedTuple):
    """The permissions and the owner of new files in a cache, where the defaults of the umask would be wrong.

    Attributes:
        file: permissions of files.
        folder: permissions of folders.
        owner: the user and group that own them, or ``None`` for the user of this process.
        only_limits: whether the umask decides within these permissions, and nothing is set after the creation.
    """

    file: int
    folder: int
    owner: tuple[int, int] | None
    only_limits: bool = False

    @classmethod
    def for_root(cls, root: os.stat_result) -> Modes | None:
        """Return the modes for a cache folder, or ``None`` if the umask decides."""
        mode = root.st_mode
        shared = bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)
        private = not mode & (stat.S_IRWXG | stat.S_IRWXO)
        # Files that root, usually through sudo, writes into a user's cache would lock that user out.
        owner = (root.st_uid, root.st_gid) if os.geteuid() == 0 and root.st_uid != 0 else None
        if not (shared or private or owner):
            # With the umask 0002, the group could write to the folders in a cache whose own folder is not writable.
            return None if mode & (stat.S_IWGRP | stat.S_IWOTH) else cls(0o644, 0o755, None, only_limits=True)
        # New files are never writable by everybody, even if the folder is, because a user who can write to them
        # controls the packages that others install. They are always writable by the owner, because they must not remain
        # read-only if the folder is read-only for a while.
        return cls(mode & 0o664 | 0o600, mode & 0o2775 | 0o700, owner)

    def apply(self, handle: int, mode: int, folder: int) -> None:
        """Set the mode and the owner of a new file or folder, given the descriptor of its parent folder.

        Errors are ignored, because the file works for the user who created it even without the mode.
        """
        if self.only_limits:
            return
        try:
            # The owner of the cache may have put a link into the path. So the owner is only set in folders that the
            # owner has.
            if self.owner is not None and os.fstat(folder).st_uid == self.owner[0]:
                os.fchown(handle, *self.owner)
            # The mode is set last, because a change of the owner clears the setgid bit.
            os.fchmod(handle, mode)
        except OSError:
            pass

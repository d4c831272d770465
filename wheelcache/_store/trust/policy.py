"""Decide whether digests that another process recorded are accepted. No other module decides that.

A record or marker says that a file had some digests when it had some fingerprint. This process accepts that statement,
instead of hashing the file, only within the boot in which it was recorded, and only if it trusts every user who can
write to the cache folder:

=============  ======================  ================================
``verify``     only we or root can     others can write
=============  ======================  ================================
``"auto"``     accepted                not accepted
``"records"``  accepted                accepted
``"full"``     not accepted            not accepted
=============  ======================  ================================

Digests that this process computed itself are accepted while the file keeps its fingerprint, except with ``"full"``.

The decision is made at its first use, and once for each :class:`TrustPolicy`. It examines the root, ``v1`` and the area
folders that exist. For a record, it only examines the folders whose content becomes a wheel or a record, because the
first hit of a process must be fast. A user who can only write to other areas can change neither of them. A missing area
is created later by this user or root, because nobody else can write to ``v1``. Folders above the root are not examined.
A user who can rename the root can put another folder in its place, but that folder belongs to that user, and so it is
not private for the next object that opens it.
"""

from __future__ import annotations

from ..._fs.flush import flush_file
from ..._fs.robustio import RobustIO
from ..._options import Verify
from ..._os.volume import Volume
from ..layout import Layout


class TrustPolicy:
    """The worth of the digests that are recorded in one cache folder.

    Args:
        layout: the paths of the cache folder.
        verify: the option of ``Cache``.

    Attributes:
        is_full: whether every file is hashed at every use, even if this process has hashed it before.
    """

    def __init__(self, layout: Layout, verify: Verify) -> None:
        self._layout = layout
        self._verify = verify
        self.is_full = verify == "full"
        self._is_private: bool | None = None
        self._has_private_wheels: bool | None = None
        self._volume: Volume | None = None

    def is_private(self, fs: RobustIO) -> bool:
        """Return whether only this user and root can write to the cache folder."""
        if self._is_private is None:
            self._is_private = fs.system.is_private(self._layout.folders())
        return self._is_private

    def accepts_content(self, fs: RobustIO) -> bool:
        """Return whether content of the cache folder is accepted that no requested hash covers."""
        return self._verify == "records" or self.is_private(fs)

    def accepts_record(self, fs: RobustIO, boot: str | None) -> bool:
        """Return whether the digests in a record are accepted, as :meth:`accepts` does for a marker."""
        if not self._may_accept(fs, boot):
            return False
        if self._verify == "records":
            return True
        if self._has_private_wheels is None:
            self._has_private_wheels = fs.system.is_private(self._layout.folders_of_wheels())
        return self._has_private_wheels

    def accepts(self, fs: RobustIO, boot: str | None) -> bool:
        """Return whether digests are accepted that any user of the cache folder recorded in this boot.

        They are accepted only for files that have kept their fingerprints.

        Args:
            fs: the file system of the operation.
            boot: the boot in the record or marker, or ``None`` if its system does not identify its boots.
        """
        return self._may_accept(fs, boot) and self.accepts_content(fs)

    def _may_accept(self, fs: RobustIO, boot: str | None) -> bool:
        return not self.is_full and boot is not None and boot == fs.system.boot()

    def flush_before_record(self, fs: RobustIO, path: str) -> bool:
        """Flush a file before its record is written, if its volume may disappear and return within one boot.

        Otherwise, the record could reach the volume without the bytes of the file. A file on an ordinary disk is not
        flushed, because after a power cut, the machine is in another boot.

        Returns:
            Whether the record may be accepted by another process.

        Raises:
            CommitError: if the volume could not store the file.
        """
        volume = self._describe_volume(fs)
        return not (volume.remote or volume.removable) or flush_file(fs, path)

    def can_trust_markers(self, fs: RobustIO) -> bool:
        """Return whether a marker may be accepted by another process, in its boot.

        A tree may have thousands of files, and flushing each of them would take minutes on a removable volume. There, a
        marker is not accepted, and each process compares a tree once. A network drive sends a file to its server when
        the file is closed, and so before the marker is written: https://man7.org/linux/man-pages/man5/nfs.5.html
        """
        return not self._describe_volume(fs).removable

    def _describe_volume(self, fs: RobustIO) -> Volume:
        if self._volume is None:
            self._volume = fs.system.volume(self._layout.root)
        return self._volume

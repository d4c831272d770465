"""What a refusal of the file system means: whether it can pass, whether there is another way, or whether it is final.

Windows errors are told by ``winerror``, never by ``errno``, which folds a dozen of them into EACCES. Where a code alone
does not tell (5 is a scanner as well as a permission), :mod:`._ladder` looks at what is there to see.

What is there to see, where a code alone does not tell what is behind a refusal.

"Access denied" is a scanner as well as a permission, and "not supported" is a file system, a container's mapped folder
or a cloud service. It is looked at once for an operation that was refused, and never on the way of one that succeeds.
"""

from __future__ import annotations

import errno
import os
import sys
from enum import Enum

from .._exceptions import Cause
from .._os.system import System
from .tempnames import OwnerTag

_MAY_PASS = {errno.EACCES, errno.EPERM, errno.EBUSY, errno.ESTALE, errno.ETXTBSY}


def can_be_transient(error: OSError, path: str) -> bool:
    """Return whether this refusal can pass by itself: only where file systems of other machines are behind the path.

    A local EACCES is a matter of permissions, and waiting for it helps nobody.
    """
    if sys.platform == "win32" or error.errno not in _MAY_PASS:
        return False
    # Only what was refused asks.
    from .._os.volume_posix import FOREIGN, file_system_type

    return error.errno == errno.ESTALE or file_system_type(path) in FOREIGN


class ErrorKind(Enum):
    """The kinds of refusal, by what can be done about them."""

    EXISTS = "the target exists"
    MISSING = "the file or its folder is not there"
    TRANSIENT = "somebody holds the file, and will let go"
    UNSUPPORTED = "this volume has no such operation"
    BLOCKED = "security software removed or blocked the file"
    NO_SPACE = "the volume or the quota is full"
    PERMANENT = "it will be refused again"


_DELETE_PENDING = 303
_TOO_MANY_OPEN_FILES = 4
_NOT_SAME_DEVICE = 17
# https://learn.microsoft.com/windows/win32/debug/system-error-codes
_BY_WINERROR = {
    80: ErrorKind.EXISTS,
    183: ErrorKind.EXISTS,
    2: ErrorKind.MISSING,
    3: ErrorKind.MISSING,
    # Access denied, sharing violation, lock violation, delete pending, a mapped section is open.
    5: ErrorKind.TRANSIENT,
    32: ErrorKind.TRANSIENT,
    33: ErrorKind.TRANSIENT,
    _DELETE_PENDING: ErrorKind.TRANSIENT,
    1224: ErrorKind.TRANSIENT,
    # Network drives: no longer there, unexpected error, name gone, time-out, unreachable.
    55: ErrorKind.TRANSIENT,
    59: ErrorKind.TRANSIENT,
    64: ErrorKind.TRANSIENT,
    121: ErrorKind.TRANSIENT,
    1231: ErrorKind.TRANSIENT,
    # Invalid function, another device, not supported, invalid parameter (of an information class the volume does not
    # know), call not implemented, blocks with too many owners, cloud files that cannot be linked, too many links.
    1: ErrorKind.UNSUPPORTED,
    _NOT_SAME_DEVICE: ErrorKind.UNSUPPORTED,
    50: ErrorKind.UNSUPPORTED,
    87: ErrorKind.UNSUPPORTED,
    120: ErrorKind.UNSUPPORTED,
    347: ErrorKind.UNSUPPORTED,
    396: ErrorKind.UNSUPPORTED,
    1142: ErrorKind.UNSUPPORTED,
    225: ErrorKind.BLOCKED,
    226: ErrorKind.BLOCKED,
    39: ErrorKind.NO_SPACE,
    112: ErrorKind.NO_SPACE,
    1295: ErrorKind.NO_SPACE,
}
_BY_ERRNO = {
    errno.EEXIST: ErrorKind.EXISTS,
    errno.ENOENT: ErrorKind.MISSING,
    errno.EXDEV: ErrorKind.UNSUPPORTED,
    errno.ENOSYS: ErrorKind.UNSUPPORTED,
    errno.ENOTSUP: ErrorKind.UNSUPPORTED,
    errno.EOPNOTSUPP: ErrorKind.UNSUPPORTED,
    errno.EMLINK: ErrorKind.UNSUPPORTED,
    errno.ENOSPC: ErrorKind.NO_SPACE,
    errno.EDQUOT: ErrorKind.NO_SPACE,
}
# They belong to one file, not to its volume, and so say nothing about the next one.
_OF_ONE_FILE = {347, 1142}
# What the cloud files driver says, of files that are not here or belong to a service that does not run.
_OF_CLOUDS = range(358, 405)


def classify(error: OSError, path: str) -> ErrorKind:
    """Return what this refusal of an operation on this path means, as far as its code tells."""
    winerror = winerror_of(error)
    if winerror is not None:
        return _BY_WINERROR.get(winerror, ErrorKind.PERMANENT)
    if error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    if can_be_transient(error, path):
        return ErrorKind.TRANSIENT
    return ErrorKind.PERMANENT


def is_permanently_unsupported(error: OSError) -> bool:
    """Return whether an unsupported operation will be so for every file of this folder."""
    return winerror_of(error) not in _OF_ONE_FILE and error.errno != errno.EMLINK


def is_limited_to_folder(error: OSError, *, same_volume: bool) -> bool:
    """Return whether an unsupported operation may be supported in other folders of the same volume.

    ``same_volume`` says whether both paths of the operation report the same volume.
    """
    if winerror_of(error) is None:
        return same_volume and error.errno == errno.EXDEV
    return winerror_of(error) in _OF_CLOUDS or (same_volume and winerror_of(error) == _NOT_SAME_DEVICE)


def is_delete_pending(error: OSError) -> bool:
    """Return whether the file is deleted already, and its name only stays until its last holder lets go."""
    return winerror_of(error) == _DELETE_PENDING


def winerror_of(error: OSError) -> int | None:
    """Return the Windows code of an error, ``None`` where it has none."""
    code = getattr(error, "winerror", None)
    return code if isinstance(code, int) and code else None


def code_of(error: OSError) -> str:
    """Return the code as people search for it."""
    winerror = winerror_of(error)
    return f"winerror {winerror}" if winerror is not None else f"errno {error.errno}"


_ADVICE = {
    Cause.HELD: (
        "Exclude the cache folder from scanning and indexing, close the program that holds the file, or give "
        "io_timeout= more seconds."
    ),
    Cause.DENIED: "Check the permissions of this path, or choose another cache folder.",
    Cause.MAPPED: (
        "A folder that is mapped from another machine, drive or container lacks what local ones have: choose a cache "
        "folder on a volume of this machine or container, and give the other one as a layer."
    ),
    Cause.CLOUD: "Choose a cache folder that no cloud service keeps: the user's local application data is none.",
    Cause.UNSUPPORTED: "This volume lacks what is needed: choose a cache folder on another one.",
    Cause.REMOVED: "Look into the log of the security software, and allow this wheel or the cache folder.",
    Cause.IN_THE_WAY: "Move away what stands at this path.",
    Cause.FULL: "Make room on the volume, or remove wheels from the cache.",
    Cause.TOO_LONG: "Choose a cache folder with a shorter path.",
    Cause.BROKEN: "Check the volume that holds the cache folder.",
}
_ADVICE_BY_ERRNO = {
    errno.EMFILE: "Too many files are open in this process: raise its limit, or run fewer jobs at once.",
    errno.ENFILE: "Too many files are open on this machine: raise its limit, or run fewer jobs at once.",
    errno.EROFS: "The volume is read-only: open the cache with read_only=True, or choose another folder.",
}
_CAUSES = {
    ErrorKind.TRANSIENT: Cause.HELD,
    ErrorKind.UNSUPPORTED: Cause.UNSUPPORTED,
    ErrorKind.BLOCKED: Cause.REMOVED,
    ErrorKind.NO_SPACE: Cause.FULL,
    ErrorKind.EXISTS: Cause.IN_THE_WAY,
}
_CAUSES_BY_ERRNO = {
    errno.EACCES: Cause.DENIED,
    errno.EPERM: Cause.DENIED,
    errno.EROFS: Cause.DENIED,
    errno.EISDIR: Cause.IN_THE_WAY,
    errno.ENOTDIR: Cause.IN_THE_WAY,
    errno.ELOOP: Cause.IN_THE_WAY,
    errno.ENAMETOOLONG: Cause.TOO_LONG,
}
_CAUSES_BY_WINERROR = {206: Cause.TOO_LONG, 267: Cause.IN_THE_WAY, 19: Cause.DENIED}


def cause_of(error: OSError, path: str) -> Cause:
    """Return the class of what is behind a refusal, as far as its code tells."""
    refusal = classify(error, path)
    winerror = winerror_of(error)
    if winerror in _OF_CLOUDS:
        return Cause.CLOUD
    if refusal in _CAUSES:
        return _CAUSES[refusal]
    if winerror is not None:
        return _CAUSES_BY_WINERROR.get(winerror, Cause.BROKEN)
    return _CAUSES_BY_ERRNO.get(error.errno or 0, Cause.BROKEN)


def advice_for(error: OSError, cause: Cause) -> str:
    """Return what to do next."""
    if winerror_of(error) == _TOO_MANY_OPEN_FILES:
        return _ADVICE_BY_ERRNO[errno.EMFILE]
    if winerror_of(error) is None and error.errno in _ADVICE_BY_ERRNO:
        return _ADVICE_BY_ERRNO[error.errno]
    return _ADVICE[cause]


_ACCESS_DENIED = 5


def is_access_denied(error: OSError) -> bool:
    """Return whether this is "access denied" and not "somebody holds it", of which Python makes the same class."""
    return isinstance(error, PermissionError) and winerror_of(error) in {None, _ACCESS_DENIED}


def permanent_cause(system: System, path: str, *, making: bool, folder: bool = False) -> Cause | None:
    """Return why "access denied" at a path will come again, ``None`` where it can pass.

    Args:
        system: the machine.
        path: a file, or a ``folder`` that is to be made.
        making: a new name was to be given, which the folder above may not allow; else a file was to be opened.
        folder: it is a folder that was to be made.
    """
    if not folder and system.files.is_dir(path):
        return Cause.IN_THE_WAY
    if making and not probe_writable(system, os.path.dirname(path), folder=folder):
        return Cause.DENIED
    return None


def probe_writable(system: System, parent: str, *, folder: bool = False) -> bool:
    """Return whether a file, or a ``folder``, can be made in a folder: where not, its permissions are the reason."""
    probe = os.path.join(parent, OwnerTag.new(system.now(), system.boot()) + ".tmp")
    try:
        if folder:
            system.files.mkdir(probe)
        else:
            file = system.files.create(probe)
            try:
                file.close()
            except OSError:
                pass  # nothing was written
    except OSError as error:
        return classify(error, probe) is ErrorKind.MISSING or not is_access_denied(error)
    try:
        (system.files.rmdir if folder else system.files.unlink)(probe)
    except OSError:
        pass  # it has its owner and its age in its name, and is swept later
    return True


def observed_cause(system: System, error: OSError, path: str, *, reading: bool = False) -> Cause:
    """Return the class of what is behind a refusal, by its code and by the volume that it happened on.

    Who holds a file keeps others from ``reading`` it by another code than "access denied": that is a permission then.
    """
    cause = cause_of(error, path)
    denied = cause is Cause.HELD and is_access_denied(error)
    if denied or cause is Cause.UNSUPPORTED:
        volume = system.volume(path)
        if volume.cloud:
            return Cause.CLOUD
        if volume.mapped or volume.remote:
            return Cause.MAPPED
    return Cause.DENIED if denied and reading else cause

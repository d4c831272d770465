"""Classify the errors of file operations, and find their cause and advice.

Windows errors are classified by ``winerror``. Their ``errno`` is not precise enough, because a dozen codes share
EACCES. A code alone can be ambiguous. "Access denied" may be due to a scanner or to permissions. "Not supported" may be
due to a file system, a container's mapped folder or a cloud service. The functions of the second half look for evidence
in the file system. They run once per refused operation, and never for an operation that succeeds.
"""

from __future__ import annotations

import errno
import os
import sys
from enum import Enum

from .._exceptions import Cause
from .._imports import import_lock
from .._os.confined.entries import UnsafePathError
from .._os.system import System
from .tempnames import OwnerTag


class ErrorKind(Enum):
    """The kinds of errors. They differ in how the caller can respond."""

    EXISTS = "the target exists"
    MISSING = "the file or its folder does not exist"
    TRANSIENT = "another process holds the file and will release it"
    UNSUPPORTED = "the volume does not support the operation"
    BLOCKED = "security software removed or blocked the file"
    NO_SPACE = "the volume or the quota is full"
    PERMANENT = "the operation will be refused again"


# https://learn.microsoft.com/windows/win32/debug/system-error-codes
_TOO_MANY_OPEN_FILES = 4
_ACCESS_DENIED = 5
_NOT_SAME_DEVICE = 17
_DELETE_PENDING = 303
_BY_WINERROR = {
    80: ErrorKind.EXISTS,
    183: ErrorKind.EXISTS,
    2: ErrorKind.MISSING,
    3: ErrorKind.MISSING,
    # Access denied, sharing violation, lock violation, delete pending, a mapped section is open.
    _ACCESS_DENIED: ErrorKind.TRANSIENT,
    32: ErrorKind.TRANSIENT,
    33: ErrorKind.TRANSIENT,
    _DELETE_PENDING: ErrorKind.TRANSIENT,
    1224: ErrorKind.TRANSIENT,
    # Network drives: no longer available, unexpected error, name deleted, timeout, unreachable.
    55: ErrorKind.TRANSIENT,
    59: ErrorKind.TRANSIENT,
    64: ErrorKind.TRANSIENT,
    121: ErrorKind.TRANSIENT,
    1231: ErrorKind.TRANSIENT,
    # Invalid function, another device, not supported, invalid parameter (of an information class that the volume does
    # not know), call not implemented, blocks with too many owners, cloud files that cannot be linked, too many links.
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
# Errors of one file and not of its volume: too many owners of a block, too many links.
_WINERRORS_OF_ONE_FILE = {347, 1142}
# Errors of the cloud files driver, if the content is not on this machine or the service does not run.
_WINERRORS_OF_CLOUD_FILES = range(358, 405)
# These codes are transient only on file systems that relay errors of another machine or program.
_TRANSIENT_ON_FOREIGN = {errno.EACCES, errno.EPERM, errno.EBUSY, errno.ESTALE, errno.ETXTBSY}


def winerror_of(error: OSError) -> int | None:
    """Return the Windows code of an error, or ``None`` if it has none."""
    code = getattr(error, "winerror", None)
    return code if isinstance(code, int) and code else None


def code_of(error: OSError) -> str:
    """Return the error code as text that users can search for, such as ``"winerror 32"``."""
    winerror = winerror_of(error)
    return f"winerror {winerror}" if winerror is not None else f"errno {error.errno}"


def classify(error: OSError, path: str) -> ErrorKind:
    """Return the kind of an error of an operation on this path, judged by its class and code alone."""
    if isinstance(error, UnsafePathError):
        return ErrorKind.PERMANENT
    winerror = winerror_of(error)
    if winerror is not None:
        return _BY_WINERROR.get(winerror, ErrorKind.PERMANENT)
    if error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    if can_be_transient(error, path):
        return ErrorKind.TRANSIENT
    return ErrorKind.PERMANENT


def can_be_transient(error: OSError, path: str) -> bool:
    """Return whether another attempt may succeed after a POSIX error.

    On a local file system, EACCES means that a permission is missing. Waiting does not change this. Only file systems
    that relay errors of another machine or program use this code for a file that is held.
    """
    # Files are opened without blocking. If a file server holds a lease on the file, it returns the lease meanwhile:
    # https://man7.org/linux/man-pages/man2/F_GETLEASE.2const.html
    if error.errno == errno.EAGAIN:
        return True
    if sys.platform == "win32" or error.errno not in _TRANSIENT_ON_FOREIGN:
        return False
    with import_lock:
        from .._os.volume_posix import FOREIGN, file_system_type  # only refused operations need this module

    return error.errno == errno.ESTALE or file_system_type(path) in FOREIGN


def is_permanently_unsupported(error: OSError) -> bool:
    """Return whether an unsupported operation is unsupported for every file of the folder."""
    return winerror_of(error) not in _WINERRORS_OF_ONE_FILE and error.errno != errno.EMLINK


def is_limited_to_folder(error: OSError, *, same_volume: bool) -> bool:
    """Return whether an unsupported operation may be supported in other folders of the same volume.

    With ``same_volume``, both paths of the operation report the same volume.
    """
    winerror = winerror_of(error)
    if winerror is None:
        return same_volume and error.errno == errno.EXDEV
    return winerror in _WINERRORS_OF_CLOUD_FILES or (same_volume and winerror == _NOT_SAME_DEVICE)


def are_too_many_files_open(error: OSError) -> bool:
    """Return whether no further file can be opened in this process or on this machine."""
    return winerror_of(error) == _TOO_MANY_OPEN_FILES or error.errno in {errno.EMFILE, errno.ENFILE}


def is_delete_pending(error: OSError) -> bool:
    """Return whether the file was deleted but keeps its name until its last holder closes it."""
    return winerror_of(error) == _DELETE_PENDING


def is_access_denied(error: OSError) -> bool:
    """Return whether the error is "access denied" and not a sharing violation. Python reports both with one class."""
    return isinstance(error, PermissionError) and winerror_of(error) in {None, _ACCESS_DENIED}


# Causes and advice

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
_ADVICE = {
    Cause.HELD: (
        "Exclude the cache folder from scanning and indexing, close the program that holds the file, or raise "
        "io_timeout."
    ),
    Cause.DENIED: "Check the permissions of this path, or choose another cache folder.",
    Cause.MAPPED: (
        "Folders that are mapped from another machine, drive or container lack features of local folders. Choose a "
        "cache folder on a volume of this machine or container, and pass the other one as a layer."
    ),
    Cause.CLOUD: (
        "Choose a cache folder that no cloud service synchronises, such as one in the user's local application data."
    ),
    Cause.UNSUPPORTED: "Choose a cache folder on a volume that supports this operation.",
    Cause.REMOVED: "Check the log of the security software, and allow this wheel or the cache folder.",
    Cause.IN_THE_WAY: "Move or delete the file or folder at this path.",
    Cause.FULL: "Free space on the volume, or remove wheels from the cache.",
    Cause.TOO_LONG: "Choose a cache folder with a shorter path.",
    Cause.BROKEN: "Check the volume that holds the cache folder.",
    Cause.UNSAFE: "Delete it, and check who can write to the cache folder.",
}
_ADVICE_BY_ERRNO = {
    errno.EMFILE: "Raise the limit of open files of this process, or run fewer jobs at once.",
    errno.ENFILE: "Raise the limit of open files of this machine, or run fewer jobs at once.",
    errno.EROFS: "The volume is read-only. Open the cache with read_only=True, or choose another folder.",
}


def cause_of(error: OSError, path: str) -> Cause:
    """Return the cause of an error, judged by its class and code alone."""
    if isinstance(error, UnsafePathError):
        return Cause.UNSAFE
    kind = classify(error, path)
    winerror = winerror_of(error)
    if winerror in _WINERRORS_OF_CLOUD_FILES:
        return Cause.CLOUD
    if kind in _CAUSES:
        return _CAUSES[kind]
    if winerror is not None:
        return _CAUSES_BY_WINERROR.get(winerror, Cause.BROKEN)
    return _CAUSES_BY_ERRNO.get(error.errno or 0, Cause.BROKEN)


def advice_for(error: OSError, cause: Cause) -> str:
    """Return the advice for an error of this cause."""
    if cause is Cause.UNSAFE:
        return _ADVICE[cause]
    if winerror_of(error) == _TOO_MANY_OPEN_FILES:
        return _ADVICE_BY_ERRNO[errno.EMFILE]
    if winerror_of(error) is None and error.errno in _ADVICE_BY_ERRNO:
        return _ADVICE_BY_ERRNO[error.errno]
    return _ADVICE[cause]


# Evidence from the file system


def observed_cause(system: System, error: OSError, path: str, *, reading: bool = False) -> Cause:
    """Return the cause of an error, judged by its code and by the volume of the path.

    With ``reading``, "access denied" means that a permission is missing, since reading a held file fails with another
    code.
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


def permanent_cause(system: System, path: str, *, creating: bool, folder: bool = False) -> Cause | None:
    """Return the cause if "access denied" at this path is permanent, or ``None`` if it can be transient.

    Args:
        system: the operating system.
        path: the file or folder that could not be opened or created.
        creating: whether the operation creates a name, instead of opening an existing file. The permissions of the
            parent folder may forbid the creation.
        folder: whether the operation creates a folder.
    """
    if not folder and system.files.is_dir(path):
        return Cause.IN_THE_WAY
    if creating and not probe_writable(system, os.path.dirname(path), folder=folder):
        return Cause.DENIED
    return None


def probe_writable(system: System, parent: str, *, folder: bool = False) -> bool:
    """Return whether the permissions of a folder allow creating a file in it or, with ``folder``, another folder."""
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
        pass  # a later prune sweeps the file by the owner tag in its name
    return True

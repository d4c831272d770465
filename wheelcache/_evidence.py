"""What is there to see, where a code alone does not tell what is behind a refusal.

"Access denied" is a scanner as well as a permission, and "not supported" is a file system, a container's mapped folder
or a cloud service. It is looked at once for an operation that was refused, and never on the way of one that succeeds.
"""

from __future__ import annotations

import os

from ._errors import Cause
from ._layout import Stamp
from ._refusal import Refusal, cause_of, refusal_of, winerror_of
from ._system import System

_ACCESS_DENIED = 5


def is_denial(error: OSError) -> bool:
    """Return whether this is "access denied" and not "somebody holds it", of which Python makes the same class."""
    return isinstance(error, PermissionError) and winerror_of(error) in {None, _ACCESS_DENIED}


def final_cause(system: System, path: str, *, making: bool, folder: bool = False) -> Cause | None:
    """Return why "access denied" at a path will come again, ``None`` where it can pass.

    Args:
        system: the machine.
        path: a file, or a ``folder`` that is to be made.
        making: a new name was to be given, which the folder above may not allow; else a file was to be opened.
        folder: it is a folder that was to be made.
    """
    if not folder and system.files.is_folder(path):
        return Cause.IN_THE_WAY
    if making and not takes_new(system, os.path.dirname(path), folder=folder):
        return Cause.DENIED
    return None


def takes_new(system: System, parent: str, *, folder: bool = False) -> bool:
    """Return whether a file, or a ``folder``, can be made in a folder: where not, its permissions are the reason."""
    probe = os.path.join(parent, Stamp.new(system.now(), system.boot()) + ".tmp")
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
        return refusal_of(error, probe) is Refusal.MISSING or not is_denial(error)
    try:
        (system.files.rmdir if folder else system.files.unlink)(probe)
    except OSError:
        pass  # it has its owner and its age in its name, and is swept later
    return True


def cause_seen(system: System, error: OSError, path: str, *, reading: bool = False) -> Cause:
    """Return the class of what is behind a refusal, by its code and by the volume that it happened on.

    Who holds a file keeps others from ``reading`` it by another code than "access denied": that is a permission then.
    """
    cause = cause_of(error, path)
    denied = cause is Cause.HELD and is_denial(error)
    if denied or cause is Cause.UNSUPPORTED:
        volume = system.volume(path)
        if volume.cloud:
            return Cause.CLOUD
        if volume.mapped or volume.remote:
            return Cause.MAPPED
    return Cause.DENIED if denied and reading else cause

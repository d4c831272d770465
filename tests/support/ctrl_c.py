"""Send Ctrl-C to one child process, on every platform."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

# On Windows, Ctrl-C is an event of a console and reaches every process in it. The child gets a console of its own.
# https://learn.microsoft.com/en-us/windows/console/generateconsolectrlevent
POPEN_OPTIONS: dict[str, Any] = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}

# A process can only send the event to the console that it is attached to, and would receive it too.
_SEND = """\
import ctypes, sys
kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
kernel32.FreeConsole()
for done in (
    kernel32.AttachConsole(int(sys.argv[1])),
    kernel32.SetConsoleCtrlHandler(None, True),
    kernel32.GenerateConsoleCtrlEvent(0, 0),
):
    if not done:
        raise ctypes.WinError(ctypes.get_last_error())
"""


def send_ctrl_c(process: subprocess.Popen[str]) -> None:
    """Interrupt a process that was started with ``POPEN_OPTIONS``."""
    if sys.platform == "win32":
        subprocess.run([sys.executable, "-c", _SEND, str(process.pid)], check=True, timeout=60)
    else:
        process.send_signal(signal.SIGINT)

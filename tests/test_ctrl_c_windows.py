"""Ctrl-C under the Windows Python of the lab, pressed in a terminal."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from marks import not_on_windows

_TESTS = Path(__file__).parent
_SECONDS = 90
# Wine sends control sequences, such as \x1b[?25l to hide the cursor. The echo of Ctrl-C is removed from the whole text.
_ESCAPE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")

pytestmark = not_on_windows("it presses Ctrl-C in a terminal, which the lab has on the Linux side only")


def has_lab() -> bool:
    """Whether the lab is there and as old as its inputs."""
    lab = _TESTS / "windows" / "lab.sh"
    if sys.platform == "win32" or not lab.is_file():
        return False
    command = ["bash", "-c", f'source "{lab}"; complete && command -v wine']
    return subprocess.run(command, capture_output=True).returncode == 0


class Terminal:
    """A process of the Windows Python with a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        import pty

        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ["WHEELCACHE_TERMINAL"] = "1"
            os.execv(str(_TESTS / "windows" / "python"), ["python", *arguments])
        self.text = ""

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read until something matches."""
        end = time.monotonic() + _SECONDS
        while (found := re.search(pattern, self.text.replace("^C", ""))) is None:
            assert time.monotonic() < end, self.text
            if select.select([self._fd], [], [], 1)[0]:
                try:
                    self.text += _ESCAPE.sub("", os.read(self._fd, 1 << 16).decode("utf-8", "replace"))
                except OSError as error:  # its last process has closed the terminal
                    raise AssertionError(self.text) from error
        return found

    def press_ctrl_c(self) -> None:
        os.write(self._fd, b"\x03")

    def close(self) -> None:
        os.close(self._fd)
        os.waitpid(self.pid, 0)


@pytest.mark.parametrize(("call", "how"), [("fetch", "stalled"), ("put", "held"), ("fetch_all", "held")])
def test_ctrl_c(call: str, how: str, tmp_path: Path) -> None:
    """Ctrl-C ends a call that waits for a server or a holder, long before its time-out."""
    if not has_lab():
        pytest.skip("needs the Windows lab: tests/windows/setup")
    folder = f"Z:{tmp_path}".replace("/", "\\")
    terminal = Terminal(str(_TESTS / "support" / "children" / "ctrl_c.py"), call, how, folder)
    try:
        terminal.wait_for("waiting")
        terminal.press_ctrl_c()
        outcome = terminal.wait_for(r"outcome: (\w+) after ([\d.]+) s")
        assert outcome[1] == "KeyboardInterrupt"
        assert float(outcome[2]) < 10
        terminal.wait_for("in order")
    finally:
        terminal.close()

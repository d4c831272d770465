"""Who holds a file: asked while an operation waits, since afterwards they may have gone.

On Windows an open handle is what refuses an operation, and the system can name its owner. Elsewhere a handle refuses
nothing, and who is to blame for a refusal of a network drive sits on another machine: nobody is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

# Most holders let go at once, and asking takes longer than that.
_FIRST_QUESTION = 0.25
_LONGEST_PAUSE = 8.0


def holders_of(paths: Sequence[str]) -> tuple[str, ...]:
    """Return who has one of these files open, as ``"name.exe (pid 4711)"``; nobody where the system does not say."""
    if sys.platform == "win32":
        # Nobody needs it before something was refused.
        from . import _holders_windows

        return _holders_windows.holders_of(paths)
    return ()


class Watch:
    """One operation that waits, and whom it waits for.

    Args:
        ask: says who holds these files.
        monotonic: the clock.
        paths: the files.
    """

    def __init__(
        self, ask: Callable[[Sequence[str]], tuple[str, ...]], monotonic: Callable[[], float], *paths: str
    ) -> None:
        self.holders: tuple[str, ...] = ()
        self._ask = ask
        self._monotonic = monotonic
        self._paths = [path for path in paths if path]
        self._pause = _FIRST_QUESTION
        self._due = monotonic() + _FIRST_QUESTION

    def look(self, *, last: bool = False) -> None:
        """Ask if it is time to; the ``last`` time that is worth waiting for, ask if nobody was named so far.

        Never fails: who does not answer is not waited for, and an error is told without a name then.
        """
        if (last and self.holders) or (not last and self._monotonic() < self._due):
            return
        try:
            self.holders = self._ask(self._paths) or self.holders
        except Exception:
            pass  # there is nobody to ask, or no answer: a kindness must not change how the operation ends
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._due = self._monotonic() + self._pause

"""pip as a subprocess of this interpreter: what it is told, its settings, and its errors in a line."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise, takewhile
from pathlib import Path

from .._errors import PipError
from .._redact import redact

# Settings for installing, which would stop pip from only looking, or mix its talk with its report.
_NEUTRAL = {
    "PIP_REQUIRE_VIRTUALENV": "0",
    "PIP_USER": "0",
    "PIP_VERBOSE": "0",
    "PIP_QUIET": "0",
    "PIP_NO_COLOR": "1",
    # pip 23.2 draws them on standard output, in front of the report, when it also keeps a log.
    "PIP_PROGRESS_BAR": "off",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    # Nobody is there to be asked: pip's standard output is not the terminal.
    "PIP_NO_INPUT": "1",
    # A report with the descriptions of packages does not fit into every code page.
    "PYTHONIOENCODING": "utf-8:backslashreplace",
}
# Since pip 22.0 an error has a name, a line behind a cross that says what failed, and remarks.
_ERROR = re.compile(r"\s*(?:ERROR:|\N{MULTIPLICATION SIGN}) *(.*\S)")
_REMARK = re.compile(r"\s*(?:note|hint):")
# These say less than what stands beside them.
_EMPTY = ("ResolutionImpossible: for help visit", "Exception:")
# pip says in the end that it found nothing; why, it tells its log only. That an index lacks a project is no reason.
_SKIPPED = re.compile(r"Could not fetch URL (.+?): (?!404 )(.+) - skipping$")
# The log alone has what a program said that pip ran; its last line tells most.
_BEGUN = re.compile(r"\s*Running command ")
_ENDED = re.compile(r"\s*ERROR: .+ exited with \d+$")
_CONFLICT = "The conflict is caused by:"
_LOG_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\S+ ", re.MULTILINE)
_SETTING = re.compile(r"(?P<section>global|install|:env:)\.(?P<name>[^=\s]+)=(?P<value>.*)")
# Later ones win, as in pip.
_SECTIONS = ("global", "install", ":env:")


@dataclass(frozen=True)
class Ran:
    """What pip left behind: its exit code, what it printed, and its log."""

    code: int
    out: str
    err: str
    log: str


def run_pip(command: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Ran:
    """Run a command of pip's.

    Its log and its temporary files go to a folder that is removed, however it ends.

    Raises:
        PipError: where this interpreter has no pip.
    """
    if not sys.executable or find_spec("pip") is None:
        raise PipError(
            f"this Python ({sys.executable or sys.prefix}) has no pip, which resolves requirements: run "
            "python -m ensurepip, or give a pylock.toml or URLs"
        )
    with tempfile.TemporaryDirectory(prefix="wheelcache-", ignore_cleanup_errors=True) as folder:
        log = Path(folder, "pip.log")
        done = subprocess.run(  # noqa: S603
            # -P: a pip.py in the working directory is not pip.
            [sys.executable, "-P", "-m", "pip", command, f"--log={log}", *arguments],
            env={**os.environ, **_NEUTRAL, **(environment or {}), **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        logged = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return Ran(done.returncode, done.stdout, done.stderr, _LOG_STAMP.sub("", logged))


def pip_settings() -> dict[str, str]:
    """Return pip's settings for ``pip install``, by their long names; none where pip cannot tell them.

    They hold secrets. Where two files of one kind disagree, pip lists both, and the last listed is taken.
    """
    try:
        listed = run_pip("config", ["list"])
    except PipError:
        return {}
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listed.out.splitlines():
        if match := _SETTING.fullmatch(line.strip()):
            try:
                found[match["section"]][match["name"]] = str(ast.literal_eval(match["value"]))
            except (ValueError, SyntaxError):
                continue  # not a setting in the form that pip writes
    return {name: value for section in _SECTIONS for name, value in found[section].items()}


def failure(ran: Ran) -> PipError:
    """Make an error of a pip that failed: what it says of it, and why."""
    said = [match[1] for line in ran.err.splitlines() if (match := _ERROR.match(line))]
    said = [line for line in said if not line.startswith(_EMPTY)]
    if not said:
        lines = [line.strip() for line in ran.err.splitlines() if line.strip() and not _REMARK.match(line)]
        said = lines[-1:] or [f"exit code {ran.code}"]
    text = "; ".join(dict.fromkeys(said))
    reasons = ", ".join(dict.fromkeys(_reasons(ran.log.splitlines())))
    return PipError(redact(f"pip: {text} ({reasons})" if reasons else f"pip: {text}"))


def _reasons(log: Sequence[str]) -> Iterator[str]:
    """Yield why pip failed, as far as its log knows."""
    for line in log:
        if match := _SKIPPED.match(line.strip()):
            yield f"{match[1]}: {match[2]}"
    # The error is there twice, and only the first follows what was said.
    last = next((line for line, following in pairwise(log) if _ENDED.match(following)), "")
    if last and not _BEGUN.match(last):
        yield last.strip()
    if _CONFLICT in log:
        yield from (line.strip() for line in takewhile(str.strip, log[log.index(_CONFLICT) + 1 :]))

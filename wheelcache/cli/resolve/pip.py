"""Run pip as a subprocess of this interpreter, and read its output, its settings and its errors."""

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

# The user's settings for real installations would prevent a dry run, or mix other output with the report.
_NEUTRAL_SETTINGS = {
    "PIP_REQUIRE_VIRTUALENV": "0",
    "PIP_USER": "0",
    "PIP_VERBOSE": "0",
    "PIP_QUIET": "0",
    "PIP_NO_COLOR": "1",
    # With a log, pip 23.2 prints progress bars on standard output, before the report.
    "PIP_PROGRESS_BAR": "off",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    # A user would not see a prompt, because pip's standard output is captured.
    "PIP_NO_INPUT": "1",
    # Not every code page can encode the descriptions of packages in the report.
    "PYTHONIOENCODING": "utf-8:backslashreplace",
}
# Since pip 22.0, an error consists of a name, a line that begins with a cross and describes the failure, and notes.
_ERROR = re.compile(r"\s*(?:ERROR:|\N{MULTIPLICATION SIGN}) *(.*\S)")
_NOTE = re.compile(r"\s*(?:note|hint):")
# These lines are less informative than the lines beside them.
_UNINFORMATIVE = ("ResolutionImpossible: for help visit", "Exception:")
# If an index cannot be reached, pip's error only says that no distribution was found. The log of pip contains the
# reason. A 404 is not a reason, because many indexes lack the project.
_SKIPPED = re.compile(r"Could not fetch URL (.+?): (?!404 )(.+) - skipping$")
# Only the log contains the output of programs that pip runs. The last line usually contains the reason.
_PROGRAM_STARTED = re.compile(r"\s*Running command ")
_PROGRAM_FAILED = re.compile(r"\s*ERROR: .+ exited with \d+$")
_CONFLICT = "The conflict is caused by:"
_LOG_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\S+ ", re.MULTILINE)
_SETTING = re.compile(r"(?P<section>global|install|:env:)\.(?P<name>[^=\s]+)=(?P<value>.*)")
# Later sections override earlier ones, as in pip.
_SECTIONS = ("global", "install", ":env:")


@dataclass(frozen=True)
class PipRun:
    """The exit code, the output and the log of a run of pip."""

    exit_code: int
    stdout: str
    stderr: str
    log: str


def run_pip(command: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> PipRun:
    """Run a pip command.

    A folder with the log and the temporary files is removed at the end, even if pip is killed.

    Raises:
        PipError: if this interpreter has no pip.
    """
    if not sys.executable or find_spec("pip") is None:
        raise PipError(
            f"this Python ({sys.executable or sys.prefix}) has no pip, which is required to resolve requirements. Run "
            "python -m ensurepip, or give a pylock.toml or URLs"
        )
    with tempfile.TemporaryDirectory(prefix="wheelcache-", ignore_cleanup_errors=True) as folder:
        log = Path(folder, "pip.log")
        settings = _NEUTRAL_SETTINGS | dict(environment or {}) | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder)
        done = subprocess.run(  # noqa: S603 (the arguments are not passed to a shell)
            # With -P, a pip.py in the working directory is not imported.
            [sys.executable, "-P", "-m", "pip", command, f"--log={log}", *arguments],
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        logged = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return PipRun(done.returncode, done.stdout, done.stderr, _LOG_TIME.sub("", logged))


def pip_settings() -> dict[str, str]:
    """Return pip's settings for ``pip install`` by their long names, or an empty dictionary if pip is not installed.

    The settings may contain secrets. If two files of one section disagree, pip lists both values, and uses the last.
    """
    try:
        listing = run_pip("config", ["list"])
    except PipError:
        return {}
    settings: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.stdout.splitlines():
        if match := _SETTING.fullmatch(line.strip()):
            try:
                settings[match["section"]][match["name"]] = str(ast.literal_eval(match["value"]))
            except (ValueError, SyntaxError):
                continue  # this line is not a setting, because pip prints settings as Python literals
    return {name: value for section in _SECTIONS for name, value in settings[section].items()}


def pip_error(run: PipRun) -> PipError:
    """Return the error of a failed run, with pip's own message and the reason from its log."""
    messages = [match[1] for line in run.stderr.splitlines() if (match := _ERROR.match(line))]
    messages = [message for message in messages if not message.startswith(_UNINFORMATIVE)]
    if not messages:
        lines = [line.strip() for line in run.stderr.splitlines() if line.strip() and not _NOTE.match(line)]
        messages = lines[-1:] or [f"exit code {run.exit_code}"]
    text = "; ".join(dict.fromkeys(messages))
    reasons = ", ".join(dict.fromkeys(_reasons(run.log.splitlines())))
    return PipError(redact(f"pip: {text} ({reasons})" if reasons else f"pip: {text}"))


def _reasons(log: Sequence[str]) -> Iterator[str]:
    """Yield the reasons of a failure that pip's log contains."""
    for line in log:
        if match := _SKIPPED.match(line.strip()):
            yield f"{match[1]}: {match[2]}"
    # The log contains the error twice. Only the first one directly follows the program's output.
    last_line = next((line for line, following in pairwise(log) if _PROGRAM_FAILED.match(following)), "")
    if last_line and not _PROGRAM_STARTED.match(last_line):
        yield last_line.strip()
    if _CONFLICT in log:
        yield from (line.strip() for line in takewhile(str.strip, log[log.index(_CONFLICT) + 1 :]))

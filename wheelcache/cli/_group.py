"""The commands by name, and what becomes of an error: one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module

import click

from wheelcache import WheelCacheError, __version__

from . import _output
from ._crew import THREAD_NAME
from ._errors import CommandError, error_text

FAILED = 1
INTERRUPTED = 130

# The order of the help. A module imports nothing heavy before its command runs.
_COMMANDS = ("fetch", "ls", "info", "stats", "dir", "export", "prune", "rm", "clear", "verify", "doctor")


class _Commands(click.Group):
    """Commands that are imported when they are called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        command = import_module(f".commands.{cmd_name}", __package__).command
        assert isinstance(command, click.Command)
        return command


# "\b" keeps click from filling the paragraph.
_HELP = """A content-addressed cache of Python wheels.

\b
Exit codes:
  0    everything is there
  1    something failed; stderr says what
  2    the command line was wrong
  130  interrupted
"""


@click.command(cls=_Commands, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wheelcache", message="%(prog)s %(version)s")
def group() -> None:
    """Print the help where no command is called."""


def run(arguments: Sequence[str] | None) -> int:
    """Run a command and return its exit code. Expected errors become one line; a bug keeps its traceback."""
    with _streams():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = group.main(args=arguments, prog_name="wheelcache", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        _output.print_error("interrupted")
        _leave_behind(THREAD_NAME)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (CommandError, WheelCacheError, OSError, ValueError) as error:
        _output.print_error(error_text(error))
        return FAILED
    return code if isinstance(code, int) else 0


@contextmanager
def _streams() -> Iterator[None]:
    """Let what is printed go nowhere where a stream was closed before the program began: Python has ``None`` then."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, ExitStack() as redirected:
        if sys.stdout is None:
            redirected.enter_context(redirect_stdout(nowhere))
        if sys.stderr is None:
            redirected.enter_context(redirect_stderr(nowhere))
        yield


def _leave_behind(threads: str) -> None:
    """End the process here if a thread did not hear that it is over: Python would wait for it, for minutes perhaps.

    What it leaves has its owner's mark in its name, and is swept by a later run.
    """
    if any(thread.name.startswith(threads) for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(INTERRUPTED)

"""The click group of all commands, and the translation of exceptions into an error line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module

import click

from wheelcache import WheelCacheError, __version__

from . import _output
from ._errors import CommandError, error_text

FAILED = 1
INTERRUPTED = 130

# The commands, in the order of the help.
_COMMANDS = ("fetch", "ls", "info", "stats", "dir", "export", "prune", "rm", "clear", "verify", "doctor")


class _Commands(click.Group):
    """A group that imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        command = import_module(f".commands.{cmd_name}", __package__).command
        assert isinstance(command, click.Command)
        return command


# "\b" keeps click from rewrapping the paragraph.
_HELP = """A content-addressed cache of Python wheels.

\b
Exit codes:
  0    success
  1    failure (see stderr)
  2    invalid command line
  130  interrupted
"""


@click.command(cls=_Commands, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wheelcache", message="%(prog)s %(version)s")
def group() -> None:
    """Print the help if no command is given."""


def run(arguments: Sequence[str] | None) -> int:
    """Run a command, and return its exit code. An expected error is printed as one line, without a traceback."""
    with _substitute_streams():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = group.main(args=arguments, prog_name="wheelcache", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        _output.print_error("interrupted")
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (CommandError, WheelCacheError, OSError, ValueError) as error:
        _output.print_error(error_text(error))
        return FAILED
    return code if isinstance(code, int) else 0


@contextmanager
def _substitute_streams() -> Iterator[None]:
    """Discard output to a stream that was closed before the program started. Python sets such a stream to ``None``."""
    with open(os.devnull, "w", encoding="utf-8") as devnull, ExitStack() as redirected:
        if sys.stdout is None:
            redirected.enter_context(redirect_stdout(devnull))
        if sys.stderr is None:
            redirected.enter_context(redirect_stderr(devnull))
        yield

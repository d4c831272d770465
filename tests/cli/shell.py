"""Run the command line as a separate process, on a machine without pip settings."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from simple_index import Built

from wheelcache.cli import main

_BACKSTOP_SECONDS = 100
_ROW = re.compile(r"^(\S+\.whl) +(?:-|[\d.]+ (?:bytes|[kMG]B)) +(\w+) +\S+ m?s", re.MULTILINE)

APP = Built("demo-app", "1.0", requires=("demo-lib>=1",))
LIB = Built("demo-lib", "2.0")
OLD_LIB = Built("demo-lib", "1.0")


@dataclass(frozen=True)
class Ran:
    """The result of a run."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)

    @property
    def rows(self) -> dict[str, str]:
        """The status of each file name in the table."""
        return dict(_ROW.findall(self.out))


class Shell:
    """Runs programs with an environment of its own and one cache folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        home = folder / "home"
        home.mkdir()
        hidden = ("PIP_", "UV_", "WHEELCACHE_", "SSL_CERT_")
        others = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "FORCE_COLOR", "COLUMNS", "VIRTUAL_ENV"}
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(hidden) and name not in others
        }
        self.environment |= {
            "HOME": str(home),
            "USERPROFILE": str(home),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_CACHE_DIR": str(folder / "pip-cache"),
            "PIP_RETRIES": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_NO_CONFIG": "1",
            "UV_CACHE_DIR": str(folder / "uv-cache"),
            "WHEELCACHE_DIR": str(self.cache),
        }

    def run(self, command: Sequence[str], **environment: str) -> Ran:
        """Run a program to its end."""
        done = subprocess.run(
            list(command),
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            encoding="utf-8",
            timeout=_BACKSTOP_SECONDS,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def fetch(self, *arguments: str, **environment: str) -> Ran:
        """Run ``wheelcache fetch`` in this process, with pip as a separate process."""
        return self.command("fetch", *arguments, **environment)

    def command(self, *arguments: str, **environment: str) -> Ran:
        """Run the command line in this process, which is faster than a separate process."""
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.environment | environment, clear=True),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main(list(arguments))
        return Ran(code, out.getvalue(), err.getvalue())

    def process(self, *arguments: str, **environment: str) -> Ran:
        """Start ``wheelcache fetch`` as a separate process."""
        return self.run([sys.executable, "-m", "wheelcache.cli", "fetch", *arguments], **environment)

    def cached_bytes(self) -> bytes:
        """Return the names and contents of all files in the cache folder, except wheels."""
        files = [path for path in self.cache.rglob("*") if path.is_file()]
        names = "\n".join(map(str, files)).encode()
        return names + b"".join(path.read_bytes() for path in files if path.suffix != ".whl")

"""Resolve requirements to wheels with pip, so that the user's indexes, credentials, proxies and constraints apply."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from wheelcache import Cache

from .._errors import NoWheelError, PipError
from .pip import pip_error, run_pip
from .requests import Failure, FetchRequest, make_request

_REPORT = ("--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", "-", "--quiet")

# Bytes of a requirements file that are searched for credentials.
_LARGEST_FILE = 64 << 20
_INCLUDE = re.compile(r"\s*(?:-r|-c|--requirement|--constraint)(?:\s*=\s*|\s+|(?<=-[rc]))(\S.*?)\s*(?:\s#.*)?")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")


@dataclass(frozen=True)
class PipOptions:
    """Options for ``pip install``. pip reads the user's other settings by itself."""

    requirement_files: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    pre: bool = False

    def arguments(self) -> list[str]:
        """Return the options as command-line arguments of pip."""
        options = {
            "--requirement": self.requirement_files,
            "--constraint": self.constraints,
            "--index-url": () if self.index_url is None else (self.index_url,),
            "--extra-index-url": self.extra_index_urls,
            "--find-links": self.find_links,
        }
        pairs = [f"{name}={value}" for name, values in options.items() for value in values]
        return [*pairs, *["--no-index"] * self.no_index, *["--pre"] * self.pre]


def resolve_requirements(
    requirements: Sequence[str], options: PipOptions, *, only: Cache | None = None
) -> tuple[list[FetchRequest], list[Failure]]:
    """Let pip choose the wheels of requirements and of their dependencies, for this interpreter.

    Args:
        requirements: requirements in pip's syntax, in addition to those in requirements files.
        options: options for pip.
        only: a cache. If given, pip works without network access, and chooses from the wheels in this cache and in
            local ``--find-links`` folders.

    Raises:
        PipError: if pip is not installed or fails.
    """
    with _links_page(only) if only is not None else _no_settings() as environment:
        run = run_pip("install", [*_REPORT, *options.arguments(), "--", *requirements], environment)
    if run.exit_code != 0:
        raise pip_error(run)
    try:
        entries = [_ReportEntry.parse(install) for install in json.loads(run.stdout)["install"]]
    except (ValueError, KeyError, TypeError):
        raise PipError("cannot read pip's report (pip 23.0 or newer is required)") from None
    return (
        [make_request(entry.url, entry.hashes, requirement=entry.requirement) for entry in entries if entry.is_wheel],
        [Failure.from_error(entry.refusal(), entry.requirement) for entry in entries if not entry.is_wheel],
    )


@dataclass(frozen=True)
class _ReportEntry:
    """One entry of pip's report, as documented in https://pip.pypa.io/en/stable/reference/installation-report/."""

    requirement: str
    url: str
    hashes: Mapping[str, str] | None
    is_wheel: bool

    @classmethod
    def parse(cls, install: Mapping[str, Any]) -> _ReportEntry:
        """Parse an entry.

        Raises:
            KeyError, TypeError: if the entry has an unknown format.
        """
        metadata, info = install["metadata"], install["download_info"]
        url = info["url"]
        return cls(
            requirement=f"{metadata['name']}=={metadata['version']}",
            url=url,
            hashes=info.get("archive_info", {}).get("hashes"),
            is_wheel="archive_info" in info and url.partition("?")[0].lower().endswith(".whl"),
        )

    def refusal(self) -> NoWheelError:
        """Return the error for an entry that is not a wheel."""
        return NoWheelError(f"{self.requirement}: pip chose {self.url} and not a wheel")


@contextmanager
def _no_settings() -> Iterator[Mapping[str, str]]:
    yield {}


@contextmanager
def _links_page(cache: Cache) -> Iterator[Mapping[str, str]]:
    """Write a page of links to the wheels of a cache, and yield settings that restrict pip to this page."""
    links = (f'<a href="{wheel.path.as_uri()}#{wheel.digest.replace(":", "=")}">{escape(wheel.filename)}</a><br>'
             for wheel in cache.entries())  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="wheelcache-", ignore_cleanup_errors=True) as folder:
        page = Path(folder, "cached.html")
        page.write_text("<!DOCTYPE html>\n" + "\n".join(links), encoding="utf-8")
        yield {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": page.as_uri()}


def _read_text(file: str) -> str:
    with Path(file).open("rb") as opened:
        return opened.read(_LARGEST_FILE).decode("utf-8", "replace")


def texts_with_urls(requirements: Sequence[str], options: PipOptions) -> list[str]:
    """Return the user's texts that may contain URLs with credentials: options, requirements, requirements files."""
    texts = [*options.arguments(), *requirements]
    queue, visited = [*options.requirement_files, *options.constraints], set[str]()
    while queue:
        file = os.path.abspath(queue.pop())
        if file in visited:
            continue
        visited.add(file)
        try:
            # pip could not read a pipe a second time.
            text = _read_text(file) if os.path.isfile(file) else ""
        except OSError:
            continue  # a file that pip reports as unreadable
        texts.append(_VARIABLE.sub(lambda name: os.environ.get(name[1], name[0]), text))
        includes = (match[1] for line in text.splitlines() if (match := _INCLUDE.fullmatch(line)))
        queue += [os.path.join(os.path.dirname(file), include) for include in includes]
    return texts

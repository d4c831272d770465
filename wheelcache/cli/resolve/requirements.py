"""Requirements to wheels, by pip itself, so that the user's index, credentials, proxies and constraints hold."""

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
from .pip import failure, run_pip
from .requests import Item, Problem, item

_REPORT = ("--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", "-", "--quiet")

_INCLUDE = re.compile(r"\s*(?:-r|-c|--requirement|--constraint)(?:\s*=\s*|\s+|(?<=-[rc]))(\S.*?)\s*(?:\s#.*)?")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")


@dataclass(frozen=True)
class PipOptions:
    """The options of ``pip install`` that are handed on to it; its other settings are the user's, and hold anyway."""

    requirement_files: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    pre: bool = False

    def arguments(self) -> list[str]:
        """Return them as pip takes them."""
        several = {
            "--requirement": self.requirement_files,
            "--constraint": self.constraints,
            "--index-url": () if self.index_url is None else (self.index_url,),
            "--extra-index-url": self.extra_index_urls,
            "--find-links": self.find_links,
        }
        pairs = [f"{name}={value}" for name, values in several.items() for value in values]
        return [*pairs, *["--no-index"] * self.no_index, *["--pre"] * self.pre]


def resolve(
    requirements: Sequence[str], options: PipOptions, *, only: Cache | None = None
) -> tuple[list[Item], list[Problem]]:
    """Let pip choose the wheels of requirements and of all that they depend on, for this interpreter.

    Args:
        requirements: as pip takes them, beside those of the requirement files.
        options: for pip.
        only: without the network: choose among the wheels of this cache and of local ``--find-links`` folders.

    Raises:
        PipError: where pip is not there or fails.
    """
    with _cached_links(only) if only is not None else _no_links() as environment:
        ran = run_pip("install", [*_REPORT, *options.arguments(), "--", *requirements], environment)
    if ran.code != 0:
        raise failure(ran)
    try:
        installs = [_Install.read(install) for install in json.loads(ran.out)["install"]]
    except (ValueError, KeyError, TypeError):
        raise PipError("pip's report cannot be read: is it pip 23.0 or newer?") from None
    return (
        [item(install.url, install.hashes, asked=install.name) for install in installs if install.is_wheel],
        [Problem.of(install.refusal(), install.name) for install in installs if not install.is_wheel],
    )


@dataclass(frozen=True)
class _Install:
    """One entry of pip's report: https://pip.pypa.io/en/stable/reference/installation-report/."""

    name: str
    url: str
    hashes: Mapping[str, str] | None
    is_wheel: bool

    @classmethod
    def read(cls, install: Mapping[str, Any]) -> _Install:
        """Read an entry.

        Raises:
            KeyError, TypeError: where it is none.
        """
        metadata, info = install["metadata"], install["download_info"]
        url = info["url"]
        return cls(
            name=f"{metadata['name']}=={metadata['version']}",
            url=url,
            hashes=info.get("archive_info", {}).get("hashes"),
            is_wheel="archive_info" in info and url.partition("?")[0].lower().endswith(".whl"),
        )

    def refusal(self) -> NoWheelError:
        return NoWheelError(f"{self.name}: pip chose {self.url}, which is not a wheel")


@contextmanager
def _no_links() -> Iterator[Mapping[str, str]]:
    yield {}


@contextmanager
def _cached_links(cache: Cache) -> Iterator[Mapping[str, str]]:
    """A page of links to the wheels of a cache, and the settings with which pip sees nothing else."""
    links = (f'<a href="{wheel.path.as_uri()}#{wheel.digest.replace(":", "=")}">{escape(wheel.filename)}</a><br>'
             for wheel in cache.entries())  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="wheelcache-", ignore_cleanup_errors=True) as folder:
        page = Path(folder, "cached.html")
        page.write_text("<!DOCTYPE html>\n" + "\n".join(links), encoding="utf-8")
        yield {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": page.as_uri()}


def texts_with_urls(requirements: Sequence[str], options: PipOptions) -> list[str]:
    """Return every text of the user's that can have URLs with credentials in it: options, requirements, their files."""
    texts = [*options.arguments(), *requirements]
    queue, seen = [*options.requirement_files, *options.constraints], set[str]()
    while queue:
        file = os.path.abspath(queue.pop())
        if file in seen:
            continue
        seen.add(file)
        try:
            text = Path(file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # a URL, or a file that pip has complained of
        texts.append(_VARIABLE.sub(lambda name: os.environ.get(name[1], name[0]), text))
        includes = (match[1] for line in text.splitlines() if (match := _INCLUDE.fullmatch(line)))
        queue += [os.path.join(os.path.dirname(file), include) for include in includes]
    return texts

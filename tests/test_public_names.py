"""Tests of the package itself: its docstring names what exists, and its lazy imports hold the import lock."""

from __future__ import annotations

import importlib
import re
import threading
from pathlib import Path
from types import ModuleType

import pytest
from marks import any_system

import wheelcache
from wheelcache._imports import import_lock

pytestmark = any_system

DOC = wheelcache.__doc__ or ""
# The last part of a name may be an attribute, such as a function of a module.
NAMED = sorted({name.rstrip(".") for name in re.findall(r"(?<![\w.])_[a-z][\w.]*", DOC)})


def resolve(name: str) -> object:
    """Return the module or the attribute of a module that has a dotted name below ``wheelcache``."""
    try:
        return importlib.import_module(f"wheelcache.{name}")
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(f"wheelcache.{module}"), attribute)


@pytest.mark.parametrize("name", NAMED)
def test_the_architecture_names_what_exists(name: str) -> None:
    """Every module, class and function in the package's docstring exists."""
    assert resolve(name)


def test_the_architecture_is_complete() -> None:
    """The package's docstring names every package and every module beside the packages."""
    entries = Path(wheelcache.__file__).parent.iterdir()
    names = {each.stem for each in entries if each.suffix == ".py" or (each / "__init__.py").exists()}
    assert {name for name in names - {"__init__"} if not re.search(rf"\b{name}\b", DOC)} == set()


@pytest.mark.parametrize("name", ["AsyncCache", "CacheTransport", "Stats", "TreeSource"])
def test_a_lazy_import_holds_the_import_lock(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No fork can interrupt the import of a public name that is imported on first use."""
    free: list[bool] = []
    import_module = importlib.import_module

    def try_lock() -> None:
        free.append(import_lock.acquire(blocking=False))

    def watched(*args: str) -> ModuleType:
        thread = threading.Thread(target=try_lock)
        thread.start()
        thread.join()
        return import_module(*args)

    monkeypatch.setattr(importlib, "import_module", watched)
    monkeypatch.delitem(vars(wheelcache), name, raising=False)
    assert getattr(wheelcache, name).__name__ == name
    assert free == [False]


def test_every_public_name_can_be_imported() -> None:
    """Each name in ``__all__`` exists, and ``dir`` lists it."""
    assert [name for name in wheelcache.__all__ if not hasattr(wheelcache, name)] == []
    assert set(wheelcache.__all__) <= set(dir(wheelcache))

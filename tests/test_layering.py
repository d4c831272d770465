"""The structure: values < system < stations < façade < command line, held against the imports."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import wheelcache

PACKAGE = Path(wheelcache.__file__).parent

# A module may import those of its own layer (without a circle) and of the layers before it.
LAYERS = [
    {
        *("_errors", "_digest", "_request", "_layout", "_record", "_wheel", "_reports", "_progress"),
        *("_limits", "_listing", "_zip"),
    },
    {
        *("_fs", "_fs_posix", "_fs_windows", "_clone_windows", "_win32", "_boot_windows", "_process_windows"),
        *("_holders", "_holders_windows", "_volume", "_volume_posix", "_volume_windows"),
        *("_refusal", "_system", "_evidence", "_patience", "_disk", "_lock", "_call", "_workers"),
    },
    {
        *("_opening", "_lookup", "_pointers", "_flight", "_download", "_local", "_stage", "_ladder", "_commit"),
        *("_deliver", "_survey", "_tally", "_doctor", "_export"),
        *("_inventory", "_naming", "_removal", "_sweep", "_prune", "_ceiling", "_verify", "_crew", "_strangers"),
        *("_wire", "_waking", "_bridge", "_partial", "_receive", "_freshness", "_urls", "_many", "_visit", "_metadata"),
        *("_inflate", "_archive", "_fill", "_tree", "_spread", "_unpack", "_threads"),
    },
    {"_cache"},
    {"_installer", "_async", "_transport"},
    {"__init__"},
]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}


def modules() -> Iterator[Path]:
    return iter(sorted(PACKAGE.glob("*.py")))


def everywhere() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each import as a dotted name, with dots in front where it is relative; and whether it runs."""
    for node, runs in running(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, runs
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            if node.level and not node.module:
                for alias in node.names:
                    yield start + alias.name, runs
            else:
                yield start, runs


def running(node: ast.AST, *, runs: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Walk a tree, and tell what is for type checkers only."""
    for child in ast.iter_child_nodes(node):
        yield child, runs
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for each in child.body:
                yield each, False
                yield from running(each, runs=False)
            for each in child.orelse:
                yield from running(each, runs=runs)
        else:
            yield from running(child, runs=runs)


def siblings(path: Path) -> set[str]:
    """Return the modules of the package that a module imports."""
    names = {name[1:] for name, _ in imports(path) if name.startswith(".") and not name.startswith("..")}
    return {name for name in names if (PACKAGE / f"{name}.py").exists()}


def test_every_module_has_a_layer() -> None:
    """Whoever adds a module says where it belongs."""
    assert {path.stem for path in modules()} == set(LAYER_OF)


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: path.stem)
def test_nobody_imports_upwards(path: Path) -> None:
    """Values know no system, the system no station, stations no façade, and nobody knows the command line."""
    assert {name for name in siblings(path) if LAYER_OF[name] > LAYER_OF[path.stem]} == set()
    assert not any(name.startswith((".cli", "wheelcache")) for name, _ in imports(path))


def test_there_is_no_circle() -> None:
    """The modules can be put in an order in which each knows only those before it."""
    order = graphlib.TopologicalSorter({path.stem: siblings(path) for path in modules() if path.stem != "__init__"})
    assert len(list(order.static_order())) == len(LAYER_OF) - 1


def who_imports(package: str) -> set[str]:
    """Return the modules that import a package when they run, the command line left out."""
    return {
        path.stem
        for path in modules()
        if any(runs and name.partition(".")[0] == package for name, runs in imports(path))
    }


@pytest.mark.parametrize(
    ("package", "only"),
    [
        ("filelock", {"_lock"}),
        ("httpx", {"_wire", "_receive", "_bridge", "_transport"}),
        ("anyio", {"_async", "_bridge", "_threads"}),
        ("tenacity", {"_patience"}),
        ("packaging", {"_request", "_naming"}),
        ("platformdirs", {"_opening"}),
        ("installer", {"_installer"}),
        ("zlib_ng", {"_inflate"}),
        ("msvcrt", {"_fs_windows"}),
        ("fcntl", {"_fs_posix"}),
        ("shutil", set()),
        ("tempfile", set()),
        ("logging", set()),
        ("signal", set()),
        ("atexit", set()),
    ],
)
def test_each_dependency_has_one_place(package: str, only: set[str]) -> None:
    """A dependency is touched where it belongs, and what would reach into the caller's process nowhere."""
    assert who_imports(package) == only


def test_no_private_name_of_a_dependency_is_imported() -> None:
    """What others call private stays theirs."""
    for path in everywhere():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and not node.level and not (node.module or "").startswith("__"):
                parts = (node.module or "").split(".") + [alias.name for alias in node.names]
                private = [part for part in parts if part.startswith("_") and part != "__version__"]
                assert private == [], f"{path.name}: {ast.unparse(node)}"


def test_the_command_line_uses_the_public_names() -> None:
    """The command line is built on what everybody has."""
    for path in sorted((PACKAGE / "cli").glob("*.py")):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("wheelcache") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level <= 1
                if node.module == "wheelcache":
                    assert {alias.name for alias in node.names} <= {*wheelcache.__all__, "__version__"}
                else:
                    assert not (node.module or "").startswith("wheelcache.")


PATH_PARTS = {"v1", "wheels", "trees", "urls", "partial", "tmp", "locks", "quarantine", "tally.log", "CACHEDIR.TAG"}


def test_only_the_layout_forms_paths() -> None:
    """No other module of the library writes down a name that is part of the cache's paths."""
    for path in modules():
        constants = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}
        assert path.stem == "_layout" or constants & PATH_PARTS == set(), path.name


TOUCHES_THE_DISK = {
    *("open", "stat", "lstat", "access", "scandir", "listdir", "walk", "read", "write", "truncate", "fsync"),
    *("unlink", "remove", "rename", "renames", "replace", "link", "symlink", "utime", "chmod"),
    *("mkdir", "makedirs", "rmdir", "removedirs"),
}
PATH_TOUCHES_THE_DISK = {
    *("exists", "lexists", "isfile", "isdir", "islink", "realpath", "samefile", "getsize", "getmtime"),
}
# The file layer; the files of callers are read as callers have them, and those of the system that describe volumes.
MAY_TOUCH = {"_fs_posix", "_fs_windows", "_local", "_volume_posix", "_volume_windows"}


def test_only_the_file_layer_touches_the_disk() -> None:
    """Every file operation goes through the file layer, where tests can make it fail."""
    found = {
        (path.stem, ast.unparse(node.func))
        for path in modules()
        if path.stem not in MAY_TOUCH
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and touches(node.func)
    }
    assert found == set()


def touches(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id == "open"
    if not isinstance(function, ast.Attribute):
        return False
    owner = ast.unparse(function.value)
    return (owner == "os" and function.attr in TOUCHES_THE_DISK) or (
        owner == "os.path" and function.attr in PATH_TOUCHES_THE_DISK
    )


def test_time_comes_from_the_system_that_is_lent() -> None:
    """No module but the one that describes a machine asks a clock or sleeps."""
    assert who_imports("time") == {"_system"}


def test_everything_private_says_so() -> None:
    """Beside the command line and the package itself, every module's name begins with an underscore."""
    public = {path.stem for path in modules() if not path.stem.startswith("_")}
    assert public == set()
    assert [path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"] == ["cli"]


def test_all_names_what_is_public() -> None:
    """What is exported is sorted, exists, and is all that the package shows."""
    assert wheelcache.__all__ == sorted(wheelcache.__all__, key=str)
    shown = {
        name for name, value in vars(wheelcache).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    # A class of httpx's is made when it is asked for: importing the package does not import httpx.
    assert shown | {"CacheTransport"} == set(wheelcache.__all__)
    assert all(hasattr(wheelcache, name) for name in wheelcache.__all__)
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.parametrize("name", [name for name in wheelcache.__all__ if inspect.isclass(getattr(wheelcache, name))])
def test_every_public_class_is_documented(name: str) -> None:
    """Classes and their public methods say what they do, each for itself."""
    public = getattr(wheelcache, name)
    assert inspect.getdoc(public)
    for attribute, value in vars(public).items():
        if inspect.isfunction(value) and not attribute.startswith("_"):
            assert value.__doc__, f"{name}.{attribute}"


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: path.stem)
def test_every_module_has_a_header(path: Path) -> None:
    """A module begins with what it is for; names that are no classes are documented where they stand."""
    assert ast.get_docstring(tree(path))


def test_documented_aliases() -> None:
    """Type aliases among the public names have a sentence behind them in the source."""
    aliases = [name for name in wheelcache.__all__ if not inspect.isclass(getattr(wheelcache, name))]
    documented = set()
    for path in modules():
        body = tree(path).body
        for first, second in pairwise(body):
            if (
                isinstance(first, ast.AnnAssign)
                and isinstance(second, ast.Expr)
                and isinstance(second.value, ast.Constant)
            ):
                documented.add(ast.unparse(first.target))
    assert set(aliases) <= documented


def test_the_package_tells_its_version() -> None:
    """The version is there before anything else is loaded."""
    assert importlib.import_module("wheelcache").__version__.count(".") >= 2

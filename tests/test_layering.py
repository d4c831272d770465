"""Check the structure: packages import in one direction, and one module uses each dependency."""

from __future__ import annotations

import ast
import graphlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from marks import any_system

import wheelcache

pytestmark = any_system

PACKAGE = Path(wheelcache.__file__).parent

# A package, or a module beside the packages, may import from the rows above its own. Those in one row do not import
# each other, except for the values, whose imports have no cycle.
VALUES = {
    *("_exceptions", "_filenames", "_hashes", "_imports", "_models", "_options", "_reports", "_request", "_threads"),
}
LAYERS: list[set[str]] = [
    VALUES,
    {"_os"},
    {"_operation"},
    {"_fs", "_http"},
    {"_archive", "_store"},
    {"_fetch", "_unpack"},
    {"_maintenance"},
    {"_core"},
    {"_cache"},
    {"_async_cache"},
    {"_installer", "_transport"},
    {"__init__"},
    {"cli"},
]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
# Within a package, a module that only types are imported from does not make a cycle.
MOST_MODULES = 12
MOST_LINES = 500


def modules() -> list[Path]:
    """Return every module of the library, without those of the command line."""
    return [path for path in everywhere() if unit(path) != "cli"]


def everywhere() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """Return a module's name below ``wheelcache``, which ends in ``__init__`` for a package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def unit(path: Path) -> str:
    """Return the package, or the module beside the packages, that a module belongs to."""
    return dotted(path).partition(".")[0]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each import as a dotted name, with ``wheelcache.`` for our own, and whether it runs."""
    folder = ["wheelcache", *path.relative_to(PACKAGE).parts[:-1]]
    for node, runs in running(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, runs
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            start = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                whole = f"{start}.{alias.name}"
                yield (whole if is_module(whole) else start), runs


def is_module(name: str) -> bool:
    below = PACKAGE.joinpath(*name.split(".")[1:])
    return name.startswith("wheelcache.") and (below.with_suffix(".py").exists() or (below / "__init__.py").exists())


def running(node: ast.AST, *, runs: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Walk a tree, and yield whether each node is for type checkers only."""
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


def units_imported(path: Path) -> set[str]:
    """Return the packages, and the modules beside them, that a module imports, without its own package."""
    names = {name.split(".")[1] if "." in name else "__init__" for name, _ in imports(path) if is_ours(name)}
    return names - {unit(path)}


def is_ours(name: str) -> bool:
    return name.partition(".")[0] == "wheelcache"


def test_every_module_has_a_layer() -> None:
    """Every package is listed in the layers."""
    assert {unit(path) for path in everywhere()} == set(LAYER_OF)


@pytest.mark.parametrize("path", everywhere(), ids=dotted)
def test_imports_go_in_one_direction(path: Path) -> None:
    """A package imports from those above it in the list only, and values only from values."""
    own = unit(path)
    allowed = {name for name in LAYER_OF if LAYER_OF[name] < LAYER_OF[own]}
    if own in VALUES:
        allowed = VALUES
    # The version is in the package itself, and is defined before any other module is loaded.
    imported = {name for name in units_imported(path) if name != "__init__" or own == "cli"}
    assert imported - allowed - UPWARD.get(dotted(path), set()) == set()


def modules_imported(path: Path) -> set[str]:
    """Return our modules that a module imports when it runs."""
    names = {name for name, runs in imports(path) if runs and is_module(name)}
    return {name.removeprefix("wheelcache.") for name in names}


# To be turned round.
UPWARD = {"_store.index": {"_fetch"}}


def unlocked_imports(node: ast.AST, *, in_function: bool = False, locked: bool = False) -> Iterator[ast.AST]:
    """Yield the imports inside functions that do not hold ``import_lock``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom) and in_function and not locked:
            yield child
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        holds = isinstance(child, ast.With) and any("import_lock" in ast.unparse(item) for item in child.items)
        yield from unlocked_imports(
            child, in_function=in_function or is_function, locked=holds or (locked and not is_function)
        )


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_every_import_in_a_function_holds_the_lock(path: Path) -> None:
    """A fork never interrupts an import, as ``wheelcache._imports`` explains."""
    # Called while its own module is imported.
    at_import = {"_archive.inflate": {"from zlib_ng import zlib_ng"}}
    unlocked = {ast.unparse(node) for node in unlocked_imports(tree(path))}
    assert unlocked == at_import.get(dotted(path), set())


def test_there_are_no_cycles() -> None:
    """The modules can be put in an order in which each imports only from those before it."""
    graph = {
        dotted(path): {
            name.removeprefix("wheelcache.") for name, runs in imports(path) if runs and name.startswith("wheelcache.")
        }
        for path in everywhere()
        if dotted(path) != "__init__"
    }
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(graph)


@pytest.mark.parametrize("folder", sorted({path.parent for path in everywhere()}), ids=lambda path: path.name)
def test_no_package_is_crowded(folder: Path) -> None:
    """A package has at most twelve modules beside its ``__init__``, which the list of files can show at a glance."""
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    assert folder == PACKAGE or len(modules) <= MOST_MODULES


@pytest.mark.parametrize("path", everywhere(), ids=dotted)
def test_no_module_is_long(path: Path) -> None:
    """A module is short enough to be read at once."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def who_imports(package: str) -> set[str]:
    """Return the modules that import a package when they run, without the command line."""
    return {
        dotted(path)
        for path in modules()
        if any(runs and name.partition(".")[0] == package for name, runs in imports(path))
    }


@pytest.mark.parametrize(
    ("package", "only"),
    [
        ("filelock", {"_fs.lock"}),
        ("httpx", {"_http.adapters.library"}),
        ("httpcore", {"_http.adapters.library"}),
        ("httpx2", {"_http.adapters.library"}),
        ("httpcore2", {"_http.adapters.library"}),
        ("requests", {"_http.adapters.requests_adapter", "_http.adapters.requests_errors"}),
        ("urllib3", {"_http.adapters.requests_errors"}),
        ("anyio", {"_async_cache", "_http.adapters.async_client", "_threads"}),
        ("truststore", {"_http.default_client.trust"}),
        ("certifi", {"_http.default_client.trust"}),
        ("tenacity", {"_operation"}),
        ("packaging", {"_filenames", "_maintenance.select"}),
        ("platformdirs", {"_options"}),
        ("installer", {"_installer"}),
        ("zlib_ng", {"_archive.inflate"}),
        ("msvcrt", {"_os.windows"}),
        ("fcntl", {"_os.posix"}),
        ("shutil", set()),
        ("tempfile", set()),
        ("logging", {"_imports"}),
        ("signal", set()),
        ("atexit", set()),
    ],
)
def test_each_dependency_has_one_place(package: str, only: set[str]) -> None:
    """A dependency is only used in its own modules, and modules that change the caller's process are never used."""
    assert who_imports(package) == only


DEPENDENCIES = (
    "anyio",
    "click",
    "filelock",
    "h11",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "installer",
    "packaging",
    "platformdirs",
)
DEPENDENCIES += ("requests", "rich", "tenacity", "truststore", "urllib3", "zlib_ng")


def private_names(package: str) -> set[str]:
    """Return the private names of an installed package: of its modules, and of what its classes have and set."""
    spec = importlib.util.find_spec(package)
    if spec is None and sys.platform == "win32":
        return set()  # the Windows Python has only the packages that its tests need
    assert spec is not None
    assert spec.submodule_search_locations
    found: set[str] = set()
    for folder in spec.submodule_search_locations:
        for path in Path(folder).rglob("*.py"):
            found.add(path.stem)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute):
                    found.add(node.attr)
                elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    found.add(node.name)
    return {name for name in found if name.startswith("_") and not name.startswith("__")} - OF_NAMED_TUPLES


# Documented despite the underscore: https://docs.python.org/3/library/collections.html#collections.somenamedtuple
OF_NAMED_TUPLES = {"_asdict", "_make", "_replace", "_fields", "_field_defaults"}


def own_private_names() -> set[str]:
    """Return the private names that our own classes and modules define or set on themselves."""
    found: set[str] = set()
    for path in everywhere():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"self", "cls"}:
                found.add(node.attr)
            elif isinstance(node, ast.Name):
                found.add(node.id)
    return found


def test_no_private_name_of_a_dependency_is_used() -> None:
    """Private names of other distributions are neither imported, nor read, nor spelled as strings for getattr."""
    theirs = set().union(*map(private_names, DEPENDENCIES)) - own_private_names()
    for path in everywhere():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and not node.level and not (node.module or "").startswith("__"):
                parts = (node.module or "").split(".") + [alias.name for alias in node.names]
                private = [part for part in parts if part.startswith("_") and part != "__version__"]
                assert private == [], f"{path.name}: {ast.unparse(node)}"
            elif isinstance(node, ast.Attribute):
                assert node.attr not in theirs, f"{path.name}: {ast.unparse(node)}"
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and dotted(path) != "__init__":
                assert node.value not in theirs, f"{path.name}: {node.value!r}"


def test_the_command_line_uses_the_public_names() -> None:
    """The command line uses only the public API."""
    for path in sorted((PACKAGE / "cli").rglob("*.py")):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("wheelcache") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level <= len(path.relative_to(PACKAGE).parts) - 1
                if node.module == "wheelcache":
                    assert {alias.name for alias in node.names} <= {*wheelcache.__all__, "__version__"}
                else:
                    assert not (node.module or "").startswith("wheelcache.")


PATH_PARTS = {"v1", "wheels", "trees", "urls", "partial", "tmp", "locks", "quarantine", "tally.log", "CACHEDIR.TAG"}


def test_only_the_layout_forms_paths() -> None:
    """No other module of the library contains a name that is part of the cache's paths."""
    for path in modules():
        constants = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}
        assert dotted(path) == "_store.layout" or constants & PATH_PARTS == set(), path.name


TOUCHES_THE_DISK = {
    *("open", "stat", "lstat", "access", "scandir", "listdir", "walk", "read", "write", "truncate", "fsync"),
    *("unlink", "remove", "rename", "renames", "replace", "link", "symlink", "utime", "chmod"),
    *("mkdir", "makedirs", "rmdir", "removedirs"),
}
PATH_TOUCHES_THE_DISK = {
    *("exists", "lexists", "isfile", "isdir", "islink", "realpath", "samefile", "getsize", "getmtime"),
}
# The file layer, and modules that read files of callers or of the system.
MAY_TOUCH = {
    *("_fs.inputs", "_os.confined.folders", "_os.confined.posix", "_os.posix", "_os.process_posix"),
    *("_os.volume_posix", "_os.volume_windows", "_os.windows"),
}
MAY_TOUCH |= {"_os.access.posix", "_os.confined.windows"}


def test_only_the_file_layer_touches_the_disk() -> None:
    """Every file operation goes through the file layer, where tests can make it fail."""
    found = {
        (dotted(path), ast.unparse(node.func))
        for path in modules()
        if dotted(path) not in MAY_TOUCH
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
    """Only the module of System reads a clock or sleeps."""
    assert who_imports("time") == {"_os.system"}


def test_everything_private_says_so() -> None:
    """Only the package itself and the command line have names without a leading underscore."""
    assert {name for name in LAYER_OF if not name.startswith("_")} == {"cli"}


def test_all_names_what_is_public() -> None:
    """The exported names are sorted, exist, and are the only public names of the package."""
    assert wheelcache.__all__ == sorted(wheelcache.__all__, key=str)
    shown = {
        name for name, value in vars(wheelcache).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    # CacheTransport is created on first use, because importing the package must not import httpx.
    assert shown | {"CacheTransport"} == set(wheelcache.__all__)
    assert all(hasattr(wheelcache, name) for name in wheelcache.__all__)
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.parametrize("name", [name for name in wheelcache.__all__ if inspect.isclass(getattr(wheelcache, name))])
def test_every_public_class_is_documented(name: str) -> None:
    """Every public class and method has its own docstring."""
    public = getattr(wheelcache, name)
    assert inspect.getdoc(public)
    for attribute, value in vars(public).items():
        if inspect.isfunction(value) and not attribute.startswith("_"):
            assert value.__doc__, f"{name}.{attribute}"


@pytest.mark.parametrize("path", everywhere(), ids=dotted)
def test_every_module_has_a_header(path: Path) -> None:
    """A module begins with a docstring. Public names that are not classes have a docstring after them."""
    assert ast.get_docstring(tree(path))


def test_documented_aliases() -> None:
    """Public type aliases have a docstring after them."""
    values = {name: getattr(wheelcache, name) for name in wheelcache.__all__}
    aliases = [name for name, value in values.items() if not inspect.isclass(value) and not inspect.isfunction(value)]
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
    """The version is defined before any other module is loaded."""
    assert importlib.import_module("wheelcache").__version__.count(".") >= 2

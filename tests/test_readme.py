"""Check that the Python examples of the README run unchanged, and that its reference and commands are complete.

``example.org`` in an example is replaced with a server on loopback that serves a wheel for each wheel URL in the
example. The hash after such a URL is replaced with that of the wheel.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from marks import any_system
from server import Server, status
from wheels import Wheel, make_wheel

import wheelcache
from wheelcache import (
    Cache,
    CachedWheel,
    Cause,
    CommitError,
    HashMismatchError,
    Phase,
    ProgressEvent,
    Status,
    WheelCacheError,
    WheelRequest,
)

pytestmark = any_system

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
WHEEL_URL = re.compile(r"https://(?:[a-z]+\.)*example\.org/[\w./-]+\.whl")
LOCK = """
lock-version = "1.0"
created-by = "wheelcache"
[[packages]]
name = "six"
version = "1.17.0"
[[packages.wheels]]
name = "six-1.17.0-py2.py3-none-any.whl"
url = "https://example.org/packages/six-1.17.0-py2.py3-none-any.whl"
hashes = {sha256 = "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"}
"""


def wheel_at(url: str) -> Wheel:
    """Return a wheel with the name and version in a URL."""
    filename = urlsplit(url).path.rpartition("/")[2]
    name, version = filename.split("-")[:2]
    return Wheel(filename, make_wheel(name, version))


def served(text: str, server: Server) -> str:
    """Serve a wheel for each wheel URL of a text, and return the text with that server, and with the wheels' hashes."""
    url = ""

    def adapt(found: re.Match[str]) -> str:
        nonlocal url
        if not WHEEL_URL.fullmatch(found[0]):
            return wheel_at(url).hex()
        url = found[0]
        return server.serve(urlsplit(url).path, wheel_at(url).data)

    text = re.sub(rf"{WHEEL_URL.pattern}|\b[0-9a-f]{{64}}\b", adapt, text)
    return text.replace("https://example.org", server.origin)


def run(example: str, server: Server) -> dict[str, object]:
    """Run an example as a separate program, and return its variables."""
    scope: dict[str, object] = {"__name__": "__main__"}
    # The example must not inherit this module's import from __future__.
    exec(compile(served(example, server), "README.md", "exec", dont_inherit=True), scope)
    return scope


def test_the_example_of_sharing_runs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of layers and read-only caches runs, with another folder for the shared cache."""
    monkeypatch.setenv("WHEELCACHE_DIR", str(tmp_path / "cache"))
    shared = tmp_path / "shared"
    shared.mkdir()
    text = (ROOT / "docs" / "sharing.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    cache = run(example.replace('"/srv/wheels"', repr(str(shared))), server)["cache"]
    assert isinstance(cache, Cache)
    assert cache.path == shared


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example runs in an empty folder, without errors, and leaves its wheels in the cache."""
    monkeypatch.setenv("WHEELCACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    files = {"pylock.toml": LOCK} if "pylock.toml" in example else {}
    for name, text in files.items():
        (tmp_path / name).write_text(served(text, server), encoding="utf-8")
    run(example, server)
    urls = WHEEL_URL.findall("".join([example, *files.values()]))
    with Cache() as cache:
        cached = {entry.digest for entry in cache.entries()}
    assert urls
    assert cached == {wheel_at(url).digest for url in urls}


def test_the_first_example_installs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick start downloads the wheel, then has a hit, and links the wheel and its files to the named folders."""
    monkeypatch.setenv("WHEELCACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    statuses = []
    for _ in range(2):
        wheel = run(EXAMPLES[0], server)["wheel"]
        assert isinstance(wheel, CachedWheel)
        statuses.append(str(wheel.status))
    assert statuses == ["downloaded", "hit"]
    assert [path.name for path in (tmp_path / "wheelhouse").iterdir()] == [wheel.filename]
    assert (tmp_path / "site-packages" / "six.py").exists()


HANDLERS = [example for example in EXAMPLES if "except" in example]


@pytest.mark.parametrize("example", HANDLERS)
def test_the_examples_handle_a_failed_download(
    example: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The examples of error handling print the URL of a wheel that the server does not have."""
    monkeypatch.setenv("WHEELCACHE_DIR", str(tmp_path / "cache"))
    for url in WHEEL_URL.findall(example):
        server.script(urlsplit(url).path, status(404))
    run(example, server)
    assert server.origin in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        HashMismatchError(expected={"sha256": "the requested hash"}, actual={}),
        CommitError(path="the requested hash", holders=("scanner.exe (pid 7)",)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_example_handles_each_error(
    error: WheelCacheError,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The example of error handling prints the details of each error that it names."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("WHEELCACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(Cache, "fetch", fail)
    run(HANDLERS[0], server)
    assert "the requested hash" in capsys.readouterr().out


def test_no_example_is_overlooked() -> None:
    """Every Python block of the README is among the examples."""
    assert len(EXAMPLES) == README.lower().count("```py")


@pytest.mark.parametrize("end", ["wheelcache fetch", "pytest"])
def test_the_commands_are_single_lines(end: str) -> None:
    """CI reads the test command from a single line of the README, and the other one can be pasted."""
    assert len(re.findall(rf"^python3 -m venv .*{end}.*$", README, re.MULTILINE)) == 1


def section(title: str) -> str:
    """Return a part of the reference."""
    return README.split(f"\n### {title}\n")[1].partition("\n#")[0]


def names_in(text: str) -> set[str]:
    """Return the words in code style."""
    return set(re.findall(r"`(\w+)`", text))


@pytest.mark.parametrize("kind", [CachedWheel, WheelRequest, ProgressEvent])
def test_every_field_is_documented(kind: type) -> None:
    """The reference names every field of the values that callers pass and receive."""
    fields = {field.name for field in dataclasses.fields(kind)}
    assert fields - names_in(section(kind.__name__)) == set()


def test_every_status_phase_and_cause_is_documented() -> None:
    """The reference names every way in which a wheel is obtained, every phase, and every cause of a refusal."""
    assert set(Status) - names_in(section("CachedWheel")) == set()
    assert set(Phase) - names_in(section("ProgressEvent")) == set()
    assert {cause.name for cause in Cause} - names_in(section("Errors").replace("Cause.", "")) == set()


def errors() -> list[type[WheelCacheError]]:
    public = (getattr(wheelcache, name) for name in wheelcache.__all__)
    return [each for each in public if inspect.isclass(each) and issubclass(each, WheelCacheError)]


@pytest.mark.parametrize("kind", errors())
def test_every_error_is_documented(kind: type[WheelCacheError]) -> None:
    """The row of each error names the attributes that it adds to its base class."""
    rows = re.findall(rf"^\| `{kind.__name__}` \|.*$", section("Errors"), re.MULTILINE)
    assert len(rows) == 1
    needed = {"expected": {}, "actual": {}} if "expected" in inspect.signature(kind).parameters else {}
    own = set(vars(kind(**needed)))
    if kind is not WheelCacheError:
        own -= set(vars(WheelCacheError()))
    assert own - names_in(rows[0]) == set()


@pytest.mark.parametrize("name", sorted(name for name in vars(Cache) if not name.startswith("_")))
def test_every_method_is_documented(name: str) -> None:
    """The tables and the text name every public method of a cache."""
    assert re.search(rf"`{name}\b", README)

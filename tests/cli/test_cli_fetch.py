"""``wheelcache fetch`` from end to end: real processes, real pip, an index on loopback."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from marks import any_system, with_uv
from server import Server
from shell import APP, LIB, OLD_LIB, Ran, Shell
from simple_index import Built, Index

from wheelcache import Cache
from wheelcache.cli.resolve.requests import make_request


def test_a_requirement_comes_with_its_dependency_and_is_a_hit_the_second_time(shell: Shell, index: Index):
    """The first run downloads each wheel once. In the second, every row is a hit and no wheel is requested."""
    first = shell.process("demo-app")
    assert (first.code, first.err) == (0, "")
    assert first.rows == {APP.filename: "downloaded", LIB.filename: "downloaded"}
    assert "2 wheels" in first.out.splitlines()[-1]
    assert len(index.downloads()) == 2

    index.server.forget()
    second = shell.process("demo-app")
    assert second.code == 0
    assert second.rows == {APP.filename: "hit", LIB.filename: "hit"}
    assert index.downloads() == []


@any_system
def test_json_tells_all_that_a_program_needs(shell: Shell, index: Index):
    """The output is one JSON object and nothing else, and its paths lead to the right bytes."""
    ran = shell.fetch("demo-app", "--json", "--to", "out")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["errors"] == []
    app, lib = ran.json["wheels"]
    assert app["filename"] == APP.filename
    assert app["digest"] == f"sha256:{APP.sha256}"
    assert app["size"] == len(APP.data)
    assert app["status"] == "downloaded"
    assert app["url"] == index.wheel_url(APP).partition("#")[0]
    assert app["requirement"] == "demo-app==1.0"
    assert app["seconds"] >= 0
    assert Path(app["path"]).read_bytes() == APP.data
    assert app["linked"] == str(shell.folder / "out" / APP.filename)
    assert app["mode"] in {"clone", "hardlink", "copy"}
    assert Path(lib["linked"]).read_bytes() == LIB.data


@any_system
@pytest.mark.parametrize("installer", ["pip", pytest.param("uv", marks=with_uv)])
def test_installers_take_what_was_linked_out(installer: str, shell: Shell, index: Index):
    """Both pip and uv install from the folder of --to without an index."""
    shell.fetch("demo-app", "--to", "out")
    arguments = ["install", "--no-index", "--find-links", "out", "--target", "installed", "demo-app"]
    command = [installer, *arguments] if installer == "pip" else ["uv", "pip", *arguments, "--python", sys.executable]
    check_installed(shell, command)


def test_pip_takes_what_is_in_the_cache(shell: Shell, index: Index):
    """A path in the cache can be installed by pip directly."""
    wheels = shell.fetch("demo-app", "--json").json["wheels"]
    check_installed(
        shell, ["pip", "install", "--no-index", "--target", "installed", *[each["path"] for each in wheels]]
    )


def check_installed(shell: Shell, command: list[str]):
    ran = shell.run([sys.executable, "-m", *command])
    assert ran.code == 0, ran.err
    assert (shell.folder / "installed" / "demo_app.py").read_text() == "version = '1.0'\n"
    assert (shell.folder / "installed" / "demo_lib.py").read_text() == "version = '2.0'\n"


@any_system
def test_requirement_files_and_constraints_are_handed_to_pip(shell: Shell, index: Index):
    """A requirements file with a hash and a constraints file have the same effect as with pip."""
    shell.folder.joinpath("requirements.txt").write_text("demo-app  # the application\n")
    shell.folder.joinpath("limits.txt").write_text("demo-lib<2\n")
    ran = shell.fetch("-r", "requirements.txt", "-c", "limits.txt")
    assert ran.rows == {APP.filename: "downloaded", OLD_LIB.filename: "downloaded"}

    shell.folder.joinpath("hashed.txt").write_text(f"demo-lib==2.0 --hash=sha256:{LIB.sha256}\n")
    assert shell.fetch("-r", "hashed.txt").rows == {LIB.filename: "downloaded"}


@any_system
def test_the_index_can_be_given_and_pre_releases_asked_for(shell: Shell, server: Server):
    """-i chooses the index, and --pre includes pre-releases."""
    index = Index(server, [LIB, Built("demo-lib", "3.0rc1")])
    assert list(shell.fetch("demo-lib", "-i", index.url(), "--pre").rows) == ["demo_lib-3.0rc1-py3-none-any.whl"]


def test_wheels_of_a_local_folder_are_hits_the_second_time(shell: Shell):
    """Wheels of a --find-links folder, which have no hash, are copied into the cache once."""
    folder = shell.folder / "wheels"
    folder.mkdir()
    for wheel in (APP, LIB):
        folder.joinpath(wheel.filename).write_bytes(wheel.data)
    statuses = [shell.fetch("demo-app", "--no-index", "-f", "wheels").rows for _ in range(2)]
    assert statuses == [dict.fromkeys([APP.filename, LIB.filename], status) for status in ("added", "hit")]


def test_urls_and_wheel_files_are_taken_as_they_are(shell: Shell, index: Index):
    """A URL with a hash, a file: URL and a path need no resolver, and are hits the second time."""
    local, other = Built("local", "1.0"), Built("other-local", "1.0")
    for wheel in (local, other):
        shell.folder.joinpath(wheel.filename).write_bytes(wheel.data)
    arguments = [index.wheel_url(LIB), local.filename, shell.folder.joinpath(other.filename).as_uri()]
    assert shell.fetch(*arguments).rows == {
        LIB.filename: "downloaded", local.filename: "added", other.filename: "added",
    }  # fmt: skip
    assert set(shell.fetch(*arguments).rows.values()) == {"hit"}
    assert [request.target for request in index.server.requests()] == [index.file(LIB)]


@pytest.mark.parametrize("data", [b"", b"P", b"<html>Please log in</html>", LIB.data[:-1]])
@pytest.mark.parametrize("as_url", [False, True], ids=["path", "file URL"])
def test_a_local_file_that_is_no_wheel_is_refused(shell: Shell, data: bytes, as_url: bool):
    """A file that is only named like a wheel fails every time, and is added neither to the cache nor to --to."""
    file = shell.folder / LIB.filename
    file.write_bytes(data)
    for _ in range(2):
        ran = shell.fetch(file.as_uri() if as_url else LIB.filename, "--to", "out", "--json")
        assert ran.code == 1
        assert [error["error"] for error in ran.json["errors"]] == ["InvalidWheelError"]
    assert not shell.folder.joinpath("out", LIB.filename).exists()
    file.write_bytes(LIB.data)
    assert shell.fetch(LIB.filename).rows == {LIB.filename: "added"}


def test_a_local_wheel_is_a_hit_under_another_name_too(shell: Shell):
    """Bytes that are in the cache are not copied again, and the hit is counted."""
    copy = Built(LIB.name, LIB.version, tag="py2.py3-none-any").filename
    for name in (LIB.filename, copy):
        shell.folder.joinpath(name).write_bytes(LIB.data)
    assert [shell.fetch(name).rows for name in (LIB.filename, copy)] == [{LIB.filename: "added"}, {copy: "hit"}]
    with Cache(shell.cache) as cache:
        assert (cache.stats().hits, cache.stats().misses) == (1, 1)


def test_a_wheel_requested_twice_is_fetched_once(shell: Shell, index: Index):
    """A wheel that two arguments request has one row."""
    ran = shell.fetch(index.wheel_url(LIB), index.wheel_url(LIB))
    assert ran.out.count(LIB.filename) == 1
    assert len(index.downloads()) == 1


@any_system
def test_arguments_of_every_kind_are_mixed(shell: Shell, index: Index):
    """A requirement, a lock file and a URL can be combined."""
    shell.folder.joinpath("pylock.toml").write_text(lock(package(LIB, url=index.wheel_url(LIB).partition("#")[0])))
    extra = Built("extra", "1.0")
    Index(index.server, [extra], at="/elsewhere")
    url = index.server.url(f"/elsewhere/files/{extra.filename}")
    assert set(shell.fetch("pylock.toml", "demo-app", url, "-c", os.devnull).rows) == {
        APP.filename, LIB.filename, extra.filename,
    }  # fmt: skip


@any_system
def test_offline_takes_from_the_cache_alone(shell: Shell, index: Index):
    """Requirements are resolved among the cached wheels, without a request to the index."""
    shell.fetch("demo-app")
    index.server.forget()
    assert set(shell.fetch("demo-app", "--offline").rows.values()) == {"hit"}
    missing = shell.fetch("demo-lib<2", index.wheel_url(OLD_LIB), "--offline")
    assert missing.code == 1
    assert "offline" in missing.err
    assert f"{OLD_LIB.filename} is not in the cache" in missing.err
    assert index.server.requests() == []


def test_a_pipe_gets_whole_file_names_however_narrow_the_terminal(shell: Shell):
    """If stdout is not a terminal, the table is neither truncated nor folded."""
    long = Built("a-project-with-" + "-".join(["a-very-long-name"] * 6), "1.0")
    shell.folder.joinpath(long.filename).write_bytes(long.data)
    ran = shell.process(long.filename, COLUMNS="20", FORCE_COLOR="1")
    assert ran.rows == {long.filename: "added"}
    assert "\x1b" not in ran.out + ran.err


def test_quiet_prints_errors_only(shell: Shell, index: Index):
    """--quiet prints errors only."""
    assert shell.fetch(index.wheel_url(LIB), "--quiet") == Ran(0, "", "")
    failed = shell.fetch("missing.whl", "--quiet")
    assert (failed.code, failed.out) == (1, "")
    assert failed.err == "error: no such file: missing.whl\n"


@any_system
def test_weak_hashes_alone_are_left_out_and_kept_beside_a_strong_one():
    """A wheel with only md5 in the index is fetched, and the cache computes a strong hash."""
    weak, strong = {"md5": "0" * 32}, {"sha256": "0" * 64}
    url = f"https://example.org/{LIB.filename}"
    assert make_request(url, weak).hashes is None
    assert make_request(url, weak | strong).hashes == weak | strong


# Lock files


def package(wheel: Built, *, url: str | None = None, path: str | None = None, more: str = "") -> str:
    source = "\n".join(f"{key} = {value!r}" for key, value in {"url": url, "path": path}.items() if value)
    return (
        f"[[packages]]\nname = '{wheel.name}'\nversion = '{wheel.version}'\n{more}\n"
        f"[[packages.wheels]]\nname = '{wheel.filename}'\n{source}\nsize = {len(wheel.data)}\n"
        f"hashes = {{ sha256 = '{wheel.sha256}' }}\n"
    )


def lock(*packages: str) -> str:
    return "\n".join(["lock-version = '1.0'\ncreated-by = 'tests'\n", *packages])


@any_system
def test_a_lock_file_is_read_without_a_resolver(shell: Shell, index: Index):
    """Wheels are read from the lock file's path or URL, and packages are excluded by their markers."""
    folder = shell.folder / "project" / "wheels"
    folder.mkdir(parents=True)
    folder.joinpath(APP.filename).write_bytes(APP.data)
    folder.parent.joinpath("pylock.dev.toml").write_text(
        lock(
            package(APP, path=f"wheels/{APP.filename}", url="https://example.org/not-asked.whl"),
            package(LIB, path="wheels/not-there.whl", url=index.wheel_url(LIB).partition("#")[0]),
            package(Built("elsewhere", "1.0"), path="none.whl", more="marker = \"sys_platform == 'mars'\""),
        )
    )
    for status in ("downloaded", "hit"):
        rows = shell.fetch(os.path.join("project", "pylock.dev.toml")).rows
        assert rows == {APP.filename: "added" if status == "downloaded" else "hit", LIB.filename: status}
    assert [request.target for request in index.server.requests()] == [index.file(LIB)]


@any_system
def test_a_package_that_is_locked_as_source_does_not_stop_the_wheels(shell: Shell, index: Index):
    """Each source is an error that names it. Wheels are fetched, even if locked as archives."""
    sdist = (
        "[[packages]]\nname = 'from-source'\nversion = '1.0'\n[packages.sdist]\nname = 'from_source-1.0.tar.gz'\n"
        f"url = '{index.url()}from_source-1.0.tar.gz'\nhashes = {{ sha256 = '{'0' * 64}' }}\n"
    )
    directory = "[[packages]]\nname = 'from-folder'\n[packages.directory]\npath = '.'\n"
    vcs = "[[packages]]\nname = 'from-git'\n[packages.vcs]\ntype = 'git'\npath = '.'\ncommit-id = '0'\n"
    archive = (
        f"[[packages]]\nname = '{LIB.name}'\n[packages.archive]\n"
        f"url = '{index.wheel_url(LIB).partition('#')[0]}'\nhashes = {{ sha256 = '{LIB.sha256}' }}\n"
    )
    shell.folder.joinpath("pylock.toml").write_text(lock(sdist, directory, vcs, archive))
    ran = shell.fetch("-r", "pylock.toml")
    assert ran.code == 1
    assert ran.rows == {LIB.filename: "downloaded"}
    first, second, third = ran.err.splitlines()
    assert "from-source==1.0 is locked as a source distribution" in first
    assert "from-folder is locked as a directory" in second
    assert "from-git is locked as a version control checkout" in third


@any_system
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("this is no toml", "error: pylock.toml is not a valid lock file: "),
        ("lock-version = '1.0'", "error: pylock.toml is not a valid lock file: "),
        ("lock-version = '2.0'\ncreated-by = 'x'\npackages = []", "version 2.0 is not supported"),
        (lock() + "requires-python = '<3'\npackages = []", "error: pylock.toml does not apply to this environment: "),
        (b"\xff\xfe\xfa", "error: pylock.toml is not a valid lock file: "),
        (f"x = {'[' * 5000}{']' * 5000}", "error: pylock.toml is not a valid lock file: "),
        (f"x = {'9' * 5000}", "error: pylock.toml is not a valid lock file: "),
        (bytes((64 << 20) + 1), "error: pylock.toml is not a valid lock file: it has more than 67108864 bytes"),
        (None, "error: pylock.toml: No such file"),
    ],
    ids=[
        *("no toml", "incomplete", "from the future", "for another Python", "no text", "deep", "large number"),
        *("large", "not there"),
    ],
)
def test_a_lock_file_that_is_of_no_use_is_one_line(shell: Shell, content: str | bytes | None, said: str):
    """Any problem with a lock file is one line, with exit code 1."""
    if content is not None:
        shell.folder.joinpath("pylock.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    ran = shell.fetch("pylock.toml")
    assert ran.code == 1
    assert said in ran.err
    assert ran.err.count("\n") == 1

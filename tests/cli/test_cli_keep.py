"""The commands other than fetch: their output, their effects, and their exit codes."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from folders import files_in
from shell import Ran, Shell
from wheels import Wheel, make_wheel, wheel_filename

from wheelcache import Cache
from wheelcache.cli._options import parse_age, parse_size

WHEELS = [Wheel(wheel_filename(f"proj_{n}"), make_wheel(f"proj_{n}", size=4000)) for n in range(3)]


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """A cache of three wheels, last used long ago in this order."""
    with Cache(shell.cache) as cache:
        for number, wheel in enumerate(WHEELS):
            source = shell.folder / wheel.filename
            source.write_bytes(wheel.data)
            path = cache.put(source).path
            os.utime(path.with_suffix(".json"), (1_000_000_000 + number,) * 2)
    return shell


def run(shell: Shell, *arguments: str) -> Ran:
    return shell.command(*arguments)


def test_dir_says_where(filled: Shell) -> None:
    """The output is the path alone, as text or JSON."""
    assert run(filled, "dir").out == f"{filled.cache}\n"
    assert run(filled, "dir", "--json").json == {"path": str(filled.cache)}


@pytest.mark.parametrize("place", [("missing",), ("file", "below")], ids=["not there", "where nothing can be made"])
def test_dir_makes_nothing(shell: Shell, place: tuple[str, ...]) -> None:
    """The path of a missing or impossible cache folder is printed, and nothing is created."""
    shell.folder.joinpath("file").write_bytes(b"")
    folder = shell.folder.joinpath(*place)
    before = sorted(shell.folder.rglob("*"))
    for arguments in ((), ("--cache-dir", os.path.join(*place))):
        ran = shell.command("dir", *arguments, WHEELCACHE_DIR=str(folder))
        assert (ran.code, ran.out, ran.err) == (0, f"{folder}\n", "")
    assert sorted(shell.folder.rglob("*")) == before


def test_ls_lists_all_or_those_that_are_named(filled: Shell) -> None:
    """Wheels are selected by project in any spelling, digest or file name. An unknown name is an error."""
    everything = run(filled, "ls")
    assert all(wheel.filename in everything.out for wheel in WHEELS)
    assert everything.out.splitlines()[-1] == "3 wheels, 12.0 kB"
    for name in ("Proj.1", WHEELS[1].digest, WHEELS[1].filename):
        (found,) = run(filled, "ls", name, "--json").json["wheels"]
        assert (found["filename"], found["digest"], found["size"]) == (WHEELS[1].filename, WHEELS[1].digest, 4000)
        assert Path(found["path"]).read_bytes() == WHEELS[1].data
    nothing = run(filled, "ls", "proj-1", "nobody")
    assert (nothing.code, nothing.out) == (1, "")
    assert "nobody" in nothing.err


def test_digests_are_taken_as_ls_prints_them(filled: Shell) -> None:
    """Every command accepts the start of a digest, with or without the algorithm, from 8 digits on."""
    printed = {line.split()[0]: line.split()[-1] for line in run(filled, "ls").out.splitlines()[1:-1]}
    short = printed[WHEELS[1].filename]
    assert WHEELS[1].digest.startswith(short)
    for name in (short, WHEELS[1].hex()[:8], WHEELS[1].hex().upper(), f"sha256={WHEELS[1].hex()[:9]}"):
        (found,) = run(filled, "info", name, "--json").json["wheels"]
        assert found["filename"] == WHEELS[1].filename
        (plan,) = run(filled, "rm", "-n", name, "--json").json["removed"]
        assert plan["filename"] == WHEELS[1].filename
    assert run(filled, "export", "out", short).out == "1 wheel in out\n"
    for command in ("ls", "rm"):
        assert run(filled, command, WHEELS[1].hex()[:7]).code == 1


def test_a_beginning_of_several_digests_is_an_error_that_names_them(shell: Shell) -> None:
    """An ambiguous start of a digest shows and removes nothing. A longer one selects one wheel."""
    one, other = twins()
    with Cache(shell.cache) as cache:
        for wheel in (one, other):
            cache.put(io.BytesIO(wheel.data), filename=wheel.filename)
    before = files_in(shell.cache)
    for command in ("ls", "info", "rm"):
        ran = run(shell, command, one.hex()[:8])
        assert (ran.code, ran.out) == (1, "")
        for wheel in (one, other):
            assert f"{wheel.digest} ({wheel.filename})" in ran.err
    assert files_in(shell.cache) == before
    assert [wheel["filename"] for wheel in run(shell, "ls", one.hex()[:16], "--json").json["wheels"]] == [one.filename]


def twins() -> tuple[Wheel, Wheel]:
    """Return two wheels whose digests begin with the same 8 digits: a search among many candidates finds a pair."""
    data = make_wheel("proj_0", size=4000)
    begun, seen = hashlib.sha256(data), dict[str, bytes]()
    for number in itertools.count():
        running = begun.copy()
        running.update(end := number.to_bytes(8))  # behind the archive, which may have a comment
        other = seen.setdefault(running.hexdigest()[:8], end)
        if other != end:
            return Wheel(wheel_filename("proj_0"), data + other), Wheel(wheel_filename("proj_1"), data + end)
    raise AssertionError


def test_info_tells_all(filled: Shell) -> None:
    """The output has size, path and hashes, as text or JSON."""
    out = run(filled, "info", "proj-0").out
    assert "4.0 kB (4000 bytes)" in out
    assert WHEELS[0].hex() in out
    assert run(filled, "info", "proj-0", "--json").json["wheels"][0]["hashes"] == {"sha256": WHEELS[0].hex()}
    assert run(filled, "info").code == 2


def test_stats_count(filled: Shell) -> None:
    """The output has the number and the size of the wheels, as text or JSON."""
    assert "12.0 kB" in run(filled, "stats").out
    stats = run(filled, "stats", "--json").json
    assert (stats["wheels"], stats["wheel_bytes"], stats["path"]) == (3, 12_000, str(filled.cache))


def test_prune_cuts_to_a_size_that_people_write(filled: Shell) -> None:
    """A dry run shows the wheels and keeps them. The run removes them. Ages and --keep work as well."""
    before = files_in(filled.cache)
    plan = run(filled, "prune", "--max-size", "8kB", "--dry-run")
    assert WHEELS[0].filename in plan.out
    assert plan.out.splitlines()[-1] == "would free 4.0 kB: 1 wheel, 0 leftovers"
    assert files_in(filled.cache) == before
    done = run(filled, "prune", "--max-size", "8kB", "--json").json
    assert [wheel["filename"] for wheel in done["removed"]] == [WHEELS[0].filename]
    assert (done["freed"], done["skipped"], done["dry_run"]) == (4000, [], False)
    kept = run(filled, "prune", "--keep", WHEELS[1].digest)
    assert kept.out.splitlines()[-1] == "freed 4.0 kB: 1 wheel, 0 leftovers"
    assert run(filled, "prune", "--max-age", "1y", "-q").out == ""
    assert run(filled, "stats", "--json").json["wheels"] == 0


@pytest.mark.parametrize(
    "arguments",
    [("ls",), ("info", "one"), ("stats",), ("export", "out"), ("prune",), ("rm", "one"), ("clear", "-y"), ("verify",)],
    ids=lambda arguments: arguments[0],
)
def test_a_mistyped_folder_is_told_and_not_made(filled: Shell, arguments: tuple[str, ...]) -> None:
    """Commands on the contents of a cache do not create its folder."""
    missing = filled.folder / "mistyped"
    ran = run(filled, *arguments, "--cache-dir", str(missing))
    assert ran.code == 2
    assert "does not exist" in ran.err
    assert not missing.exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("prune", "--max-size", "lots"), 2),
        (("prune", "--max-size", "-1"), 2),
        (("prune", "--max-size", "9" * 400), 2),
        (("prune", "--max-age", "30"), 2),
        (("prune", "--keep", "no such.toml"), 1),
        (("prune", "--keep", "sha256:123"), 1),
        (("rm", "nobody"), 1),
        (("rm", "proj-0", "sha256:123"), 1),
        (("rm",), 2),
        (("clear",), 2),
    ],
    ids=str,
)
def test_bad_input_removes_nothing(filled: Shell, arguments: tuple[str, ...], code: int) -> None:
    """Bad input is an error on stderr, and nothing is removed."""
    before = files_in(filled.cache)
    ran = run(filled, *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err
    assert files_in(filled.cache) == before


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1500", 1500), ("1.5kB", 1500), ("10 GB", 10**10), ("2GiB", 2**31), ("1m", 10**6)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    """Units are powers of 1000, or of 1024 with an "i"."""
    assert parse_size(text) == size
    assert parse_age("30d") == 2 * parse_age("360h") == 2_592_000


def test_rm_takes_projects_and_digests(filled: Shell) -> None:
    """A dry run keeps the named wheels. The run removes these and no others."""
    assert WHEELS[0].filename in run(filled, "rm", "-n", "proj-0").out
    assert run(filled, "rm", "PROJ.0", WHEELS[2].digest).code == 0
    assert [wheel["filename"] for wheel in run(filled, "ls", "--json").json["wheels"]] == [WHEELS[1].filename]


def test_rm_takes_file_names_and_all_names_of_their_bytes(filled: Shell) -> None:
    """A file name removes all names of the same bytes. If one name is unknown, nothing is removed."""
    with Cache(filled.cache) as cache:
        alias = cache.put(filled.folder / WHEELS[0].filename, filename=wheel_filename("alias")).filename
    before = files_in(filled.cache)
    for unknown in (wheel_filename("nobody"), "nobody", "0123456789ab"):
        ran = run(filled, "rm", WHEELS[0].filename, unknown)
        assert (ran.code, ran.out, unknown in ran.err) == (1, "", True)
    assert files_in(filled.cache) == before
    removed = run(filled, "rm", WHEELS[0].filename, WHEELS[2].filename, "--json").json["removed"]
    assert {wheel["filename"] for wheel in removed} == {WHEELS[0].filename, alias, WHEELS[2].filename}
    assert [wheel["filename"] for wheel in run(filled, "ls", "--json").json["wheels"]] == [WHEELS[1].filename]


def test_rm_takes_damaged_wheels_by_project_and_digest(filled: Shell) -> None:
    """Damaged wheels, which ls does not list, can be removed."""
    for wheel in WHEELS[:2]:
        (path,) = filled.cache.rglob(wheel.filename)
        path.write_bytes(b"damaged")
    removed = run(filled, "rm", "proj-0", WHEELS[1].hex(), "--json").json["removed"]
    assert {wheel["filename"] for wheel in removed} == {WHEELS[0].filename, WHEELS[1].filename}


def test_clear_takes_all_when_told_so(filled: Shell) -> None:
    """--dry-run keeps everything, and --yes removes it."""
    assert len(run(filled, "clear", "--dry-run", "--json").json["removed"]) == 3
    assert len(run(filled, "ls", "--json").json["wheels"]) == 3
    assert run(filled, "clear", "--yes").out.splitlines()[-1].startswith("freed 12.0 kB: 3 wheels")
    assert run(filled, "ls", "--json").json["wheels"] == []


def test_clear_asks_a_person(filled: Shell) -> None:
    """On a terminal, the prompt shows the size, and the answer decides."""
    pytest.importorskip("termios", reason="there are no such terminals here")
    import pty

    for answer, code, left in ((b"n\n", 1, 3), (b"y\n", 0, 0)):
        outer, inner = pty.openpty()
        os.write(outer, answer)
        ran = subprocess.run(
            [sys.executable, "-m", "wheelcache.cli", "clear"],
            stdin=inner,
            env=filled.environment,
            cwd=filled.folder,
            capture_output=True,
            encoding="utf-8",
        )
        os.close(inner)
        os.close(outer)
        assert ran.returncode == code
        assert "3 wheels, 12.0 kB" in ran.stderr
        assert len(run(filled, "ls", "--json").json["wheels"]) == left


def test_verify_ends_with_1_until_it_is_repaired(filled: Shell) -> None:
    """The problem is listed, and --repair quarantines the file."""
    assert run(filled, "verify").out.splitlines()[-1] == "3 checked, 0 problems"
    (path,) = filled.cache.rglob(WHEELS[1].filename)
    path.write_bytes(b"damaged")
    ran = run(filled, "verify", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["problems"] == [
        {"kind": "short", "path": str(path), "digest": WHEELS[1].digest, "action": "none"}
    ]
    assert "quarantined" in run(filled, "verify", "--repair").out
    assert run(filled, "verify", "-q").code == 0


def test_export_makes_a_wheelhouse(filled: Shell) -> None:
    """All wheels, or the named ones, are exported in any mode."""
    assert run(filled, "export", "out").out == "3 wheels in out\n"
    assert files_in(filled.folder / "out") == {wheel.filename: wheel.data for wheel in WHEELS}
    paths = run(filled, "export", "one", "proj-2", "--mode", "copy", "--json").json["paths"]
    assert paths == [str(filled.folder / "one" / WHEELS[2].filename)]


def test_export_says_which_wheels_to_leave_out(filled: Shell) -> None:
    """All wheels with the same name are listed and nothing is written. Naming a digest chooses one."""
    others = [Wheel(wheel.filename, make_wheel(f"proj_{n}", size=5000)) for n, wheel in enumerate(WHEELS[:2])]
    with Cache(filled.cache) as cache:
        for wheel in others:
            cache.put(io.BytesIO(wheel.data), filename=wheel.filename)
    for names in ((), ("proj-0", "proj-1")):
        ran = run(filled, "export", "out", *names)
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert all(wheel.digest in ran.err and wheel.filename in ran.err for wheel in (*WHEELS[:2], *others))
        assert WHEELS[2].digest not in ran.err
        assert not filled.folder.joinpath("out").exists()
    assert run(filled, "export", "out", WHEELS[0].digest, others[1].digest, "proj-2").out == "3 wheels in out\n"
    assert files_in(filled.folder / "out") == {
        wheel.filename: wheel.data for wheel in (WHEELS[0], others[1], WHEELS[2])
    }

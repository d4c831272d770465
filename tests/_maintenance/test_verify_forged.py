"""Verify finds records, pointers and trees that another user has forged, with valid checksums."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from machines import Machine
from server import Server
from wheels import make_wheel, wheel_filename

from wheelcache import Action, Cache, CachedWheel, ProblemKind
from wheelcache._cache import core_of
from wheelcache._fs.tempnames import OwnerTag
from wheelcache._store.records import decode, decode_record, encode, encode_record
from wheelcache._unpack.manifest import Manifest
from wheelcache._unpack.marker import decode_marker, encode_marker


@pytest.fixture(params=[3000, 100_000], ids=["small", "large"])
def wheel(cache: Cache, tmp_path: Path, request: pytest.FixtureRequest) -> CachedWheel:
    """A wheel that was put with its sha512, so that its record has this hash and a pointer leads to it."""
    source = tmp_path / wheel_filename()
    data = make_wheel(size=request.param)
    source.write_bytes(data)
    return cache.put(source, hashes={"sha512": hashlib.sha512(data).hexdigest()})


def record_of(wheel: CachedWheel) -> Path:
    return wheel.path.with_suffix(".json")


def problems(cache: Cache, *, repair: bool = False) -> list[tuple[ProblemKind, Path, Action]]:
    found = cache.verify(repair=repair).problems
    return [(problem.kind, problem.path, problem.action) for problem in found]


@pytest.mark.parametrize("algorithm", ["sha512", "md5", "unknown"])
def test_a_forged_hash_in_a_record_is_corrected(cache: Cache, wheel: CachedWheel, algorithm: str) -> None:
    """A hash in a record that the bytes do not have is a problem. A repair writes the right hashes."""
    path, sha256 = record_of(wheel), wheel.digest.removeprefix("sha256:")
    record = decode_record(path.read_bytes(), sha256)
    assert record is not None
    forged = {**record.hashes, algorithm: "0" * len(wheel.hashes.get(algorithm, "0" * 32))}
    path.write_bytes(encode_record(record._replace(hashes=forged)))
    if decode_record(path.read_bytes(), sha256) is None:
        assert problems(cache) == [(ProblemKind.TORN, path, Action.NONE)]
        return
    assert problems(cache) == [(ProblemKind.ALTERED, path, Action.NONE)]
    assert problems(cache, repair=True) == [(ProblemKind.ALTERED, path, Action.ADOPTED)]
    assert problems(cache) == []
    repaired = decode_record(path.read_bytes(), sha256)
    assert repaired is not None
    for name, value in repaired.hashes.items():
        assert value == hashlib.new(name, Path(wheel).read_bytes()).hexdigest()
    assert repaired.hashes["sha512"] == wheel.hashes["sha512"]


@pytest.mark.parametrize("algorithm", ["sha512", "sha384", "blake2b"])
def test_a_forged_pointer_is_removed(cache: Cache, wheel: CachedWheel, algorithm: str) -> None:
    """A pointer from a hash that its wheel does not have is removed, and one from a hash that it has is kept."""
    layout, data = core_of(cache).layout, Path(wheel).read_bytes()
    pointer = encode({"sha256": wheel.digest.removeprefix("sha256:")})
    right = Path(layout.pointer(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"))
    forged = Path(layout.pointer(f"{algorithm}:{hashlib.new(algorithm, b'').hexdigest()}"))
    for path in (right, forged):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pointer)
    assert problems(cache) == [(ProblemKind.ALTERED, forged, Action.NONE)]
    assert problems(cache, repair=True) == [(ProblemKind.ALTERED, forged, Action.REMOVED)]
    assert (right.exists(), forged.exists()) == (True, False)
    assert problems(cache) == []


def test_a_forged_pointer_with_a_forged_record_is_found(cache: Cache, wheel: CachedWheel) -> None:
    """A record that lists the hash of the forged pointer does not hide it. Both are repaired."""
    layout, path, sha256 = core_of(cache).layout, record_of(wheel), wheel.digest.removeprefix("sha256:")
    wanted = hashlib.sha512(b"another wheel").hexdigest()
    record = decode_record(path.read_bytes(), sha256)
    assert record is not None
    path.write_bytes(encode_record(record._replace(hashes={"sha512": wanted})))
    forged = Path(layout.pointer(f"sha512:{wanted}"))
    forged.parent.mkdir(parents=True, exist_ok=True)
    forged.write_bytes(encode({"sha256": sha256}))
    assert {(kind, where) for kind, where, _ in problems(cache)} == {
        (ProblemKind.ALTERED, path),
        (ProblemKind.ALTERED, forged),
    }
    assert {action for *_, action in problems(cache, repair=True)} == {Action.ADOPTED, Action.REMOVED}
    assert problems(cache) == []
    assert cache.get(f"sha512:{wanted}") is None
    assert cache.get(f"sha512:{wheel.hashes['sha512']}") is not None


def test_the_pointer_of_a_url_is_no_problem(cache: Cache, server: Server) -> None:
    """The name of a URL's pointer is not a hash of its wheel, and is not compared with one."""
    cache.fetch(server.serve(f"/{wheel_filename()}", make_wheel()))
    assert len(list((cache.path / "v1/urls").rglob("*.json"))) == 1
    assert problems(cache) == []


Forgery = Callable[[Path, Manifest], Manifest]


def module_of(root: Path) -> Path:
    return min(path for path in root.rglob("*.py") if path.is_file())


def change_bytes(root: Path, manifest: Manifest) -> Manifest:
    """Change a file, and its digest in the marker."""
    path = module_of(root)
    stat, old = path.stat(), path.read_bytes()
    new = bytes(len(old))
    path.chmod(0o644)
    path.write_bytes(new)
    path.chmod(0o444)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    old_digest, new_digest = hashlib.sha256(old).hexdigest(), hashlib.sha256(new).hexdigest()
    folders = [folder._replace(digests=folder.digests.replace(old_digest, new_digest)) for folder in manifest.folders]
    return manifest._replace(folders=folders)


def remove_file(root: Path, manifest: Manifest) -> Manifest:
    """Delete a file, and its row in the marker."""
    path = module_of(root)
    path.unlink()
    return change_rows(manifest, path.relative_to(root), lambda rows, number: [*rows[:number], *rows[number + 1 :]])


def add_file(root: Path, manifest: Manifest) -> Manifest:
    """Copy a file, and its row in the marker."""
    path = module_of(root)
    path.with_name("evil.py").write_bytes(path.read_bytes())
    path.with_name("evil.py").chmod(0o444)
    changed = change_rows(manifest, path.relative_to(root), lambda rows, number: [*rows, rows[number]])
    folders = [
        folder._replace(names=[*folder.names[:-1], "evil.py"]) if len(set(folder.names)) < len(folder.names) else folder
        for folder in changed.folders
    ]
    return changed._replace(folders=folders)


def change_rows(manifest: Manifest, file: Path, change: Callable[[list[str], int], list[str]]) -> Manifest:
    """Change the rows of a file's folder in every column of a marker."""
    folders = []
    for folder in manifest.folders:
        if folder.path == file.parent.as_posix().removeprefix("."):
            number = folder.names.index(file.name)
            digests = [folder.digest(row) for row in range(len(folder.names))]
            lists = {
                name: change(list(column), number)
                for name, column in folder._asdict().items()
                if isinstance(column, list)
            }
            strings = {
                "kinds": "".join(change(list(folder.kinds), number)),
                "digests": "".join(change(digests, number)),
            }
            folder = folder._replace(**lists, **strings)  # noqa: PLW2901 - the changed folder
        folders.append(folder)
    return manifest._replace(folders=folders)


FORGERIES: dict[str, Forgery] = {"changed": change_bytes, "removed": remove_file, "added": add_file}


@pytest.mark.parametrize("record", ["right", "torn", "missing"])
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_tree_is_removed(
    machine: Machine, cache: Cache, wheel: CachedWheel, forgery: str, record: str
) -> None:
    """A tree that does not match its wheel is a problem though it matches its marker, whatever the record is."""
    root = cache.unpack(wheel).path
    marker = Path(f"{root}.json")
    manifest = decode_marker(marker.read_bytes())
    assert manifest is not None
    forged = encode_marker(FORGERIES[forgery](root, manifest))
    assert decode_marker(forged) is not None
    marker.write_bytes(forged)
    if record == "torn":
        record_of(wheel).write_bytes(b"{")
    elif record == "missing":
        record_of(wheel).unlink()
    found = [problem for problem in cache.verify().problems if root.parent in problem.path.parents]
    assert {problem.kind for problem in found} == {ProblemKind.ALTERED}
    report = cache.verify(repair=True)
    assert report.ok
    assert not root.exists()
    assert not marker.exists()
    assert problems(cache) == []
    with machine.cache(cache.path) as fresh:
        assert module_of(fresh.unpack(wheel).path).read_bytes() != b""


@pytest.mark.parametrize("name", ["..", "../..", "a/../..", "/etc", "c:", "a/b:c", "x\\y"])
def test_a_marker_with_unsafe_names_is_torn(cache: Cache, wheel: CachedWheel, tmp_path: Path, name: str) -> None:
    """A marker whose names lead elsewhere is invalid, and a repair removes it without touching what it names."""
    root = cache.unpack(wheel).path
    marker = Path(f"{root}.json")
    fields = decode(marker.read_bytes())
    assert fields is not None
    fields.pop("check", None)
    fields["folders"][-1] = name
    marker.write_bytes(encode(fields))
    before = sorted(path for path in tmp_path.rglob("*") if "trees" not in path.parts)
    assert problems(cache) == [(ProblemKind.TORN, marker, Action.NONE)]
    assert problems(cache, repair=True) == [(ProblemKind.TORN, marker, Action.REMOVED)]
    assert sorted(path for path in tmp_path.rglob("*") if "trees" not in path.parts) == before


def test_a_tree_without_its_wheel_is_compared_with_its_marker(cache: Cache, wheel: CachedWheel) -> None:
    """Without the wheel, an intact tree is no problem, and a damaged one is."""
    root = cache.unpack(wheel).path
    wheel.path.unlink()
    record_of(wheel).unlink()
    for pointer in (cache.path / "v1/urls").rglob("*.json"):
        pointer.unlink()
    assert problems(cache) == []
    path = module_of(root)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert problems(cache, repair=True) == [(ProblemKind.ALTERED, path, Action.REMOVED)]


def test_a_wheel_under_the_name_of_another_project_hides_nothing(cache: Cache, wheel: CachedWheel) -> None:
    """A blob whose name does not fit its contents cannot be compared, and its tree is compared with the marker."""
    root = cache.unpack(wheel).path
    wheel.path.rename(wheel.path.with_name("other-1.0-py3-none-any.whl"))
    record_of(wheel).unlink()
    assert [kind for kind, *_ in problems(cache)] == [ProblemKind.ORPHANED]
    assert OwnerTag.of(root.name) is None
    assert root.exists()

"""Trees from other machines, users, boots and versions are compared with their wheels before they are used."""

from __future__ import annotations

import itertools
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from archives import FILENAME, INFO, Entry, archive, wheel, wheel_entries
from faulty import FaultyFiles, FaultyFolder
from folders import files_in, listing
from machines import Machine
from marks import not_on_windows

from wheelcache import Cache, CachedWheel, CommitError, InvalidWheelError, TreeSource
from wheelcache._hashes import sha256_of
from wheelcache._store.records import decode, encode
from wheelcache._unpack.manifest import Manifest, ManifestDir
from wheelcache._unpack.marker import decode_marker, encode_marker

ENTRIES = [
    Entry("demo/__init__.py", b""),
    Entry("demo/a.py", b"a = 1\n"),
    Entry("demo/large.bin", bytes(range(256)) * 1000),
    Entry("demo/run.sh", b"#!/bin/sh\n", mode=0o100755),
    Entry("demo/sub/native.pyd", b"MZ" + bytes(50)),
    Entry("top.py", b"top = 1\n"),
]
WHEEL = wheel(ENTRIES)
ALL = {str(entry.name): entry.data for entry in wheel_entries(ENTRIES)}
EVIL = b"a = 2\n"
VERIFY = ["auto", "full", "records"]


@pytest.fixture
def root(machine: Machine, tmp_path: Path) -> Path:
    """A cache folder with the wheel and its tree."""
    with machine.cache(tmp_path / "cache") as cache:
        cache.unpack(put(cache, tmp_path))
    return tmp_path / "cache"


def put(cache: Cache, tmp_path: Path, data: bytes = WHEEL) -> CachedWheel:
    source = tmp_path / "source" / FILENAME
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(data)
    return cache.put(source)


def found_in(cache: Cache) -> CachedWheel:
    found = cache.get(f"sha256:{sha256_of(WHEEL)}")
    assert found is not None
    return found


def tree_of(root: Path) -> Path:
    """Return the folder of the only tree."""
    (marker,) = (root / "v1" / "trees").glob("*/*.json")
    return marker.with_suffix("")


def marker_of(tree: Path) -> Path:
    return tree.with_name(tree.name + ".json")


def read(tree: Path) -> Manifest:
    manifest = decode_marker(marker_of(tree).read_bytes())
    assert manifest is not None
    return manifest


def write(tree: Path, manifest: Manifest) -> None:
    marker_of(tree).write_bytes(encode_marker(manifest))


def replace_in_place(path: Path, data: bytes) -> None:
    """Overwrite a file, and reset its time stamp and permissions."""
    stat = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(stat.st_mode)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def renewed(root: Path, folder: ManifestDir) -> ManifestDir:
    """Return a folder of a manifest with the sizes, digests and fingerprints of the files on disk."""
    paths = [root / folder.path / name for name in folder.names]
    stats = [path.stat() for path in paths]
    return folder._replace(
        sizes=[stat.st_size for stat in stats],
        stamps=[stat.st_mtime_ns for stat in stats],
        inodes=[stat.st_ino for stat in stats],
        digests="".join(sha256_of(path.read_bytes()) for path in paths),
    )


def forge(tree: Path, *, boot: str | None = "boot 1") -> None:
    """Alter a file of a tree, and write a marker that lists the altered file with all of its facts."""
    replace_in_place(tree / "demo" / "a.py", EVIL)
    manifest = read(tree)
    folders = [renewed(tree, folder) for folder in manifest.folders]
    changed = tree.stat().st_ctime_ns if os.name == "posix" else manifest.changed
    write(tree, manifest._replace(folders=folders, boot=boot, changed=changed))


def restore(root: Path) -> None:
    """Archive all trees with tar, delete them, and restore them with their time stamps."""
    saved = root.parent / "saved.tar"
    with tarfile.open(saved, "w") as file:
        file.add(root / "v1" / "trees", "trees")
    shutil.rmtree(root / "v1" / "trees")
    with tarfile.open(saved) as file:
        file.extraction_filter = getattr(tarfile, "tar_filter", None)
        file.extractall(root / "v1")


def check(machine: Machine, root: Path, **options: str) -> None:
    """Check that every way out of the cache yields the files of the wheel."""
    for number in range(2):
        with machine.cache(root, **options) as cache:
            found = found_in(cache)
            site = root.parent / f"site {number} {sorted(options.values())}"
            cache.unpack(found, site)
            assert files_in(site) == ALL
            assert files_in(cache.unpack(found).path) == ALL
            contents = {row[0]: stream.read() for row, stream, _ in TreeSource(cache, found).get_contents()}
            assert contents == ALL


# Markers that prove nothing


@pytest.mark.parametrize("is_private", [True, False], ids=["private", "shared"])
@pytest.mark.parametrize("verify", VERIFY)
@pytest.mark.parametrize("boot", ["boot 1", "boot 2", None])
def test_a_tree_from_an_archive_is_compared(
    boot: str | None, verify: str, is_private: bool, machine: Machine, root: Path
) -> None:
    """A forged tree with its marker, restored from an archive, is not handed out, even if its boot is right."""
    forge(tree_of(root), boot=boot)
    restore(root)
    machine.is_private = is_private
    check(machine, root, verify=verify)


@pytest.mark.parametrize("is_private", [True, False], ids=["private", "shared"])
@pytest.mark.parametrize("verify", VERIFY)
def test_an_altered_file_from_an_archive_is_noticed(
    verify: str, is_private: bool, machine: Machine, root: Path
) -> None:
    """A file that was altered in an archive of this boot, with its time stamp preserved, is not handed out."""
    replace_in_place(tree_of(root) / "demo" / "a.py", EVIL)
    restore(root)
    machine.is_private = is_private
    check(machine, root, verify=verify)


@pytest.mark.parametrize("verify", ["auto", "full"])
def test_a_marker_of_another_user_proves_nothing(verify: str, machine: Machine, root: Path) -> None:
    """In a shared cache, a forged marker of this boot, whose change time is right, is not trusted."""
    forge(tree_of(root))
    machine.is_private = False
    check(machine, root, verify=verify)


def test_a_marker_of_another_boot_proves_nothing(machine: Machine, root: Path) -> None:
    """In a private cache, a marker of another boot is not trusted, even if it lists the altered file."""
    forge(tree_of(root))
    machine.reboot()
    check(machine, root)


@not_on_windows("the test cannot set the change time in the marker")
def test_markers_of_others_are_accepted_on_request(machine: Machine, root: Path) -> None:
    """With verify="records", a marker of this boot is accepted in a shared cache, and nothing is hashed."""
    machine.is_private = False
    with machine.cache(root, verify="records") as cache:
        found = found_in(cache)
        machine.files.forget()
        cache.unpack(found, root.parent / "site")
        cache.unpack(found)
    assert machine.files.calls("open_read") == []


def test_a_shared_tree_is_hashed_once_per_process(machine: Machine, root: Path) -> None:
    """In a shared cache, each object compares a tree once, and keeps the result in memory."""
    machine.is_private = False
    before = listing(root / "v1" / "trees")
    for _ in range(2):
        with machine.cache(root) as cache:
            found = found_in(cache)
            machine.files.forget()
            cache.unpack(found)
            assert str(tree_of(root) / "demo" / "a.py") in machine.files.calls("open_read")
            machine.files.forget()
            cache.unpack(found)
            cache.unpack(found, root.parent / "site", mode="hardlink")
            assert machine.files.calls("open_read") == []
    assert listing(root / "v1" / "trees") == before


def test_a_tree_of_this_process_is_not_hashed(machine: Machine, tmp_path: Path) -> None:
    """In a shared cache, a tree that this object has created is trusted by it."""
    machine.is_private = False
    with machine.cache(tmp_path / "cache") as cache:
        found = put(cache, tmp_path)
        cache.unpack(found)
        machine.files.forget()
        cache.unpack(found)
        cache.unpack(found, tmp_path / "site", mode="hardlink")
    assert machine.files.calls("open_read") == []


def test_a_layer_that_others_can_write_to_is_compared_once(machine: Machine, root: Path, tmp_path: Path) -> None:
    """A forged tree of a layer is not used, and is not changed. An intact one is used after a comparison."""
    machine.is_private = False
    with machine.cache(tmp_path / "above", layers=[root]) as above:
        assert above.unpack(found_in(above)).path == tree_of(root)
    forge(tree_of(root))
    before = listing(root)
    with machine.cache(tmp_path / "above", layers=[root]) as above:
        tree = above.unpack(found_in(above)).path
        assert tree.is_relative_to(above.path)
        assert files_in(tree) == ALL
    assert listing(root) == before


def without(*fields: str) -> Callable[[Path], None]:
    def remove(tree: Path) -> None:
        kept = decode(marker_of(tree).read_bytes())
        assert kept is not None
        for name in ("check", *fields):
            kept.pop(name, None)
        marker_of(tree).write_bytes(encode(kept))

    return remove


@pytest.mark.parametrize("fields", [("inodes", "changed"), ("inodes",), ("changed",)], ids="-".join)
def test_a_marker_of_an_earlier_version_is_renewed(fields: tuple[str, ...], machine: Machine, root: Path) -> None:
    """A tree whose marker has no inodes or change time is compared once, and then trusted by its renewed marker."""
    tree, before = tree_of(root), read(tree_of(root))
    without(*fields)(tree)
    with machine.cache(root) as cache:
        found = found_in(cache)
        machine.files.forget()
        assert cache.unpack(found).path == tree
        assert str(tree / "demo" / "a.py") in machine.files.calls("open_read")
    assert read(tree) == before
    with machine.cache(root) as cache:
        machine.files.forget()
        assert cache.unpack(found).path == tree
        assert machine.files.calls("open_read") == []


# Comparisons


def with_kind(manifest: Manifest, kinds: str) -> Manifest:
    folders = [folder._replace(kinds=kinds) if folder.path == "demo" else folder for folder in manifest.folders]
    return manifest._replace(folders=folders)


def without_file(manifest: Manifest) -> Manifest:
    folders = [folder.only(0) if folder.path == "demo" else folder for folder in manifest.folders]
    return manifest._replace(folders=folders)


def with_file(manifest: Manifest) -> Manifest:
    return manifest._replace(
        folders=[
            folder._replace(
                names=[*folder.names, "zz.py"],
                sizes=[*folder.sizes, 0],
                stamps=[*folder.stamps, 0],
                inodes=[*folder.inodes, 0],
                kinds=folder.kinds + "-",
                digests=folder.digests + sha256_of(b""),
            )
            if folder.path == "demo"
            else folder
            for folder in manifest.folders
        ]
    )


def with_digest(manifest: Manifest) -> Manifest:
    folders = [
        folder._replace(digests="0" * len(folder.digests)) if folder.path == "demo" else folder
        for folder in manifest.folders
    ]
    return manifest._replace(folders=folders)


def with_folder(manifest: Manifest) -> Manifest:
    return manifest._replace(folders=[*manifest.folders, ManifestDir("zz", [], [], [], [], "", "")])


@pytest.mark.parametrize(
    "alter",
    [
        lambda manifest: with_kind(manifest, "x---"),
        lambda manifest: with_kind(manifest, "-m--"),
        lambda manifest: with_kind(manifest, "----"),
        without_file,
        with_file,
        with_digest,
        with_folder,
    ],
    ids=["a program more", "an image more", "a program less", "a file less", "a file more", "digest", "folder"],
)
@pytest.mark.parametrize("is_private", [True, False], ids=["private", "shared"])
def test_a_marker_with_other_facts_is_noticed(
    is_private: bool, alter: Callable[[Manifest], Manifest], machine: Machine, root: Path
) -> None:
    """A marker that lists other files, digests or kinds than the wheel is replaced together with its tree."""
    before = read(tree_of(root))
    write(tree_of(root), alter(before))
    machine.reboot()
    machine.is_private = is_private
    check(machine, root)
    after = read(tree_of(root))
    assert [folder[:3] + folder[5:] for folder in after.folders] == [
        folder[:3] + folder[5:] for folder in before.folders
    ]


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("damage", ["altered", "longer", "missing"])
def test_each_file_is_compared(damage: str, name: str, machine: Machine, root: Path) -> None:
    """Any altered, longer or missing file is noticed after a reboot, including RECORD, which has no hash."""
    path = tree_of(root) / name
    if damage == "missing":
        path.unlink()
    else:
        replace_in_place(path, bytes(len(ALL[name])) + (b"\0" if damage == "longer" or not ALL[name] else b""))
    machine.reboot()
    check(machine, root)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_hashes_of_every_algorithm_in_record_are_compared(algorithm: str, machine: Machine, tmp_path: Path) -> None:
    """An intact tree is kept after a comparison, and an altered one is not, whatever hash RECORD has."""
    data = archive(wheel_entries(ENTRIES, algorithm=algorithm))
    with machine.cache(tmp_path / "cache") as cache:
        found = put(cache, tmp_path, data)
        tree = cache.unpack(found).path
        before = files_in(tree)
        machine.reboot()
        assert cache.unpack(found).path == tree
        replace_in_place(tree / "demo" / "a.py", EVIL)
        machine.reboot()
        assert files_in(cache.unpack(found).path) == before


def test_a_tree_without_its_wheel_is_kept_unused(machine: Machine, root: Path) -> None:
    """A tree that must be compared with a missing wheel is not used, and can be used when the wheel is back."""
    tree = tree_of(root)
    machine.reboot()
    with machine.cache(root) as cache:
        found = found_in(cache)
        data = found.path.read_bytes()
        cache.remove(found.filename.partition("-")[0], dry_run=True)
        found.path.unlink()
        with pytest.raises(FileNotFoundError, match="fetched again"):
            cache.unpack(found)
        assert tree.is_dir()
        assert cache.unpack(put(cache, root.parent, data)).path == tree


def test_a_wheel_that_is_refused_cannot_prove_its_tree(machine: Machine, root: Path, tmp_path: Path) -> None:
    """If the wheel of an untrusted tree has no valid RECORD, the call fails as it does without a tree."""
    data = wheel(ENTRIES, record="top.py,,\n")
    with machine.cache(root) as cache:
        bad = put(cache, tmp_path, data)
        sha256 = sha256_of(data)
        good = tree_of(root)
        tree = root / "v1" / "trees" / sha256[:2] / f"{sha256[2:22]}-0"
        shutil.copytree(good, tree)
        write(tree, read(good)._replace(sha256=sha256))
        machine.reboot()
        with pytest.raises(InvalidWheelError):
            cache.unpack(bad)


# Additional files


EXTRA = ["evil.pth", "demo/evil.py", "demo/sub/evil.py", "evil/__init__.py", "demo/__pycache__/a.pyc"]


@pytest.mark.parametrize("name", EXTRA)
@pytest.mark.parametrize("is_private", [True, False], ids=["private", "shared"])
def test_a_planted_file_is_deleted_before_the_tree_is_used(
    is_private: bool, name: str, machine: Machine, root: Path
) -> None:
    """A comparison deletes the files that the wheel does not have, and keeps the tree."""
    tree = tree_of(root)
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).write_bytes(b"import evil\n")
    machine.reboot()
    machine.is_private = is_private
    check(machine, root)
    assert tree_of(root) == tree
    assert not (tree / name).exists()


@not_on_windows("Wine does not change the change time of a folder")
def test_a_file_planted_at_the_top_is_noticed_at_once(machine: Machine, root: Path) -> None:
    """A new entry of the top folder changes its change time, so the tree is compared in the same boot."""
    (tree_of(root) / "evil.pth").write_bytes(b"import evil\n")
    check(machine, root)


def test_a_planted_file_that_is_held_makes_the_tree_invalid(machine: Machine, root: Path, tmp_path: Path) -> None:
    """If additional files cannot be deleted, as in a layer, the wheel is unpacked again elsewhere."""
    (tree_of(root) / "demo" / "evil.py").write_bytes(b"")
    machine.reboot()
    with machine.cache(tmp_path / "above", layers=[root]) as above:
        tree = above.unpack(found_in(above)).path
        assert tree.is_relative_to(above.path)
        assert files_in(tree) == ALL
    with machine.cache(root, read_only=True) as cache:
        cache.unpack(found_in(cache), tmp_path / "site")
        assert files_in(tmp_path / "site") == ALL


@not_on_windows("no right to make links there")
@pytest.mark.parametrize("name", ["link", "demo/link.py", "demo/sub"])
def test_a_planted_link_is_not_followed(name: str, machine: Machine, root: Path, tmp_path: Path) -> None:
    """A link in a tree is deleted. Its target is unchanged."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "native.pyd").write_bytes(ALL["demo/sub/native.pyd"])
    (elsewhere / "mine.py").write_bytes(b"mine")
    path = tree_of(root) / name
    if path.exists():
        shutil.rmtree(path)
    path.symlink_to(elsewhere, target_is_directory=True)
    machine.reboot()
    check(machine, root)
    assert sorted(files_in(elsewhere)) == ["mine.py", "native.pyd"]


def test_an_empty_folder_is_harmless(machine: Machine, root: Path) -> None:
    """An empty folder, such as one that Python made for byte code, does not make a tree invalid."""
    tree = tree_of(root)
    (tree / "__pycache__").mkdir()
    check(machine, root)
    assert tree_of(root) == tree


# Fingerprints


@pytest.mark.parametrize("verify", VERIFY)
def test_a_file_renamed_over_another_is_noticed(verify: str, machine: Machine, root: Path) -> None:
    """A new file with the name, size and time stamp of an old one has another inode."""
    path = tree_of(root) / "demo" / "a.py"
    stat = path.stat()
    new = root.parent / "new"
    new.write_bytes(EVIL)
    new.chmod(stat.st_mode)
    os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(new, path)
    check(machine, root, verify=verify)


class RenumberingFolders(FaultyFiles):
    """A file layer that gives each file in an open folder a new inode at each ``stat``, like some network volumes."""

    def open_folder(self, path: str) -> RenumberingFolder:
        return RenumberingFolder(self, self.inner.open_folder(path), path)


class RenumberingFolder(FaultyFolder):
    numbers = itertools.count(1 << 40)

    def stat(self, name: str) -> os.stat_result:
        stat = super().stat(name)
        fields, named = stat.__reduce__()[1]
        return os.stat_result((fields[0], next(self.numbers), *fields[2:]), named)


def test_unstable_inodes_are_not_compared(tmp_path: Path) -> None:
    """On a volume that gives a file a new inode at each ``stat``, a tree is trusted by sizes and time stamps."""
    machine = Machine(RenumberingFolders())
    with machine.cache(tmp_path / "cache") as cache:
        found = put(cache, tmp_path)
        cache.unpack(found)
        machine.files.forget()
        cache.unpack(found)
        cache.unpack(found, tmp_path / "site", mode="hardlink")
        assert machine.files.calls("open_read") == []
        stamp = (tree_of(cache.path) / "demo" / "a.py").stat().st_mtime_ns
        (tree_of(cache.path) / "demo" / "a.py").chmod(0o644)
        (tree_of(cache.path) / "demo" / "a.py").write_bytes(EVIL)
        os.utime(tree_of(cache.path) / "demo" / "a.py", ns=(stamp, stamp + 1000))
        assert files_in(cache.unpack(found).path) == ALL


def test_hard_links_to_files_keep_a_tree_trusted(machine: Machine, root: Path, tmp_path: Path) -> None:
    """Links to the files, copies of them and a second installation do not change the fingerprints of a tree."""
    with machine.cache(root) as cache:
        found = found_in(cache)
        for number, mode in enumerate(["hardlink", "copy", "auto"]):
            cache.unpack(found, tmp_path / f"site {number}", mode=mode)
        machine.files.forget()
        cache.unpack(found, tmp_path / "site", mode="hardlink")
        cache.unpack(found)
    assert [path for path in machine.files.calls("open_read") if "trees" in path] == []


def test_a_moved_cache_keeps_its_trees_trusted(machine: Machine, root: Path, tmp_path: Path) -> None:
    """Renaming the cache folder changes no change time of a tree."""
    (tmp_path / "deep").mkdir()
    moved = tmp_path / "deep" / "moved"
    os.rename(root, moved)
    with machine.cache(moved) as cache:
        found = found_in(cache)
        machine.files.forget()
        cache.unpack(found)
    assert machine.files.calls("open_read") == []


@not_on_windows("files have no permissions there, and Wine does not change the change time of a folder")
@pytest.mark.parametrize("change", [lambda tree: tree.chmod(0o700), os.utime])
def test_a_changed_top_folder_is_compared_once(change: Callable[[Path], None], machine: Machine, root: Path) -> None:
    """Other permissions or time stamps of the top folder cost one comparison. Then the tree is trusted again."""
    tree = tree_of(root)
    change(tree)
    with machine.cache(root) as cache:
        found = found_in(cache)
        for count in (1, 0):
            machine.files.forget()
            assert cache.unpack(found).path == tree
            assert machine.files.calls("open_read").count(str(tree / "demo" / "a.py")) == count


class Swapping(FaultyFiles):
    """A file layer in which another user replaces a file just before it is linked or copied."""

    def __init__(self, victim: str) -> None:
        super().__init__()
        self.victim = victim
        self.is_active = False

    def swap(self, path: str) -> None:
        if self.is_active and path.endswith(self.victim):
            os.unlink(path)
            Path(path).write_bytes(EVIL)

    def open_read(self, path: str) -> BinaryIO:
        self.swap(path)
        return super().open_read(path)

    def open_folder(self, path: str) -> SwappingFolder:
        return SwappingFolder(self, self.inner.open_folder(path), path)


class SwappingFolder(FaultyFolder):
    def link(self, name: str, target: FaultyFolder) -> None:
        assert isinstance(self._files, Swapping)
        self._files.swap(f"{self.path}/{name}")
        super().link(name, target)


@not_on_windows("a hard link there keeps the access list of the cache")
@pytest.mark.parametrize("mode", ["hardlink", "copy", "auto"])
def test_a_file_swapped_after_its_check_is_not_handed_out(mode: str, tmp_path: Path) -> None:
    """In a shared cache, each file is checked after it was linked or copied, too."""
    files = Swapping("demo/a.py")
    machine = Machine(files)
    machine.is_private = False
    with machine.cache(tmp_path / "cache") as cache:
        found = put(cache, tmp_path)
        cache.unpack(found)
        files.is_active = True
        try:
            cache.unpack(found, tmp_path / "site", mode=mode)
        except CommitError:
            pass  # the file was swapped in every attempt
        files.is_active = False
        left = tmp_path / "site" / "demo" / "a.py"
        assert not left.exists() or left.read_bytes() == ALL["demo/a.py"]
        cache.unpack(found, tmp_path / "site", mode=mode)
        assert files_in(tmp_path / "site") == ALL


def test_record_of_the_tree_is_that_of_the_wheel(root: Path) -> None:
    """The test's wheel has a RECORD, so that a file without a hash is among the compared files."""
    assert (tree_of(root) / INFO / "RECORD").read_bytes() == ALL[f"{INFO}/RECORD"]
